import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT

from lm_human_preferences.datasets import cnndm, line_index, tldr
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.datasets.registry import get_texts
from lm_human_preferences.language import encodings
from lm_human_preferences.language.queries import tokenize_query

LETTERS = encodings.test_encoding()
PAD = 27


def query(text, query_length, start_text=None, end_text=None):
    tokens = tokenize_query(text, LETTERS, query_length, start_text, end_text)
    assert tokens is None or len(tokens) == query_length
    return None if tokens is None else ''.join('_' if t == PAD else LETTERS.decode([t]) for t in tokens)


@pytest.mark.parametrize(
    'text, length, start, end, expected',
    [
        ('abc.def.gh', 5, None, None, 'abc.d'),
        ('abc', 5, None, None, 'abc__'),
        ('abc.def.gh', 5, '.', None, 'def.g'),
        ('abc.', 5, '.', None, 'abc._'),
        ('abc.def.gh', 6, None, '.', 'abc.__'),
        ('abc.def.gh', 8, None, '.', 'abc.def.'),
        ('abc.def.gh', 5, '.', '.', 'def._'),
        ('abc.def.gh', 3, '.', '.', None),
        ('abc', 5, '.', None, None),
        ('abc', 5, None, '.', None),
        ('', 5, None, None, None),
    ],
)
def test_tokenize_query(text, length, start, end, expected):
    assert query(text, length, start, end) == expected


def test_start_must_be_one_token():
    with pytest.raises(ValueError, match="task.start_text 'ab' is 2 tokens"):
        tokenize_query('abc', LETTERS, 3, start_text='ab')


