"""The tokens of many texts, in files that are mapped into memory.

The texts are cut into NUM_PARTS parts. Each rank of a host reads and tokenizes its share of the parts, once, and writes
a token file for each into the cache folder. Then all ranks of the host map all files, so that memory does not grow with
the text.

A token file is kept for later runs if the texts are the lines of one file. Its name comes from the checksum of that
file, the split and the vocabulary, so that a changed text or vocabulary has other token files. The texts of other data
sets have no checksum that is quicker to get than their tokens. Their token files are removed as soon as they are
mapped; the system keeps the content until the run ends. A token file is written whole or not at all, and ends with a
checksum of its own.
"""

import array
import bisect
import contextlib
import glob
import hashlib
import os
import struct
import uuid
import zlib
from typing import IO, Dict, Iterable, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.line_index import SMALL_FILE
from lm_human_preferences.datasets.missing_texts import TextReader
from lm_human_preferences.datasets.text_files import SourceFile
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.remote.cache import cache_folder, unwritable
from lm_human_preferences.utils.files import open_regular, written_whole
from lm_human_preferences.utils.locks import locked
from lm_human_preferences.utils.progress import progress

NUM_PARTS = 16  # whatever the number of ranks, so that it may differ between runs
FEW_TEXTS = 2000  # this many texts of unknown size are small

# Raise it when texts are parsed, cut or tokenized in another way: all token files are then made anew.
_VERSION = 1
_END = struct.Struct('<8sIIqq')  # the last bytes of a file: magic, CRC-32 of all before, bytes a token, tokens, texts
_MAGIC = b'LMTOKENS'
_READ_BYTES = 1 << 20


class Part(NamedTuple):
    """The tokens of some consecutive texts."""

    tokens: np.ndarray  # [num_tokens]
    ends: np.ndarray  # int64 [num_texts]: where in `tokens` each text ends


