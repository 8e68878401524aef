"""Token files: they hold the tokens of the texts, are used again, and never when texts, vocabulary or they changed."""

import importlib.util
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

from lm_human_preferences.datasets import registry, token_files
from lm_human_preferences.datasets.missing_texts import MissingText
from lm_human_preferences.datasets.token_files import tokens_of
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.launcher import mpiexec
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.utils.errors import user_message

LINES = [f'line {i}: the cat and the hat' for i in range(200)]
RANKS = Ranks(alone=True)


class CountingEncoding(Encoding):
    """An encoding that counts the texts that it encodes."""

    num_encoded = 0

    def encode(self, text):
        self.num_encoded += 1
        return super().encode(text)


def encoding(n_vocab=262):
    return CountingEncoding('own', *train_bpe(LINES, n_vocab))


@pytest.fixture
def texts_of(cache, monkeypatch, tmp_path):
    """Return a function that writes lines to a file and gives the texts of a split. Each file counts as a large one."""
    monkeypatch.setattr(token_files, 'SMALL_FILE', 0)

    def write(lines, split='train', name='lines.txt'):
        (tmp_path / name).write_text(''.join(line + '\n' for line in lines))
        return registry.get_texts(f'text:{tmp_path / name}', split)

    return write


def tokenize(texts, vocabulary, split='train', dataset='text:x'):
    """Return the tokens of texts, and how many of the texts were encoded for them."""
    before = vocabulary.num_encoded
    tokens = tokens_of(texts, vocabulary, dataset, split, RANKS)
    return tokens, vocabulary.num_encoded - before


def assert_tokens(tokens, texts, vocabulary):
    expected = [vocabulary.encode(text) + [vocabulary.eot_token] for text in texts]
    assert [tokens.text(i).tolist() for i in range(tokens.num_texts)] == expected
    assert tokens.lengths().tolist() == [len(text) for text in expected]
    assert tokens.num_tokens == sum(map(len, expected))


def files(cache):
    return sorted(path for path in (cache / 'tokens').iterdir())


def test_tokens_are_those_of_the_texts_and_are_made_once(texts_of, cache):
    vocabulary = encoding()
    texts = texts_of(LINES)
    tokens, encoded = tokenize(texts, vocabulary)
    assert encoded == len(texts) == 180
    assert_tokens(tokens, texts, vocabulary)
    names = files(cache)
    assert len(names) == token_files.NUM_PARTS
    again, encoded = tokenize(texts_of(LINES), encoding())
    assert encoded == 0 and files(cache) == names
    assert_tokens(again, texts, vocabulary)


def test_a_change_of_texts_vocabulary_or_split_makes_other_tokens(texts_of):
    vocabulary = encoding()
    tokenize(texts_of(LINES), vocabulary)
    changed = [line.replace('cat', 'dog') for line in LINES]
    texts = texts_of(changed)  # as many texts of the same length, in the same file
    tokens, encoded = tokenize(texts, vocabulary)
    assert encoded == 180
    assert_tokens(tokens, texts, vocabulary)
    assert tokenize(texts_of(LINES), encoding(265))[1] == 180
    assert tokenize(texts_of(LINES, 'valid'), vocabulary, 'valid')[1] == 10
    assert tokenize(texts_of(LINES, name='moved.txt'), vocabulary)[1] == 0  # the same text in another place
    assert tokenize(texts_of(LINES), vocabulary, dataset='jsonl:x')[1] == 180


def test_a_text_that_changes_back_in_time_is_seen(texts_of, tmp_path):
    """The size and the time of the file are as before."""
    vocabulary = encoding()
    tokenize(texts_of(LINES), vocabulary)
    before = os.stat(str(tmp_path / 'lines.txt'))
    texts = texts_of([line.replace('cat', 'dog') for line in LINES])
    os.utime(str(tmp_path / 'lines.txt'), ns=(before.st_atime_ns, before.st_mtime_ns))
    texts = registry.get_texts(f'text:{tmp_path / "lines.txt"}', 'train')
    tokens, encoded = tokenize(texts, vocabulary)
    assert encoded == 180
    assert_tokens(tokens, texts, vocabulary)


def flip(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    'a flipped bit': flip,
    'no end': lambda path: path.write_bytes(path.read_bytes()[:-1]),
    'no beginning': lambda path: path.write_bytes(path.read_bytes()[2:]),
    'nothing': lambda path: path.write_bytes(b''),
    'more': lambda path: path.write_bytes(path.read_bytes() + b'\0' * 8),
    'another file': lambda path: path.write_text('hello, ' * 20),
    'removed': lambda path: path.unlink(),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_made_anew(texts_of, cache, damage):
    vocabulary = encoding()
    texts = texts_of(LINES)
    tokenize(texts, vocabulary)
    DAMAGES[damage](files(cache)[5])
    tokens, encoded = tokenize(texts_of(LINES), vocabulary)
    assert encoded in (11, 12)  # the texts of that part
    assert_tokens(tokens, texts, vocabulary)


def test_a_file_that_cannot_be_read_is_no_missing_file(texts_of, cache):
    vocabulary = encoding()
    tokenize(texts_of(LINES), vocabulary)
    path = files(cache)[5]
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=path.name):
        tokenize(texts_of(LINES), vocabulary)


