"""Texts in several files: lists, patterns, splits in the name, columns, and Parquet."""

import json
import os

import numpy as np
import pytest

from lm_human_preferences.datasets import cnndm, tldr
from lm_human_preferences.datasets.registry import get_references, get_texts
from lm_human_preferences.datasets.text_files import Joined
from lm_human_preferences.utils.text import same_source, shared

SPLITS = ('train', 'valid', 'test')


def write_lines(path, entries):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    with open(str(path), 'w', encoding='utf-8') as file:
        file.writelines((entry if isinstance(entry, str) else json.dumps(entry)) + '\n' for entry in entries)


def parquet_bytes(path, columns, rows_in_group=7):
    """Write a Parquet file of several row groups; return its bytes."""
    pyarrow = pytest.importorskip('pyarrow', reason='needs the Python package pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    parquet.write_table(pyarrow.table(columns), str(path), row_group_size=rows_in_group)
    with open(str(path), 'rb') as file:
        return file.read()


def texts(name, split='train'):
    found = get_texts(name, split)
    assert [found[i] for i in range(len(found))] == list(found)
    return list(found)


def refusal(name, split='train', error=ValueError):
    with pytest.raises(error) as caught:
        get_texts(name, split)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def shards(tmp_path, cache):
    """A folder with shards of each split, as text and as JSON."""
    for split, number in (('train', 3), ('valid', 2), ('test', 1)):
        for shard in range(number):
            write_lines(tmp_path / f'{split}-{shard}.txt', [f'{split} {shard} {i}' for i in range(2)])
            rows = [{'post': f'{split} {shard} {i}', 'tldr': f'short {i}' if i else None} for i in range(2)]
            write_lines(tmp_path / f'{split}-{shard}.jsonl', rows)
    return tmp_path


def test_a_list_of_files_is_one_text_file(shards):
    both = f'text:{shards}/train-0.txt,{shards}/train-1.txt'
    assert refusal(both, 'valid').startswith(f'{both[5:]} has 4 texts, too few')
    assert texts(both) == ['train 0 0', 'train 0 1', 'train 1 0', 'train 1 1']
    write_lines(shards / 'long.txt', [f'long {i}' for i in range(38)])
    many = f'text:{shards}/train-0.txt,{shards}/long.txt'
    assert texts(many, 'valid') == ['long 17', 'long 37'] and texts(many, 'test') == ['long 7', 'long 27']
    assert len(texts(many)) == 36


@pytest.mark.parametrize('spelled', ['{split}-*.txt', '{train,valid,test}-*.txt', '{split}-?.txt', '**/{split}-*.txt'])
def test_the_split_and_a_pattern_in_the_name(shards, spelled):
    numbers = {split: len(texts(f'text:{shards}/{spelled}', split)) for split in SPLITS}
    assert numbers == {'train': 6, 'valid': 4, 'test': 2}
    assert texts(f'text:{shards}/{spelled}', 'valid')[2] == 'valid 1 0'


def test_other_names_of_splits(shards):
    os.rename(str(shards / 'valid-0.txt'), str(shards / 'validation-0.txt'))
    assert texts(f'text:{shards}/{{train,validation,test}}-0.txt', 'valid') == ['valid 0 0', 'valid 0 1']
    assert texts(f'text:{shards}/{{train,validation,test}}-0.txt', 'test') == ['test 0 0', 'test 0 1']


def test_columns_of_json(shards):
    name = f'jsonl:{shards}/{{split}}-*.jsonl#post,tldr'
    assert texts(name, 'test') == ['test 0 0', 'test 0 1']
    assert list(get_references(name, 'test')) == [None, 'short 1']
    assert isinstance(get_texts(name, 'train'), Joined) and get_texts(name, 'train')[4] == 'train 2 0'
    wrong = f'jsonl:{shards}/{{split}}-*.jsonl#title'
    assert refusal(wrong) == f'{shards}/train-0.jsonl: line 1: not an object with a string "title"'
    assert 'neither a string nor an object with a string "text"' in refusal(f'jsonl:{shards}/{{split}}-*.jsonl')
    # Tokens that are kept for later runs are not mixed up.
    write_lines(shards / 'both.jsonl', [{'a': f'a {i}', 'b': f'b {i}'} for i in range(30)])
    one, other = (get_texts(f'jsonl:{shards}/both.jsonl#{column}', 'train') for column in 'ab')
    assert one[3] == 'a 3' and other[3] == 'b 3' and one.source.checksum() != other.source.checksum()


def test_names_with_special_characters_are_taken_as_they_are(tmp_path, cache):
    for name in ('a,b.txt', 'a#b.txt', 'a*b.txt', '{split}.txt', 'a?.txt'):
        write_lines(tmp_path / name, [f'{name} {i}' for i in range(20)])
        assert texts(f'text:{tmp_path}/{name}', 'valid') == [f'{name} 19']
    write_lines(tmp_path / 'a#b.jsonl', [json.dumps(f'{i}') for i in range(20)])
    assert texts(f'jsonl:{tmp_path}/a#b.jsonl', 'valid') == ['19']


@pytest.mark.parametrize(
    'spelled, expected',
    [
        ('text:DIR/none-*.txt', 'DIR/none-*.txt: no file matches this: give a file with one text on each line, …'),
        ('text:DIR/{train,valid}-*.txt', 'DIR/{train,valid}-*.txt: {train,valid} should be {split}, or the names …'),
        ('text:DIR/{split}-0.txt,DIR/train-0.txt', '…either all of these paths name the split, as in {split}.jsonl…'),
        ('text:DIR/train-0.txt,', ' not found: give a file with one text on each line, or a folder of such files'),
        (
            'text:https://host/*.txt',
            'https://host/*.txt: a pattern of files is possible for local paths and hf:// only',
        ),
        ('jsonl:DIR/train-0.jsonl#a,b,c', '…#a,b,c: after # stand the column of the texts and perhaps that of the …'),
        ('jsonl:DIR/train-0.jsonl#', '…: after # stand the column of the texts and perhaps that of the references'),
        ('parquet:DIR/train.parquet', 'parquet:DIR/train.parquet names no column: write parquet:PATH#COLUMN'),
        ('parquet:DIR/train.parquet#a', 'DIR/train.parquet not found: give a Parquet file, or a folder of such files'),
    ],
)
def test_spellings_that_name_nothing(shards, spelled, expected):
    line = refusal(spelled.replace('DIR', str(shards)), error=(ValueError, OSError)).replace(str(shards), 'DIR')
    start, _, rest = expected.partition('…')
    assert line.startswith(start) and rest.rstrip('…') in line, line


def test_parquet(tmp_path, cache):
    columns = {'post': [f'post {i}\n\u2028é' for i in range(60)], 'tldr': [None, 'b'] * 30, 'score': list(range(60))}
    parquet_bytes(tmp_path / 'all.parquet', columns)
    name = f'parquet:{tmp_path}/all.parquet#post,tldr'
    assert texts(name, 'valid') == [f'post {i}\n\u2028é' for i in (19, 39, 59)]
    assert list(get_references(name, 'test')) == ['b', 'b', 'b'] and len(texts(name)) == 54
    assert "row 0: column 'tldr' is empty" in refusal(f'parquet:{tmp_path}/all.parquet#tldr')
    assert "no column 'text': its columns are post, tldr, score" in refusal(f'parquet:{tmp_path}/all.parquet#text')
    assert "row 0: column 'score' is no text" in refusal(f'parquet:{tmp_path}/all.parquet#score')
    columns['post'][19] = 'changed'
    parquet_bytes(tmp_path / 'all.parquet', columns)
    assert texts(name, 'valid')[0] == 'changed'
    for content in (b'', b'PAR1 no parquet', b'\0' * 1000):
        with open(str(tmp_path / 'all.parquet'), 'wb') as file:
            file.write(content)
        assert 'not a Parquet file that can be read' in refusal(name)
    assert not [path for _, _, names in os.walk(str(cache)) for path in names if 'partial' in path]


def test_a_folder_of_parquet_files(tmp_path, cache):
    for split in SPLITS:
        parquet_bytes(tmp_path / 'data' / f'{split}.parquet', {'text': [f'{split} {i}' for i in range(3)]})
    assert texts(f'parquet:{tmp_path}/data#text', 'valid') == ['valid 0', 'valid 1', 'valid 2']


@pytest.fixture
def lost(monkeypatch, web):
    """The places of 2019 have nothing."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_PUBLISHED', web.url)


def test_the_hubs_copy_of_cnndm(tmp_path, hub, lost, quick_retries, capsys):
    files = {}
    for split, number in (('train', 2), ('validation', 1), ('test', 1)):
        for shard in range(number):
            path = f'3.0.0/{split}-{shard:05d}-of-{number:05d}.parquet'
            story = f'LONDON, England (CNN) -- The {split} “story” {shard}\n\n\n\nEnds.'
            files[path] = parquet_bytes(tmp_path / path, {'article': [story] * 3, 'highlights': ['One.\nTwo.'] * 3})
    hub.put('datasets/abisee/cnn_dailymail', files)
    assert texts('cnndm')[5] == cnndm.clean('The train "story" 1\n\nEnds.') and len(texts('cnndm')) == 6
    assert texts('cnndm', 'valid')[0] == 'The validation "story" 0\n\nEnds.'
    assert list(get_references('cnndm', 'test')) == ['One.\nTwo.'] * 3
    notes = capsys.readouterr()
    assert (notes.out + notes.err).count('the copy on the hub') <= 1


def test_the_hubs_copy_of_tldr(tmp_path, hub, lost, quick_retries):
    posts = [f'Post {i}\n\n\n\nends' for i in range(40)]
    path = 'default/partial-train/0000.parquet'
    content = parquet_bytes(tmp_path / path, {'content': posts, 'summary': [f'sum {i}' for i in range(40)]})
    hub.put('datasets/webis/tldr-17', {'README.md': b''}).commit({path: content}, 'refs/convert/parquet')
    assert texts('tldr', 'valid') == [tldr.clean(posts[19]), 'Post 39\n\nends']
    assert list(get_references('tldr', 'test')) == ['sum 9', 'sum 29']


def test_neither_the_place_of_2019_nor_the_hub(hub, lost, quick_retries):
    line = refusal('cnndm', error=OSError)
    assert 'all_train.txt' in line and 'The copy on the hub: ' in line and 'abisee/cnn_dailymail' in line


def test_columns_of_a_url_are_no_secret():
    name = 'parquet:https://us3r:pa55@host/x.parquet?sig=s1gn#article,highlights'
    assert shared(name) == 'parquet:https://host/x.parquet#article,highlights'
    assert not same_source(name, name.replace('#article', '#title'))
    assert (
        same_source(name, name.replace('s1gn', 'n3w')) and shared('text:https://host/x#s1gn') == 'text:https://host/x'
    )


def test_memory_does_not_grow_with_the_files(tmp_path, cache):
    """Only the asked row is read: the arrays of an index are all that a data set holds."""
    parquet_bytes(tmp_path / 'all.parquet', {'text': ['x' * 1000] * 2000}, rows_in_group=100)
    found = get_texts(f'parquet:{tmp_path}/all.parquet#text', 'train')
    index = found._items._index
    assert isinstance(index, np.ndarray) and index.nbytes == 2000 * 16 and found[1234] == 'x' * 1000
