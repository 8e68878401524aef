import json

import numpy as np
import pytest

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.language import encodings

SCHEMA = {
    'query': (np.int32, (3,)),
    'sample0': (np.int32, (2,)),
    'sample1': (np.int32, (2,)),
    'best': (np.int32, ()),
}
RATING = {'sample': (np.int32, (2,)), 'score': (np.float32, ())}


def load(source, schema=SCHEMA, num=2):
    return load_labels(str(source), schema, num, encodings.test_encoding())


def entries():
    return [{'query': [i, 1, 27], 'sample0': [2, 26], 'sample1': [3, 4], 'best': i % 2} for i in range(3)]


@pytest.fixture
def write(tmp_path):
    def write_labels(content):
        path = tmp_path / 'labels.json'
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_labels


def test_values_and_types(write):
    labels = load(write(entries()))
    assert {field: (a.shape, a.dtype.name) for field, a in labels.items()} == {
        'query': ((2, 3), 'int32'),
        'sample0': ((2, 2), 'int32'),
        'sample1': ((2, 2), 'int32'),
        'best': ((2,), 'int32'),
    }
    assert labels['query'].tolist() == [[0, 1, 27], [1, 1, 27]]
    assert labels['best'].tolist() == [0, 1]


def test_scores_may_be_whole_numbers(write):
    labels = load(write([{'sample': [1, 2], 'score': 3}, {'sample': [1, 2], 'score': -0.5, 'who': 'x'}]), RATING)
    assert labels['score'].tolist() == [3, -0.5] and labels['score'].dtype == np.float32


def test_a_folder_of_label_files(tmp_path, monkeypatch):
    (tmp_path / 'mine').mkdir()
    with pytest.raises(ValueError, match=r'mine: no label file \(\*.json\) in this folder'):
        load(tmp_path / 'mine')
    (tmp_path / 'mine' / 'b.json').write_text(json.dumps(entries()[2:]))
    (tmp_path / 'mine' / 'a.json').write_text(json.dumps(entries()[:2]))
    (tmp_path / 'mine' / 'a.journal.jsonl').write_text('not a label file')
    assert load(tmp_path / 'mine', num=3)['query'][:, 0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match='mine: 3 labels are fewer than labels.num_train, 4'):
        load(tmp_path / 'mine', num=4)
    (tmp_path / 'mine' / 'b.json').write_text(json.dumps([dict(entries()[2], best=2)]))
    with pytest.raises(ValueError, match=r"b.json: entry 0: field 'best': 2 is none of the 2 samples"):
        load(tmp_path / 'mine', num=3)
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path))
    assert load('mine')['best'].tolist() == [0, 1]


def test_relative_path_in_the_cache(write, tmp_path, monkeypatch):
    write(entries())
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path))
    assert load('labels.json')['best'].tolist() == [0, 1]
    with pytest.raises(FileNotFoundError, match='no label file x.json or .*x.json'):
        load('x.json')


def test_published_labels_are_fetched(cache, mirror):
    mirror.files['/lm-human-preferences/labels/sentiment/offline_5k.json'] = json.dumps(entries()).encode()
    assert load('labels/sentiment/offline_5k.json')['best'].tolist() == [0, 1]
    assert (cache / 'labels' / 'sentiment' / 'offline_5k.json').exists()
    with pytest.raises(FileNotFoundError, match='online_45k.json: not found.*put the file at .*/tldr/online_45k.json'):
        load('labels/tldr/online_45k.json')


def test_labels_from_a_bucket_and_a_web_server(cache, web, cloud):
    web.files['/mine.json'] = json.dumps(entries()).encode()
    cloud.put('mine.json', json.dumps(entries()[1:]))
    assert load(f'{web.url}/mine.json')['best'].tolist() == [0, 1]
    assert load('gs://bucket/mine.json')['best'].tolist() == [1, 0]


def test_zeros():
    labels = load('test', num=5)
    assert labels['query'].shape == (5, 3) and not labels['query'].any() and labels['best'].shape == (5,)


@pytest.mark.parametrize(
    'field, value, fault',
    [
        ('query', [1, 2], 'a list of 2 where a list of 3 numbers'),
        ('query', 5, 'a number where a list of 3'),
        ('query', [1, 2, 2.5], '2.5 is not an integer'),
        ('query', [1, 2, True], 'True is not an integer'),
        ('query', [1, [2], 3], r'\[2\] is not an integer'),
        ('query', [1, 2, 2**31], 'is not an integer of type int32'),
        ('query', [1, 2, 10**30], 'is not an integer of type int32'),
        ('sample1', [1, 28], '28 is no token'),
        ('sample0', [-1, 2], '-1 is no token'),
        ('best', 2, '2 is none of the 2 samples'),
        ('best', [1], 'a list of 1 where a number'),
        ('best', '1', "'1' is not an integer"),
        ('best', None, 'None is not an integer'),
    ],
)
def test_bad_fields_name_file_entry_and_field(write, field, value, fault):
    bad = entries()
    bad[1][field] = value
    with pytest.raises(ValueError, match=f"labels.json: entry 1: field '{field}': .*{fault}") as caught:
        load(write(bad))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'content, fault',
    [
        ('[1', 'not JSON'),
        ('{}', 'not a list'),
        (entries()[:1], '1 labels are fewer than labels.num_train, 2'),
        ([1, 2], 'entry 0: .*not an object'),
        ([{'query': [1, 2, 3]}] * 2, "field 'sample0': missing"),
    ],
)
def test_bad_files(write, content, fault):
    with pytest.raises(ValueError, match=fault):
        load(write(content))


@pytest.mark.parametrize('score', ['NaN', 'Infinity', '"1"', '1e999'])
def test_scores_are_finite(write, score):
    with pytest.raises(ValueError, match="field 'score': .* is not a finite number"):
        load(write(f'[{{"sample": [1, 2], "score": {score}}}]'), RATING, num=1)


def test_demo_labels_are_best_of_4():
    with pytest.raises(ValueError, match='best_of_4'):
        load('demo', RATING)
