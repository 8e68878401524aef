"""The line index of a text file: where each of its items starts and ends.

With the index, reading one item takes neither memory for the file nor a look at its other items. Each host indexes a
large file once.
"""

import array
import hashlib
import json
import os
import re
from typing import Callable, Iterable, Iterator, Tuple

import numpy as np

from lm_human_preferences.remote.cache import cache_dir
from lm_human_preferences.utils.files import written_whole
from lm_human_preferences.utils.locks import locked

SMALL_FILE = 1 << 22  # bytes; a file of at most this size is indexed anew by each process
CHUNK_BYTES = 1 << 20
LONGEST_ITEM = 1 << 26  # bytes of one item of a JSON list

_SPACE = re.compile(r'[ \t\n\r]*')

Span = Tuple[int, int]  # the offset of an item's first byte, and of the byte after its last


def line_index(path: str, find_spans: Callable[[str], Iterable[Span]]) -> np.ndarray:
    """Return the spans that `find_spans(path)` yields, int64 [items, 2].

    The index of a large file is kept in the cache folder. All processes of the host map that one file into memory.
    """
    status = os.stat(path)
    if status.st_size <= SMALL_FILE:
        return np.array(list(find_spans(path)), np.int64).reshape(-1, 2)
    key = f'{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\0{find_spans.__name__}'
    index_file = os.path.join(cache_dir(), 'places', hashlib.sha256(key.encode()).hexdigest()[:32])
    os.makedirs(os.path.dirname(index_file), exist_ok=True)
    with locked(index_file):
        if not os.path.exists(index_file):
            with written_whole(index_file, 'wb') as file:
                for start, end in find_spans(path):
                    array.array('q', (start, end)).tofile(file)
    if not os.path.getsize(index_file):
        return np.zeros([0, 2], np.int64)
    return np.memmap(index_file, np.int64, mode='r').reshape(-1, 2)


def read_span(path: str, span: Span) -> bytes:
    """Return the bytes of one item."""
    start, end = span
    with open(path, 'rb') as f:
        f.seek(start)
        return f.read(end - start)


# The names of the following two functions are part of the key above: a new name indexes all large files anew.
def lines(path: str) -> Iterator[Span]:
    """Yield the spans of the lines that are not blank.

    ValueError naming the line if the file is not UTF-8. So a run fails at its start, not when it reads that line.
    """
    end = 0
    with open(path, 'rb') as f:
        for number, line in enumerate(f, start=1):
            start, end = end, end + len(line)
            try:
                line.decode('utf-8')
            except UnicodeDecodeError as e:
                raise ValueError(f'{path}: line {number}: not UTF-8 text: byte {e.start} of the line') from None
            if line.strip():
                yield start, end


def json_list(path: str) -> Iterator[Span]:
    """Yield the spans of the items of a JSON list. ValueError if the file does not hold one."""
    decoder = json.JSONDecoder()
    # Latin-1 reads each byte as one character. Outside of strings, JSON gives a meaning to ASCII characters only.
    with open(path, encoding='latin-1', newline='') as f:
        text, offset = f.read(CHUNK_BYTES), 0  # the part of the file in memory, and the offset of its first byte
        at = _skip_space(text, 0) + 1
        if text[at - 1 : at] != '[':
            raise ValueError(f'{path}: not a JSON list')
        separator = '['
        while separator != ']':
            try:
                at = _skip_space(text, at)
                if separator == '[' and text[at] == ']':
                    return
                end = decoder.raw_decode(text, at)[1]
                after = _skip_space(text, end)
                separator = text[after]
                if separator not in ',]':  # for example if the part in memory ends at the point of 1.5
                    raise ValueError
            except RecursionError:
                raise ValueError(f'{path}: the JSON list is nested too deeply at byte {offset + at}') from None
            except (ValueError, IndexError):  # the item continues after the part in memory, or is no JSON
                more = f.read(CHUNK_BYTES)
                if not more or len(text) - at > LONGEST_ITEM:
                    raise ValueError(f'{path}: not a JSON list: no item at byte {offset + at}') from None
                text, offset, at = text[at:] + more, offset + at, 0
                continue
            yield offset + at, offset + end
            at = after + 1


def _skip_space(text: str, at: int) -> int:
    """Return the index of the first character from `at` on that is no white space."""
    return _SPACE.match(text, at).end()
