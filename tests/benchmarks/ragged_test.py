"""Ragged batches of the benchmarks: their shares of real tokens, and that all rows have the same."""

from argparse import Namespace

import numpy as np
import pytest
import ragged
from rows import row_parser


def flags(real, query=64, response=24, samples=4):
    return Namespace(real=real, query=query, response=response, samples=samples)


@pytest.mark.parametrize('share', [0.02, 0.3, 0.5, 0.7, 0.99, 1.0])
@pytest.mark.parametrize('number, longest', [(1, 64), (8, 24), (8, 500), (64, 75)])
def test_the_mean_length_is_as_near_to_the_share_as_whole_tokens_allow(share, number, longest):
    lengths = ragged.lengths(np.random.RandomState(3), number, longest, share)
    assert lengths.shape == (number,) and lengths.min() >= 1 and lengths.max() <= longest
    assert lengths.sum() == max(number, round(number * longest * share))


def test_lengths_differ_as_much_as_the_share_allows():
    lengths = ragged.lengths(np.random.RandomState(0), 1000, 100, 0.75)
    assert lengths.min() <= 53 and lengths.max() >= 97  # even between 50 and 100
    assert np.std(lengths) == pytest.approx(50 / 12**0.5, rel=0.05)


@pytest.mark.parametrize('share', [0.4, 0.75, 1.0])
@pytest.mark.parametrize('query, response', [(64, 24), (500, 75)])
def test_episodes_have_padding_after_the_query_and_after_the_end_of_a_scored_response(share, query, response):
    made = ragged.episodes(flags(share, query, response), 8, 512)
    assert made.queries.dtype == np.int32 and made.queries.shape == (8, query)
    real = made.queries != 514
    assert not np.any(real[:, 1:] & ~real[:, :-1])  # only on the right
    assert made.queries[real].max() < 512
    assert (real.sum() + 8 * response) / (8 * (query + response)) == pytest.approx(share, abs=1 / (8 * query))
    truncated = made.truncated(np.ones([8, response], np.int32))
    ends = np.sum(truncated == 1, axis=1)
    np.testing.assert_array_equal(truncated == 514, np.arange(response) >= ends[:, np.newaxis])
    assert ends.min() >= (2 / 3 if share < 1 else 1) * response
    whole = made.shares()['train']
    assert whole == pytest.approx(share, abs=1 / (8 * query))
    assert whole - made.shares()['score'] == pytest.approx((8 * response - ends.sum()) / (8 * (query + response)))


def test_labels_have_the_share_in_queries_and_samples():
    made = ragged.labels(flags(0.7), 32, 512)
    assert sorted(made.arrays) == ['best', 'query', 'sample0', 'sample1', 'sample2', 'sample3']
    for text in made.texts():
        assert np.mean(text != 514) == pytest.approx(0.7, abs=1 / text.size)
        assert len(set(np.sum(text != 514, axis=1))) > 5
    assert made.share() == pytest.approx(0.7, abs=2e-3)
    assert set(made.arrays['best']) == {0, 1, 2, 3}


def test_a_seed_gives_the_same_batch_each_time_and_another_seed_another():
    assert ragged.episodes(flags(0.6), 8, 512).checksum() == ragged.episodes(flags(0.6), 8, 512).checksum()
    for make in (ragged.episodes, ragged.labels):
        numbers = {make(flags(real), 8, 512, seed).checksum() for real in (0.6, 1.0) for seed in (0, 1)}
        assert len(numbers) == 4


def test_padding_moves_to_the_left_in_front_of_the_same_tokens():
    tokens = np.array([[5, 3, 9, 9], [1, 2, 3, 4], [7, 9, 9, 9]])
    np.testing.assert_array_equal(
        ragged.padded_on_the_left(tokens, padding=9), [[9, 9, 5, 3], [1, 2, 3, 4], [9, 9, 9, 7]]
    )


@pytest.mark.parametrize('value', ['0', '1.01', '-0.5', 'nan', 'half', ''])
def test_a_number_that_is_no_share_is_refused_in_one_line(value, capsys):
    with pytest.raises(SystemExit) as stopped:
        row_parser('A row.').parse_args([f'--real={value}'])
    assert stopped.value.code == 2
    message = f'argument --real: {value!r} is no share of real tokens: give a number above 0 and at most 1'
    assert capsys.readouterr().err == f'error: {message}\n'


def test_a_share_that_needs_padding_where_none_can_be_is_refused_in_one_line(capsys):
    ragged.check(flags(0.29))
    ragged.check(flags(0.05), of_labels=True)
    for refused, of_labels, reason in (
        (flags(0.25), False, 'all 24 tokens of a sampled response are real; give at least 0.29'),
        (Namespace(shares=[0.5, 0.1], **vars(flags(1.0))), False, 'a share of 0.1 is too small'),
        (flags(0.03), True, 'each text has a token; give at least 0.05'),
    ):
        with pytest.raises(SystemExit) as stopped:
            ragged.check(refused, of_labels)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith('error: ') and reason in line
