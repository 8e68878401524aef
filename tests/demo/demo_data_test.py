import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.demo import data_set, snippets
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import Encoding


@pytest.fixture(scope='module')
def encoding():
    return Encoding('own', *train_bpe(data_set.lm_texts('train')[:2000], 1024))


def same(text):
    return ''.join(c for c in text.lower() if c.isalnum())


def test_all_ratings_are_read_once():
    everything = [s for split in snippets.SPLITS for s in snippets.snippets(split, snippets.SOURCES)]
    assert 23000 < len(everything) <= 23703
    assert len({same(s.text) for s in everything}) >= len(everything) - 5
    assert all(-4 <= s.rating <= 4 and s.text == ' '.join(s.text.split()) for s in everything)
    ratings = {s.text: s.rating for s in everything}
    assert ratings['Effective but too tepid biopic'] == -0.6
    assert ratings['repost from january 13, 2004 with a better fit title.'] == -0.15


def test_splits_are_disjoint_and_have_the_right_sizes():
    movies = {split: {same(s.text) for s in snippets.snippets(split)} for split in snippets.SPLITS}
    assert sum(snippets.SPLITS.values()) == 1000
    assert [round(len(movies[split]), -2) for split in ('judge', 'test', 'valid', 'train')] == [
        1500,
        800,
        400,
        7900,
    ]
    every = [{same(s.text) for s in snippets.snippets(split, snippets.SOURCES)} for split in snippets.SPLITS]
    assert sum(map(len, every)) == len(set().union(*every))


def test_order_does_not_tell_ratings():
    ratings = np.array([s.rating for s in snippets.snippets('train')])
    assert abs(np.corrcoef(ratings[:-1], ratings[1:])[0, 1]) < 0.05


def test_same_words_are_in_the_same_split():
    assert snippets.split_of('A good film.') == snippets.split_of(' a GOOD film!')


def test_lm_texts_hold_each_movie_snippet_once():
    train, valid = data_set.lm_texts('train'), data_set.lm_texts('valid')
    lines = [text.rstrip('\n').split('\n') for text in train]
    assert all(text.endswith('\n') for text in train) and max(map(len, lines)) == data_set.SNIPPETS_PER_LM_TEXT
    assert sorted(sum(lines, [])) == sorted(s.text for s in snippets.snippets('train'))
    assert sum(map(len, lines)) > 15 * sum(text.count('\n') for text in valid)


def test_query_texts_are_lines_of_their_split_alone():
    movies = {s.text for s in snippets.snippets('valid')}
    texts = data_set.texts('valid')
    assert len(texts) == len(movies)
    for text in texts:
        lines = text.split('\n')
        assert len(lines) == 5 and lines.pop() == '' and set(lines) <= movies


def test_queries_are_whole_snippets(encoding):
    movies = {s.text for s in snippets.snippets('valid')}
    for tokens in QueryStream('demo', 'valid', encoding, 48, end_text='\n').next_batch(50):
        lines = encoding.decode(tokens).split('\n')
        assert lines.pop() == '' and lines and set(lines) <= movies


def test_labels_are_the_choices_of_people(encoding):
    ratings = {s.text: s.rating for s in snippets.snippets('valid')}
    labels = data_set.best_of_4_labels('valid', 200, encoding, 48, 60, seed=1)
    assert {field: (a.shape, a.dtype.name) for field, a in labels.items()} == {
        'query': ((200, 48), 'int32'),
        'best': ((200,), 'int32'),
        **{f'sample{k}': ((200, 60), 'int32') for k in range(4)},
    }
    for i in range(200):
        texts = [encoding.decode(labels[f'sample{k}'][i]) for k in range(4)]
        assert all(text.endswith('\n') for text in texts) and len(set(texts)) == 4
        rated = [ratings[text[:-1]] for text in texts]
        assert int(np.argmax(rated)) == labels['best'][i] and rated.count(max(rated)) == 1
        query = encoding.decode(labels['query'][i])
        assert query.endswith('\n') and not any(text in query for text in texts)
        assert set(query[:-1].split('\n')) <= set(ratings)
    assert np.bincount(labels['best']).min() > 30