def test_what_a_killed_process_leaves_is_not_used(texts_of, cache):
    vocabulary = encoding()
    texts = texts_of(LINES)
    tokenize(texts, vocabulary)
    path = files(cache)[5]
    leftover = path.with_name(f'.{path.name}.abc.partial')
    os.rename(str(path), str(leftover))
    tokens, encoded = tokenize(texts, vocabulary)
    assert encoded in (11, 12) and not leftover.exists()
    assert_tokens(tokens, texts, vocabulary)


def test_a_file_that_cannot_be_written_is_said(texts_of, cache):
    """As on a full disk: the system refuses more bytes."""
    vocabulary, texts = encoding(), texts_of(LINES)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError) as found:
            tokenize(texts, vocabulary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = re.escape(str(cache / 'tokens'))
    assert re.match(rf'cannot write {folder}/\w+-0 \(File too large\): ', user_message(found.value))
    assert files(cache) == []


def test_a_text_that_changes_while_it_is_tokenized_gives_no_file(texts_of, cache, tmp_path):
    """Not under the name of what it was before."""

    class Slow(CountingEncoding):
        def encode(self, text):
            if self.num_encoded == 3:
                (tmp_path / 'lines.txt').write_text(''.join(line.upper() + '\n' for line in LINES))
            return super().encode(text)

    vocabulary = Slow('own', *train_bpe(LINES, 262))
    with pytest.raises(ValueError, match='lines.txt: the file was changed while it was read'):
        tokenize(texts_of(LINES), vocabulary)
    assert [path for path in files(cache) if not path.name.endswith('.lock')] == []


class Stories:
    """Texts without a file of their own. One is missing."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        if index == 20:
            raise MissingText('no story 20')
        return f'story {index}'


def test_tokens_of_other_texts_leave_no_files(cache, monkeypatch, capsys):
    """A text that is missing now may be there the next time."""
    vocabulary = encoding()
    left = [f'story {i}' for i in range(50) if i != 20]
    for few, folder in ((2000, False), (0, True)):
        monkeypatch.setattr(token_files, 'FEW_TEXTS', few)
        tokens, encoded = tokenize(Stories(), vocabulary, dataset='mine')
        assert encoded == 49
        assert_tokens(tokens, left, vocabulary)
        assert capsys.readouterr().err.startswith("note: passed over 1 of 21 texts of the data set 'mine'.")
        assert (cache / 'tokens').exists() == folder
    assert files(cache) == []


def test_small_texts_need_no_files(cache, tmp_path):
    (tmp_path / 'lines.txt').write_text('\n'.join(LINES))
    vocabulary = encoding()
    texts = registry.get_texts(f'text:{tmp_path / "lines.txt"}', 'train')
    assert_tokens(tokenize(texts, vocabulary)[0], texts, vocabulary)
    assert_tokens(tokenize(list(LINES), vocabulary)[0], LINES, vocabulary)
    assert list(cache.iterdir()) == []


def test_empty_texts_and_large_vocabularies(texts_of, cache):
    """Tokens beyond 65 535 keep their value. Parts may have no text, or texts without a token."""

    class Wide(Encoding):
        def encode(self, text):
            return [70000 + len(text)] * (len(text) - 1)

    wide = Wide('own', {str(i): i for i in range(80000)}, [])
    texts = texts_of(['a', 'bb', 'c', 'ddd'] * 2)
    tokens = tokens_of(texts, wide, 'text:x', 'train', RANKS)
    lengths = [len(text) for text in texts]
    assert [tokens.text(i).tolist() for i in range(len(texts))] == [[70000 + n] * (n - 1) for n in lengths]
    assert len(files(cache)) == token_files.NUM_PARTS > len(texts)


SCRIPT = """
import os, sys
import numpy as np
from lm_human_preferences.datasets import token_files
from lm_human_preferences.datasets.registry import get_texts
from lm_human_preferences.language.encodings import Encoding, test_encoding
from lm_human_preferences.mpi.ranks import Ranks

folder, ranks = sys.argv[1], Ranks()
found, encode = {}, Encoding.encode
def counted(self, text):
    counted.texts += 1
    return encode(self, text)
Encoding.encode = counted
for case, small in (('large', 0), ('again', 0), ('small', 1 << 22)):
    token_files.SMALL_FILE, counted.texts = small, 0
    dataset = 'text:' + os.path.join(folder, 'lines.txt')
    tokens = token_files.tokens_of(get_texts(dataset, 'train'), test_encoding(), dataset, 'train', ranks)
    found[case] = np.concatenate([tokens.text(i) for i in range(tokens.num_texts)])
    found[case + ' encoded'] = counted.texts
np.savez(os.path.join(folder, f'rank-{ranks.rank}.npz'), **found)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')
def test_each_rank_tokenizes_its_share(cache, tmp_path):
    lines = ['abc' * (i % 5) + 'z.' for i in range(100)]
    (tmp_path / 'lines.txt').write_text('\n'.join(lines))
    with mpiexec.session() as environment:
        command = [*mpiexec.ranks_of(2), sys.executable, '-c', SCRIPT, str(tmp_path)]
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=600)
    ranks = []
    for rank in range(2):
        with np.load(str(tmp_path / f'rank-{rank}.npz'), allow_pickle=False) as arrays:
            ranks.append({name: arrays[name] for name in arrays})
    for case, encoded in (('large', {44, 46}), ('again', {0}), ('small', {0, 90})):
        assert (ranks[0][case] == ranks[1][case]).all() and len(ranks[0][case]) > 90
        assert {int(found[f'{case} encoded']) for found in ranks} == encoded
        assert (ranks[0][case] == ranks[0]['small']).all()
