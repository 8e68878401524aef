"""Where the items of a text file lie, found once per host: reading one takes neither memory nor a look at the rest."""

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

SMALL_FILE = 1 << 22  # bytes; gone through anew each time
CHUNK_BYTES = 1 << 20
LONGEST_ITEM = 1 << 26  # bytes of JSON

_SPACE = re.compile(r'[ \t\n\r]*')

Place = Tuple[int, int]  # of an item's first byte and of the byte after its last


def places(path: str, find: Callable[[str], Iterable[Place]]) -> np.ndarray:
    """Return the places `find(path)` gives, int64 [items, 2].

    Those of a large file are kept in the cache folder for all processes of the host and mapped into memory.
    """
    status = os.stat(path)
    if status.st_size <= SMALL_FILE:
        return np.array(list(find(path)), np.int64).reshape(-1, 2)
    key = f'{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\0{find.__name__}'
    kept = os.path.join(cache_dir(), 'places', hashlib.sha256(key.encode()).hexdigest()[:32])
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    with locked(kept):
        if not os.path.exists(kept):
            with written_whole(kept, 'wb') as file:
                for start, end in find(path):
                    array.array('q', (start, end)).tofile(file)
    if not os.path.getsize(kept):
        return np.zeros([0, 2], np.int64)
    return np.memmap(kept, np.int64, mode='r').reshape(-1, 2)


def lines(path: str) -> Iterator[Place]:
    """The lines of a file that are not blank; ValueError naming the line for text that is not UTF-8.

    Now, that is, and not when a run comes to that line after days.
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


def json_list(path: str) -> Iterator[Place]:
    """The items of a JSON list; ValueError if the file holds none."""
    decoder = json.JSONDecoder()
    # Bytes as characters one for one: all that has a meaning to JSON outside its strings is ASCII.
    with open(path, encoding='latin-1', newline='') as f:
        text, offset = f.read(CHUNK_BYTES), 0  # what is in memory, and the byte of the file at which it begins
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
                if separator not in ',]':  # as in 1.5 after its point
                    raise ValueError
            except RecursionError:
                raise ValueError(f'{path}: not a JSON list of ours: nested too deeply at byte {offset + at}') from None
            except (ValueError, IndexError):  # the item goes on behind what is in memory, or is none
                more = f.read(CHUNK_BYTES)
                if not more or len(text) - at > LONGEST_ITEM:
                    raise ValueError(f'{path}: not a JSON list: no item at byte {offset + at}') from None
                text, offset, at = text[at:] + more, offset + at, 0
                continue
            yield offset + at, offset + end
            at = after + 1


def _skip_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()