@pytest.fixture
def lines(tmp_path):
    """A file of 100 texts, each of its own two letters."""
    path = tmp_path / 'texts.txt'
    texts = [chr(97 + i // 10) + chr(97 + i % 10) for i in range(100)]
    path.write_text('\n\n'.join(texts) + '\n')
    return path


def test_splits_of_a_text_file_are_disjoint(lines):
    splits = {split: list(get_texts(f'text:{lines}', split)) for split in ('train', 'valid', 'test')}
    assert [len(splits[split]) for split in ('train', 'valid', 'test')] == [90, 5, 5]
    assert len(set().union(*splits.values())) == 100
    assert splits['valid'][0] == 'bj' and splits['test'][0] == 'aj'


def test_folder_of_jsonl(tmp_path):
    (tmp_path / 'train.jsonl').write_text('"first\\ntext"\n{"text": "zwölf", "id": 1}\n', encoding='utf-8')
    texts = get_texts(f'jsonl:{tmp_path}', 'train')
    assert list(texts) == ['first\ntext', 'zwölf'] and texts[1] == 'zwölf'
    with pytest.raises(FileNotFoundError, match='valid.jsonl not found'):
        get_texts(f'jsonl:{tmp_path}', 'valid')


@pytest.mark.parametrize('line, reason', [('{"text": 1}', 'neither a string'), ('oops', 'not JSON')])
def test_bad_jsonl_line(tmp_path, line, reason):
    (tmp_path / 'train.jsonl').write_text('"good"\n' + line + '\n')
    with pytest.raises(ValueError, match=f'train.jsonl: line 2: {reason}'):
        list(get_texts(f'jsonl:{tmp_path}', 'train'))


def test_remote_files_of_texts(cache, web, cloud):
    web.files['/all.txt'] = b'one\ntwo\n'
    assert list(get_texts(f'text:{web.url}/all.txt', 'train')) == ['one', 'two']
    cloud.put('texts/valid.jsonl', '"held out"')
    assert list(get_texts('jsonl:gs://bucket/texts', 'valid')) == ['held out']
    with pytest.raises(
        FileNotFoundError, match='gs://bucket/texts/train.jsonl: not found.*the folder needs train, valid'
    ):
        get_texts('jsonl:gs://bucket/texts', 'train')


def texts_of(spans, content):
    return [content[start:end].decode() for start, end in spans]


@pytest.mark.parametrize('chunk', [3, 7, 1 << 20])
def test_spans_in_a_json_list(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(line_index, 'CHUNK_BYTES', chunk)
    items = [{'content': 'é]\u2028 "[', 'n': [1, {'a': None}]}, 12, 'x', -1.5e3, [], {}, '日本 😀\\']
    for separators in ((',', ':'), (' ,\r\n\t', ' : ')):
        content = (' [ ' + json.dumps(items, ensure_ascii=False, separators=separators)[1:] + '\n').encode()
        (tmp_path / 'list.json').write_bytes(content)
        found = list(line_index.json_list(str(tmp_path / 'list.json')))
        assert [json.loads(text) for text in texts_of(found, content)] == items
    for content, count in (('[]', 0), (' [ ] ', 0), ('[1]', 1)):
        (tmp_path / 'list.json').write_text(content)
        assert len(list(line_index.json_list(str(tmp_path / 'list.json')))) == count


@pytest.mark.parametrize('content', ['', '{}', '[', '[1', '[1,', '[1,]', '[1 2]', '[1, oops]', '["a'])
def test_files_that_are_no_json_list(tmp_path, content):
    (tmp_path / 'list.json').write_text(content)
    with pytest.raises(ValueError, match='list.json: not a JSON list'):
        list(line_index.json_list(str(tmp_path / 'list.json')))


def test_a_large_file_is_indexed_once(lines, cache, monkeypatch):
    small = list(get_texts(f'text:{lines}', 'train'))
    monkeypatch.setattr(line_index, 'SMALL_FILE', 10)
    looks = []

    def find(path, check=None):
        looks.append(path)
        return line_index.lines(path, check)

    for _ in range(2):
        found = line_index.line_index(str(lines), find)
        assert isinstance(found, np.memmap) and len(found) == 100
    assert looks == [str(lines)]
    line_index.line_index(str(lines), find, check=str.upper)  # checked otherwise, so it is not the same index
    assert looks == [str(lines)] * 2
    assert list(get_texts(f'text:{lines}', 'train')) == small
    lines.write_text(' \n' * 20)
    assert len(line_index.line_index(str(lines), find)) == 0


MEASURE = """
import re, sys
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.language.encodings import test_encoding
stream = QueryStream(sys.argv[1], 'train', test_encoding(), 4)
stream.next_batch(1000)
print(len(stream._texts), re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read()).group(1))
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='this system does not tell a process its memory')
@pytest.mark.parametrize('kind', ['text', 'jsonl', 'tldr'])
def test_memory_does_not_grow_with_the_data_set(tmp_path, monkeypatch, kind):
    """The peak memory of a process for 1 000 texts, and for 80 MB of texts."""
    write = {'text': '{}\n', 'jsonl': '"{}"\n', 'tldr': ',{{"content": "{}"}}'}[kind].format('abcd' * 100)
    peaks = []
    for count in (1000, 200000):
        monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / str(count)))
        (tmp_path / str(count) / 'tldr').mkdir(parents=True)
        path = tmp_path / str(count) / 'tldr' / 'train-subset.json'
        whole = write * count
        path.write_text('[' + whole[1:] + ']' if kind == 'tldr' else whole)
        name = kind if kind == 'tldr' else f'{kind}:{path}'
        command = [sys.executable, '-c', MEASURE, name]
        env = dict(os.environ, PYTHONPATH=ROOT)
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
        texts, peak = map(int, done.stdout.split())
        assert texts == count * (1 if kind == 'tldr' else 0.9)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 10000  # kilobytes


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown data set 'bookz'.*books"):
        get_texts('bookz', 'train')
    with pytest.raises(ValueError, match="unknown split 'val'"):
        get_texts('test', 'val')
    with pytest.raises(FileNotFoundError, match='no/such.txt not found'):
        get_texts('text:no/such.txt', 'train')


def test_small_file_cannot_be_split(tmp_path):
    (tmp_path / 'few.txt').write_text('a\nb\n')
    assert list(get_texts(f'text:{tmp_path}/few.txt', 'train')) == ['a', 'b']
    with pytest.raises(ValueError, match="2 texts, too few for the split 'valid'"):
        get_texts(f'text:{tmp_path}/few.txt', 'valid')


def stream(lines, **options):
    return QueryStream(f'text:{lines}', 'train', LETTERS, query_length=2, **options)


def decoded(batch):
    return [LETTERS.decode(tokens) for tokens in batch]


def test_stream_passes_over_all_texts_in_new_orders(lines):
    texts = list(get_texts(f'text:{lines}', 'train'))
    queries = stream(lines, seed=3)
    batch = queries.next_batch(90)
    assert batch.shape == (90, 2) and batch.dtype == np.int32
    first, second = decoded(batch), decoded(queries.next_batch(90))
    assert sorted(first) == sorted(second) == sorted(texts)
    assert first != second and first != texts
    assert decoded(stream(lines, seed=3).next_batch(90)) == first
    assert decoded(stream(lines, seed=4).next_batch(90)) != first


def test_ranks_share_the_order_of_one(lines):
    alone = decoded(stream(lines, seed=1).next_batch(180))
    for num_ranks in (2, 7):
        for rank in range(num_ranks):
            mine = decoded(stream(lines, seed=1, rank=rank, num_ranks=num_ranks).next_batch(25))
            assert mine == alone[rank::num_ranks][:25]


def test_stream_resumes_at_a_position(lines):
    queries = stream(lines, seed=1, rank=1, num_ranks=2, start_text='c')
    queries.next_batch(60)
    resumed = stream(lines, seed=1, rank=1, num_ranks=2, start_text='c', position=queries.position)
    assert queries.position > 60
    assert (resumed.next_batch(20) == queries.next_batch(20)).all()


@pytest.mark.parametrize(
    'options, fault',
    [
        ({'start_text': '.'}, "task.start_text '.' is missing"),
        ({'end_text': '.'}, "task.end_text '.' is missing from the first 2 tokens"),
    ],
)
def test_texts_without_queries_say_which_token_is_missing(lines, options, fault):
    with pytest.raises(ValueError, match=f'90 texts in a row of the data set .* have no query: .*{fault}'):
        stream(lines, **options).next_batch(1)


@pytest.mark.parametrize('options', [{}, {'start_text': '.'}, {'start_text': '.', 'end_text': '.'}])
def test_random_letters_fit_the_tiniest_task(options):
    batch = QueryStream('test', 'train', LETTERS, 2, **options).next_batch(100)
    assert batch.min() >= 0 and batch.max() <= 27
    assert len({tuple(tokens) for tokens in batch}) > 20
    if 'end_text' in options:
        assert all(26 in tokens for tokens in batch)
    assert (batch == QueryStream('test', 'train', LETTERS, 2, **options).next_batch(100)).all()
    assert get_texts('test', 'train')[0] != get_texts('test', 'valid')[0]


def test_published_sets_name_what_is_missing(cache, mirror):
    with pytest.raises(
        FileNotFoundError, match=r'book_passages.train.jsonl not found.*text:PATH.*scores are no longer'
    ):
        get_texts('books', 'train')
    with pytest.raises(FileNotFoundError, match=r'all_val.txt: not found .*put the file at .*all_val.txt'):
        get_texts('cnndm', 'valid')
    with pytest.raises(FileNotFoundError, match=r'tldr.valid-subset.json: not found'):
        get_texts('tldr', 'test')


def test_books(cache):
    folder = cache / 'datasets' / 'book_passages'
    folder.mkdir(parents=True)
    (folder / 'train.jsonl').write_text('"One.\\nTwo."\n"Three."\n')
    assert list(get_texts('books', 'train')) == ['One.\nTwo.', 'Three.']


def test_cnndm(cache, mirror):
    urls = [f'http://web.archive.org/{rest}' for rest in ('cnn.com/a', 'www.dailymail.co.uk/b', 'www.example.org/c')]
    folder = cache / 'datasets' / 'cnndm'
    (folder / 'url_lists').mkdir(parents=True)
    (folder / 'url_lists' / 'all_val.txt').write_text('\n'.join(urls) + '\n')
    for url, site in zip(urls, ('cnn', 'dailymail', 'dailymail')):
        stories = folder / 'cache_val' / site / 'stories'
        stories.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha1(url.encode()).hexdigest() + '.story'
        (stories / name).write_text(f'News of {site}.\n\n@highlight\n\nNews', encoding='utf-8')
    texts = get_texts('cnndm', 'valid')
    assert list(texts) == ['News of cnn.', 'News of dailymail.', 'News of dailymail.']
    (folder / 'cache_val' / 'cnn' / 'stories' / (hashlib.sha1(urls[0].encode()).hexdigest() + '.story')).unlink()
    with pytest.raises(FileNotFoundError, match='story of http://web.archive.org/cnn.com/a is missing'):
        texts[0]


@pytest.mark.parametrize(
    'story, expected',
    [
        (
            'LONDON, England (CNN) -- Harry is 18.\n\nMore (CNN) here.\n\n@highlight\n\nHarry',
            'Harry is 18.\n\nMore (CNN) here.',
        ),
        ('(CNN)Students said.', 'Students said.'),
        ('By .\n\nJane Doe .\n\nThe cat sat.', 'The cat sat.'),
        (
            'By .\nJane Doe .\nPUBLISHED: .\n10:01 EST .\n| .\nUPDATED: .\n11:02 EST, 3 May 2012 .\nThe cat.',
            'The cat.',
        ),
        ('A ‘quote’ and “two”.', 'A \'quote\' and "two".'),
        ('Itâ€™s one.\n\n\n\n\nTwo.', "It's one.\n\nTwo."),
        ('Byron wrote.\n\nMuch.\n\nMore.', 'Byron wrote.\n\nMuch.\n\nMore.'),
        ("Editor's note: Jo writes.\n\nROME (CNN)  -- It rained.", 'It rained.'),
        ('By Jane Doe\nand Al Roe\nIt rained.\nMore.', 'It rained.\nMore.'),
        ('By noon it was over.\n\nMore.\n\nEnd.', 'By noon it was over.\n\nMore.\n\nEnd.'),
        ('Plain.\n\nHe told (CNN) so.', 'Plain.\n\nHe told (CNN) so.'),
        ('. .\n.\n\nThe cat.', 'The cat.'),
        ('By .\n\nJane Doe .\n\n.\n.\n\nThe cat.', 'The cat.'),
        ('LONDON (CNN) --\n.\n\nIt rained.', 'It rained.'),
        ('.\nLONDON (CNN) -- It rained.', 'It rained.'),
        ('UPDATED: .\n11:02 EST, 3 May 2012 .\n| .\n.\n\nThe cat.', 'The cat.'),
        ('. \xa0\n…\n . | .\nThe cat.', 'The cat.'),
        ('.\r\n.\r\nThe cat.', 'The cat.'),
        ('...\n\n. . .\n', ''),
        ('... and it rained.\nMore.', '... and it rained.\nMore.'),
        ('.5 percent.\n.\nMore.', '.5 percent.\n.\nMore.'),
    ],
)
def test_cnndm_cleaning(story, expected):
    assert cnndm.clean(story) == expected


def test_cnndm_is_fetched_story_by_story(cache, mirror):
    urls = [f'http://web.archive.org/cnn.com/{i}' for i in range(6)]
    bucket = '/lm-human-preferences/datasets/cnndm'
    mirror.files[f'{bucket}/url_lists/all_train.txt'] = '\n'.join(urls).encode()
    for i, url in enumerate(urls):
        name = hashlib.sha1(url.encode()).hexdigest()
        mirror.files[f'{bucket}/cache_train/cnn/stories/{name}.story'] = b'a' * (i + 1)
    queries = QueryStream('cnndm', 'train', LETTERS, 6, rank=1, num_ranks=2)
    assert len({decoded([tokens])[0] for tokens in queries.next_batch(3)}) == 3
    stories = [path for path in mirror.bodies if path.endswith('.story')]
    assert len(stories) == 3  # the other rank fetches its own
    kept = {len(files) for _, _, files in os.walk(str(cache)) if files}
    assert kept == {1, 3}  # nothing but the list and the stories


def test_tldr_is_fetched(cache, mirror):
    mirror.files['/lm-human-preferences/tldr/train-subset.json'] = b'[{"content": "a"}, {"content": "b"}]'
    assert list(get_texts('tldr', 'train')) == list(get_texts('tldr', 'train')) == ['a', 'b']
    assert mirror.bodies == {'/lm-human-preferences/tldr/train-subset.json': 1}


def test_tldr(cache):
    (cache / 'tldr').mkdir(parents=True)
    posts = [{'content': 'Itâ€™s me.\n\n\n\nHelp. ', 'summary': 'x'}, {'content': 'b'}]
    (cache / 'tldr' / 'valid-subset.json').write_text(json.dumps(posts))
    assert list(get_texts('tldr', 'test')) == ["It's me.\n\nHelp.", 'b']
    (cache / 'tldr' / 'train-subset.json').write_text('[{"text": "a"}]')
    with pytest.raises(ValueError, match='train-subset.json: entry 0 .byte 1.: not an object with a "content"'):
        get_texts('tldr', 'train')[0]
    assert tldr.clean('a\n\nb') == 'a\n\nb'
