"""Texts that cannot be read while a run trains: a few are passed over and said, many end the run."""

import hashlib
import os

import pytest

from lm_human_preferences.datasets import missing_texts
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.datasets.registry import get_texts
from lm_human_preferences.language.encodings import test_encoding as letters

BUCKET = '/lm-human-preferences/datasets/cnndm'


def put_stories(mirror, count, missing):
    """Serve a list of `count` URLs, and the stories of all but the `missing` ones."""
    urls = [f'http://web.archive.org/cnn.com/{i}' for i in range(count)]
    mirror.files[f'{BUCKET}/url_lists/all_train.txt'] = '\n'.join(urls).encode()
    for i, url in enumerate(urls):
        if i not in missing:
            name = hashlib.sha1(url.encode()).hexdigest()
            mirror.files[f'{BUCKET}/cache_train/cnn/stories/{name}.story'] = ('a' * (i + 1)).encode()


def test_a_missing_story_is_passed_over_and_said(cache, mirror, capsys):
    put_stories(mirror, 8, missing={2, 5, 6})
    queries = QueryStream('cnndm', 'train', letters(), 8)
    assert queries.num_texts == 8
    queries.check()
    assert capsys.readouterr() == ('', '')
    for _ in range(2):  # the second pass misses them again
        lengths = [(row != 27).sum() for row in queries.next_batch(5)]
        assert sorted(lengths) == [1, 2, 4, 5, 8]
    assert queries.position in (15, 16)
    out, err = capsys.readouterr()
    said = err.splitlines()
    assert out == '' and len(said) == 3  # of the first, the second and the fourth
    assert all(f'note: passed over {n} of ' in line for n, line in zip((1, 2, 4), said))
    assert "texts of the data set 'cnndm'. The last one: the story of http://web.archive.org/cnn.com/" in said[0]


def test_a_stream_resumes_after_missing_stories(cache, mirror):
    put_stories(mirror, 8, missing={2, 5})
    queries = QueryStream('cnndm', 'train', letters(), 8, seed=3)
    queries.next_batch(4)
    resumed = QueryStream('cnndm', 'train', letters(), 8, seed=3, position=queries.position)
    assert (resumed.next_batch(9) == queries.next_batch(9)).all()


def test_too_many_missing_stories_end_the_run_in_one_line(cache, mirror):
    put_stories(mirror, 40, missing=range(11))
    queries = QueryStream('cnndm', 'train', letters(), 40)
    with pytest.raises(
        ValueError, match="^11 of .. texts of the data set 'cnndm' cannot be read: too many. The last one:"
    ):
        queries.next_batch(40)


@pytest.mark.parametrize('break_it', ['folder', 'fifo', 'permission', 'server'])
def test_what_counts_as_missing(break_it, cache, mirror, quick_retries, monkeypatch, capsys):
    """Whatever keeps a story from being read: its text is never drawn, and the others are."""
    put_stories(mirror, 4, missing={1})
    name = hashlib.sha1(b'http://web.archive.org/cnn.com/1').hexdigest() + '.story'
    path = cache / 'datasets' / 'cnndm' / 'cache_train' / 'cnn' / 'stories' / name
    path.parent.mkdir(parents=True)
    if break_it == 'folder':
        path.mkdir()
    elif break_it == 'fifo':
        os.mkfifo(str(path))
    elif break_it == 'permission':
        path.write_text('aa')
        real = os.stat
        monkeypatch.setattr(
            os,
            'stat',
            lambda p, **more: (
                (_ for _ in ()).throw(PermissionError(13, 'Permission denied', p))
                if str(p) == str(path)
                else real(p, **more)
            ),
        )
    else:
        mirror.faults[f'{BUCKET}/cache_train/cnn/stories/{name}'] = [503] * 10
    queries = QueryStream('cnndm', 'train', letters(), 4)
    assert sorted((row != 27).sum() for row in queries.next_batch(6)) == [1, 1, 3, 3, 4, 4]
    assert capsys.readouterr().err.count('note: passed over 1 of ') == 1


def test_the_share_of_missing_texts():
    """More than 10, and more than 1 % of all that were tried."""

    class Texts:
        def __init__(self, missing):
            self.missing = set(missing)

        def __len__(self):
            return 3000

        def __getitem__(self, index):
            if index in self.missing:
                raise missing_texts.MissingText(f'no {index}')
            return str(index)

    for missing, end in (
        (range(10), None),
        (range(11), 10),
        (range(99, 3000, 100), None),  # one of each hundred
        ([*range(10), *range(1100, 3000, 100)], None),
        ([*range(10), 900], 900),
        ([*range(10), 1099, 1100], 1100),
    ):
        texts = missing_texts.readable_texts(Texts(missing), 'mine')
        if end is None:
            assert list(texts) == [str(i) for i in range(3000) if i not in set(missing)]
        else:
            with pytest.raises(
                ValueError, match=f"of {end + 1} texts of the data set 'mine' .* The last one: no {end}$"
            ):
                list(texts)


def test_no_story_at_all(cache, mirror):
    put_stories(mirror, 4, missing=range(4))
    with pytest.raises(ValueError, match="4 texts in a row of the data set 'cnndm' have no query: they cannot be read"):
        QueryStream('cnndm', 'train', letters(), 4).check()
    assert len(get_texts('cnndm', 'train')) == 4