class Tokens:
    """The tokens of all texts that can be read, in order."""

    def __init__(self, parts: Sequence[Part]):
        self._parts = parts
        self._firsts = np.cumsum([0] + [len(part.ends) for part in parts]).tolist()
        self.num_texts = self._firsts[-1]
        self.num_tokens = sum(len(part.tokens) for part in parts)

    def text(self, index: int) -> np.ndarray:
        """Return the tokens of one text, a view of the file."""
        number = bisect.bisect_right(self._firsts, index) - 1
        tokens, ends = self._parts[number]
        place = index - self._firsts[number]
        return tokens[(ends[place - 1] if place else 0) : ends[place]]

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each text, int32 [num_texts]."""
        return np.concatenate([np.diff(part.ends, prepend=0).astype(np.int32) for part in self._parts])


def tokens_of(texts: Sequence[str], encoding: Encoding, dataset: str, split: str, ranks: Ranks) -> Tokens:
    """Tokenize the texts of a split, and end each with the end-of-text token unless it ends with a newline.

    All ranks call this. Small texts are tokenized by the first rank alone, and need no files.

    Raises:
      ValueError: too many texts are missing, or the file of the texts was changed meanwhile.
      OSError: a token file cannot be read or written.
    """
    reader = TextReader(texts, dataset)
    source = getattr(texts, 'source', None)
    if source.size <= SMALL_FILE if source else isinstance(texts, list) or len(texts) <= FEW_TEXTS:
        return Tokens([Part(**ranks.arrays_of_first(lambda: _in_memory(reader, len(texts), encoding)))])
    if source:
        kind = (_VERSION, dataset.partition(':')[0], type(texts).__name__, split)
        name = hashlib.sha256(repr((*kind, source.checksum(), encoding.checksum())).encode()).hexdigest()[:32]
    else:
        name = ranks.from_first(lambda: uuid.uuid4().hex)
    paths = [os.path.join(cache_folder('tokens'), f'{name}-{number}') for number in range(NUM_PARTS)]
    mine = range(ranks.local_rank, NUM_PARTS, ranks.local_size)
    for number in progress(mine, f'tokens of {split}', ranks.is_first):
        first, end = (len(texts) * i // NUM_PARTS for i in (number, number + 1))
        with locked(paths[number]):
            if not _is_whole(paths[number]):
                _write(paths[number], _each_text(reader, range(first, end), encoding), source)
    ranks.wait_for_all()
    tokens = Tokens([_open(path) for path in paths])
    if not source:
        ranks.wait_for_all()
        for number in mine:
            with contextlib.suppress(FileNotFoundError):  # hosts may share the cache folder
                os.unlink(paths[number])
    return tokens


def _each_text(reader: TextReader, indices: Sequence[int], encoding: Encoding) -> Iterator[np.ndarray]:
    """Yield the tokens of the texts that can be read."""
    end = [] if encoding.eot_token is None else [encoding.eot_token]
    dtype = np.uint16 if encoding.n_vocab <= 1 << 16 else np.uint32
    for index in indices:
        text = reader.read(index)
        if text is not None:
            # A text that ends with a newline continues in the next text.
            yield np.array(encoding.encode(text) + ([] if text.endswith('\n') else end), dtype)


def _in_memory(reader: TextReader, num_texts: int, encoding: Encoding) -> Dict[str, np.ndarray]:
    """Return the fields of a Part with all texts."""
    texts = list(_each_text(reader, range(num_texts), encoding))
    ends = np.cumsum([len(tokens) for tokens in texts], dtype=np.int64)
    return dict(tokens=np.concatenate(texts or [np.zeros(0, np.uint16)]), ends=ends)


def _write(path: str, texts: Iterable[np.ndarray], source: Optional[SourceFile]) -> None:
    """Write a token file, or none if an error comes up."""
    for leftover in glob.glob(os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.*.partial')):
        os.unlink(leftover)  # of a process that was killed: we hold the lock
    try:
        with written_whole(path, 'wb') as file:
            _write_tokens(file, texts)
            if source:
                source.checksum()  # raises if the texts are no longer those that the name of the file stands for
    except OSError as error:
        if error.errno is None or error.filename is not None:  # the error names its file
            raise
        raise unwritable(path, error) from error


def _write_tokens(file: IO[bytes], texts: Iterable[np.ndarray]) -> None:
    ends, num_tokens, width, checksum = array.array('q'), 0, 1, 0
    for tokens in texts:
        data, width, num_tokens = tokens.tobytes(), tokens.itemsize, num_tokens + len(tokens)
        ends.append(num_tokens)
        file.write(data)
        checksum = zlib.crc32(data, checksum)
    data = bytes(-num_tokens * width % ends.itemsize) + ends.tobytes()
    file.write(data)
    file.write(_END.pack(_MAGIC, zlib.crc32(data, checksum), width, num_tokens, len(ends)))


def _is_whole(path: str) -> bool:
    """Return whether a token file is there and not damaged. OSError if it cannot be read."""
    try:
        with open_regular(path) as file:
            left = os.fstat(file.fileno()).st_size - _END.size
            checksum = 0
            while left > 0:
                data = file.read(min(left, _READ_BYTES))
                checksum, left = zlib.crc32(data, checksum), left - len(data)
            magic, expected, *_ = _END.unpack(file.read(_END.size).rjust(_END.size, b'\0'))
    except FileNotFoundError:
        return False
    return (magic, checksum) == (_MAGIC, expected)


def _open(path: str) -> Part:
    """Map a token file that is whole."""
    with open_regular(path) as file:
        file.seek(-_END.size, os.SEEK_END)
        _, _, width, num_tokens, num_texts = _END.unpack(file.read())
    data = np.asarray(np.memmap(path, np.uint8, mode='r'))[: -_END.size]
    return Part(data[: width * num_tokens].view(f'u{width}'), data[len(data) - 8 * num_texts :].view(np.int64))
