"""Confidence intervals: of independent trials, and of trials that share queries or samples."""

import math

import numpy as np
import pytest

from lm_human_preferences.evaluation.intervals import (
    Z_95,
    mean_interval,
    same_rows,
    share_interval,
    wilson_interval,
)

DATA_SETS = 300  # of each simulation


def width(interval):
    low, high = interval
    return high - low


def test_wilson_interval():
    # Each bound is a share p that is z of its own standard deviations away from the observed share.
    for successes, trials in ((15, 20), (1, 8), (300, 512)):
        low, high = wilson_interval(successes, trials)
        assert low < successes / trials < high
        for p in (low, high):
            assert abs(successes / trials - p) / math.sqrt(p * (1 - p) / trials) == pytest.approx(1.959964)
    low, high = wilson_interval(0, 10)
    assert low == 0 and 0.27 < high < 0.29  # where the normal approximation gives an interval of width 0
    assert wilson_interval(10, 10) == pytest.approx((1 - high, 1.0))
    with pytest.raises(ValueError):
        wilson_interval(0, 0)


def test_same_rows():
    rows = np.array([[[1, 2], [3, 4]], [[3, 4], [1, 3]]])
    (a, b), (c, d) = same_rows(rows).tolist()
    assert b == c and len({a, b, d}) == 3
    assert same_rows(rows[:, 0]).shape == (2,)


def test_distinct_units_give_the_usual_intervals():
    random = np.random.RandomState(0)
    right = (random.rand(512) < 0.6).astype(float)
    queries, samples = random.permutation(512), random.permutation(2048).reshape(512, 4)
    usual = wilson_interval(right.sum(), 512)
    assert share_interval(right) == share_interval(right, queries) == share_interval(right, queries, samples)
    assert share_interval(right, queries, samples) == pytest.approx(usual)
    values = random.randn(512)
    low, high = mean_interval(values, queries, samples)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * Z_95 * values.std() / math.sqrt(512), rel=0.01)
    # Of three seeds, by Student's t with two degrees of freedom.
    low, high = mean_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2) and high - low == pytest.approx(2 * 4.3027 / math.sqrt(3))


def test_five_copies_tell_as_much_as_one():
    random = np.random.RandomState(1)
    right, values, queries = (random.rand(200) < 0.7).astype(float), random.randn(200), np.arange(200)
    samples = np.arange(800).reshape(200, 4)
    order = random.permutation(1000)
    many = [np.concatenate([array] * 5)[order] for array in (right, values, queries, samples)]
    assert width(share_interval(many[0], many[2])) == pytest.approx(width(share_interval(right, queries)), rel=0.02)
    assert share_interval(many[0], many[2], many[3]) == pytest.approx(share_interval(many[0], many[2]))
    assert mean_interval(many[1], many[2]) == pytest.approx(mean_interval(values, queries))
    assert width(share_interval(many[0])) < 0.46 * width(share_interval(right))  # what the copies pretend


@pytest.mark.parametrize('all_alike', [0.0, 1.0])
def test_trials_that_all_end_alike_count_once_for_each_unit(all_alike):
    results, queries = np.full(100, all_alike), np.arange(100) % 20
    assert share_interval(results, queries) == pytest.approx(wilson_interval(20 * all_alike, 20))
    assert share_interval(results, np.zeros(100)) == pytest.approx(wilson_interval(all_alike, 1))


def test_one_unit_or_no_trial():
    assert mean_interval([1.0, 2.0], np.zeros(2)) is None and mean_interval([1.0]) is None
    assert share_interval([1.0], np.zeros(1)) == wilson_interval(1, 1)
    assert width(share_interval([1.0, 0.0, 1.0], np.zeros(3))) > 0.9
    with pytest.raises(ValueError):
        share_interval([])


def test_repeats_that_differ_more_than_others_do_not_make_an_interval_narrower():
    queries = np.repeat(np.arange(50), 2)
    results = np.tile([0.0, 1.0], 50)  # each query once wins and once loses
    assert width(share_interval(results, queries)) >= width(share_interval(results))


def test_a_sample_twice_in_a_choice_and_a_sample_in_every_choice():
    results = (np.random.RandomState(2).rand(60) < 0.5).astype(float)
    twice = np.repeat(np.arange(60), 2).reshape(60, 2)
    assert share_interval(results, twice) == pytest.approx(share_interval(results), rel=0.03)
    everywhere = np.stack([np.arange(1, 61), np.zeros(60)], axis=1)
    assert width(share_interval(results, everywhere)) >= width(share_interval(results))


def covered(truth, data_sets, interval):
    """The share of data sets (values, *units) whose interval holds the true mean."""
    bounds = [interval(*data) for data in data_sets]
    return np.mean([low <= truth <= high for low, high in bounds])


def of_queries(number, count, seed):
    """Results of `count` trials with `number` queries, some of which are easier than others; the true share is 0.8."""
    random = np.random.RandomState(seed)
    queries = np.arange(count) % number
    return (random.rand(count) < random.beta(4, 1, number)[queries]).astype(float), queries


@pytest.mark.parametrize('number', [5, 20, 100, 512])
def test_intervals_hold_the_truth_where_queries_repeat(number):
    data_sets = [of_queries(number, 512, seed) for seed in range(DATA_SETS)]
    assert 0.92 <= covered(0.8, data_sets, share_interval) <= 0.98
    if number <= 20:
        assert covered(0.8, data_sets, lambda results, _: share_interval(results)) < 0.7  # the usual one does not


@pytest.mark.parametrize('number', [8, 40, 200])
def test_intervals_of_means_hold_the_truth_where_queries_repeat(number):
    def values(seed):
        random = np.random.RandomState(seed)
        queries = random.randint(number, size=256)
        return random.randn(number)[queries] + random.randn(256), queries

    assert 0.92 <= covered(0.0, [values(seed) for seed in range(DATA_SETS)], mean_interval) <= 0.98


def of_snippets(number, count, seed):
    """Whether a noisy score chooses the best of four snippets, as the demo draws them: each pass shuffles them anew."""
    random = np.random.RandomState(seed)
    worth = random.randn(number)
    scores = worth + random.randn(number)
    passes = [random.permutation(number)[: number // 4 * 4].reshape(-1, 4) for _ in range(1 + 4 * count // number)]
    shown = np.concatenate(passes)[:count]
    return (scores[shown].argmax(axis=1) == worth[shown].argmax(axis=1)).astype(float), shown


# 624 snippets in 800 choices are those of the demo.
@pytest.mark.parametrize('number', [100, 624, 3200])
def test_intervals_hold_the_truth_where_choices_share_snippets(number):
    random = np.random.RandomState(0)
    worth = random.randn(400000, 4)
    truth = np.mean((worth + random.randn(*worth.shape)).argmax(axis=1) == worth.argmax(axis=1))
    data_sets = [of_snippets(number, 800, seed) for seed in range(DATA_SETS)]
    assert all(len(shown) == 800 for _, shown in data_sets)
    assert 0.92 <= covered(truth, data_sets, share_interval) <= 0.98
    if number < 3200:
        assert covered(truth, data_sets, lambda results, _: share_interval(results)) < 0.9  # the usual one does not


def test_students_t_between_the_known_degrees():
    for degrees, wanted in ((6, 2.4469), (8, 2.3060), (12, 2.1788), (20, 2.0860), (45, 2.0141), (100, 1.9840)):
        low, high = mean_interval(np.arange(degrees + 1))
        error = np.std(np.arange(degrees + 1)) / math.sqrt(degrees)
        assert high - low == pytest.approx(2 * wanted * error, rel=0.002)