def test_labels_use_all_ratings_evenly_and_depend_on_the_seed(encoding):
    labels = data_set.best_of_4_labels('test', 300, encoding, 48, 40, seed=1)
    used = [labels[f'sample{k}'][i].tobytes() for i in range(300) for k in range(4)]
    fitting = sum(len(encoding.encode(s.text + '\n')) <= 40 for s in snippets.snippets('test'))
    passes = -(-300 * 4 // fitting)
    counts = [used.count(sample) for sample in set(used)]
    assert max(counts) <= passes + 1 and len(counts) > 0.95 * fitting
    again = data_set.best_of_4_labels('test', 300, encoding, 48, 40, seed=1)
    other = data_set.best_of_4_labels('test', 300, encoding, 48, 40, seed=2)
    assert all((labels[field] == again[field]).all() for field in labels)
    assert (labels['query'] != other['query']).any()


def test_label_source_demo_is_the_train_split(encoding):
    fields = {f'sample{k}': (np.int32, (40,)) for k in range(4)}
    schema = {'query': (np.int32, (48,)), 'best': (np.int32, ()), **fields}
    labels = load_labels('demo', schema, 20, encoding, seed=5)
    movies = {s.text + '\n' for s in snippets.snippets('train')}
    assert labels['query'].shape == (20, 48)
    assert all(encoding.decode(tokens) in movies for tokens in labels['sample2'])


def test_lengths_that_hold_nothing(encoding):
    with pytest.raises(ValueError, match='response_length 2'):
        data_set.best_of_4_labels('valid', 10, encoding, 48, 2)
    with pytest.raises(ValueError, match='no snippet fits into query_length 2'):
        data_set.best_of_4_labels('valid', 10, encoding, 2, 40)
    with pytest.raises(ValueError, match="unknown split 'val'"):
        data_set.lm_texts('val')


def test_a_damaged_source_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path))
    path = tmp_path / 'demo' / snippets.ARCHIVE
    path.parent.mkdir()
    path.write_bytes(b'half a download')
    snippets.load_snippets.cache_clear()
    try:
        with pytest.raises(ValueError, match='its SHA-256 differs'):
            snippets.snippets('train')
    finally:
        snippets.load_snippets.cache_clear()


def test_without_a_network_one_line_says_what_to_put_where(tmp_path):
    env = dict(
        os.environ, LM_HUMAN_PREFERENCES_CACHE=str(tmp_path), PIP_INDEX_URL='http://127.0.0.1:9/', PIP_RETRIES='0'
    )
    command = [sys.executable, '-m', 'lm_human_preferences.demo.snippets']
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True)
    line = done.stderr.decode()
    assert (done.returncode, done.stdout, len(line.splitlines())) == (2, b'', 1)
    assert line.startswith('error: cannot fetch the texts of the demo with pip (')
    assert f': download {snippets.ARCHIVE} from https://pypi.org/project/vaderSentiment/3.3.2/ on a machine' in line
    assert line.endswith(f', and put it into {tmp_path}/demo\n')
    assert os.listdir(str(tmp_path / 'demo')) == []


def test_the_source_in_the_cache_is_the_published_one():
    path = snippets.fetch()
    assert os.path.basename(path) == snippets.ARCHIVE
    with open(path, 'rb') as f:
        assert hashlib.sha256(f.read()).hexdigest() == snippets.ARCHIVE_SHA256
    assert os.listdir(os.path.dirname(path)) == [snippets.ARCHIVE]


@pytest.mark.parametrize(
    'raw, expected',
    [
        ("the ''Conan'' &amp; co", 'the "Conan" & co'),
        ('all comics    even those', 'all comics - even those'),
        (' a  b\t\r', 'a b'),
    ],
)
def test_clean(raw, expected):
    assert snippets.clean(raw) == expected
