"""The line index of a text file: where each of its items starts and ends.

With the index, reading one item takes neither memory for the file nor a look at its other items. The pass that makes
the index also checks every item, so that a run fails at its start, and not at the step that draws a bad item. Each host
indexes a large file once: 100 MB take half a second as text, and less than two seconds as JSON.
"""

import array
import hashlib
import io
import json
import os
import re
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

import numpy as np

from lm_human_preferences.remote.cache import cache_folder
from lm_human_preferences.utils.files import BYTE_ORDER_MARK, check_regular, open_regular, text_lines, written_whole
from lm_human_preferences.utils.locks import locked

SMALL_FILE = 1 << 22  # bytes; a file of at most this size is indexed anew by each process
CHUNK_BYTES = 1 << 20
LONGEST_ITEM = 1 << 26  # bytes of one item of a JSON list

_BLANK = ' \t\n\r\x0b\x0c'  # a line of these alone is no item
_SPACE = re.compile(r'[ \t\n\r]*')

# Part of the name of a kept index. Raise it when the spans or the checks below change: all large files are then indexed
# and checked anew.
_VERSION = 2

Span = Tuple[int, int]  # the offset of an item's first byte, and of the byte after its last
Check = Callable[[Any], Any]  # raises ValueError, with the reason, for an item that cannot be used


def line_index(
    path: str, find_spans: Callable[[str, Optional[Check]], Iterable[Span]], check: Optional[Check] = None
) -> np.ndarray:
    """Return the spans that `find_spans(path, check)` yields, int64 [items, 2].

    The index of a large file is kept in the cache folder. All processes of the host map that one file into memory. A
    kept index is of a file whose items have passed `check`.
    """
    check_regular(path)
    status = os.stat(path)
    if status.st_size <= SMALL_FILE:
        return np.array(list(find_spans(path, check)), np.int64).reshape(-1, 2)
    functions = (find_spans.__name__, check.__qualname__ if check else '', _VERSION)
    key = '\0'.join(map(str, (os.path.realpath(path), status.st_size, status.st_mtime_ns, *functions)))
    index_file = os.path.join(cache_folder('places'), hashlib.sha256(key.encode()).hexdigest()[:32])
    with locked(index_file):
        if not os.path.exists(index_file):
            with written_whole(index_file, 'wb') as file:
                for start, end in find_spans(path, check):
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


def lines(path: str, check: Optional[Check] = None) -> Iterator[Span]:
    """Yield the spans of the lines that are not blank. `check` gets the text of each.

    ValueError naming the line if the file is not UTF-8, or if `check` refuses the line.
    """
    for line in text_lines(path):
        if not line.text.strip(_BLANK):
            continue
        if check is not None:
            try:
                check(line.text)
            except ValueError as error:
                raise ValueError(f'{path}: line {line.number}: {error}') from None
        yield line.start, line.end


def json_list(path: str, check: Optional[Check] = None) -> Iterator[Span]:
    """Yield the spans of the items of a JSON list. `check` gets each item, in which texts are read as Latin-1.

    ValueError if the file does not hold a list, if an item is not UTF-8, or if `check` refuses it.
    """
    for number, (start, raw, item) in enumerate(_json_items(path)):
        try:
            raw.encode('latin-1').decode('utf-8')
        except UnicodeDecodeError as error:
            raise ValueError(f'{path}: not UTF-8 text: byte {start + error.start} of the file') from None
        if check is not None:
            try:
                check(item)
            except ValueError as error:
                raise ValueError(f'{path}: entry {number} (byte {start}): {error}') from None
        yield start, start + len(raw)


def _json_items(path: str) -> Iterator[Tuple[int, str, Any]]:
    """Yield the items of a JSON list: offset, bytes as Latin-1 characters, and value."""
    decoder = json.JSONDecoder()
    # Latin-1 reads each byte as one character. Outside of strings, JSON gives a meaning to ASCII characters only.
    with open_regular(path) as file, io.TextIOWrapper(file, encoding='latin-1', newline='') as f:
        text, offset = f.read(CHUNK_BYTES), 0  # the part of the file in memory, and the offset of its first byte
        mark = BYTE_ORDER_MARK.encode('utf-8').decode('latin-1')
        at = _skip_space(text, len(mark) if text.startswith(mark) else 0) + 1
        if text[at - 1 : at] != '[':
            raise ValueError(f'{path}: not a JSON list')
        separator = '['
        while separator != ']':
            try:
                at = _skip_space(text, at)
                if separator == '[' and text[at] == ']':
                    return
                item, end = decoder.raw_decode(text, at)
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
            yield offset + at, text[at:end], item
            at = after + 1


def _skip_space(text: str, at: int) -> int:
    """Return the index of the first character from `at` on that is no white space."""
    return _SPACE.match(text, at).end()
