"""Text files of the user: the data sets text:PATH, jsonl:PATH and parquet:PATH.

shards.py says what PATH may be: a file, a list of files, a pattern, or a folder with one file for each split.
"""

import bisect
import hashlib
import itertools
import json
import os
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from lm_human_preferences.datasets import shards
from lm_human_preferences.datasets.line_index import Check, line_index, lines, read_span
from lm_human_preferences.datasets.parquet_files import as_json_lines

# Of every 20 lines of a single file, one belongs to the split `valid` and one to `test`.
HELD_OUT_EVERY = 20

Parse = Callable[[str], Optional[str]]  # a line without its line end -> an item; or it raises ValueError


class PlainTexts:
    """The data set text:PATH: each line is a text."""

    def __init__(self, path: str):
        self._path = path

    def texts(self, split: str) -> Sequence[str]:
        """Return the texts of a split."""
        return _items_of_split(self._path, split, '.txt', LineFile)


class JsonTexts:
    """The data set jsonl:PATH#TEXT,REFERENCE: each line is a JSON string, or an object.

    TEXT and REFERENCE are the names of the object's text and of a human response; without them, `text` and `reference`.
    """

    def __init__(self, path: str):
        self._path, self._columns = shards.split_columns(path)
        self._lines = json_lines(*self._columns)

    def texts(self, split: str) -> Sequence[str]:
        """Return the texts of a split."""
        return self._items(split, self._lines.text)

    def references(self, split: str) -> Sequence[Optional[str]]:
        """Return people's own responses to the texts, or None for a text without one."""
        return self._items(split, self._lines.reference)

    def _items(self, split: str, parse: Parse) -> Sequence[Optional[str]]:
        def read(path):
            return LineFile(path, parse, self._lines.check)

        return _items_of_split(self._path, split, '.jsonl', read, self._columns)


class ParquetTexts:
    """The data set parquet:PATH#TEXT,REFERENCE: columns of Parquet files."""

    def __init__(self, path: str):
        """ValueError if the path names no column."""
        self._path, columns = shards.split_columns(path)
        if not columns:
            raise ValueError(f'parquet:{path} names no column: write parquet:PATH#COLUMN')
        self._columns = dict(zip(('text', 'reference'), columns))

    def texts(self, split: str) -> Sequence[str]:
        """Return the texts of a split."""
        return self._items(split, json_lines().text)

    def references(self, split: str) -> Sequence[Optional[str]]:
        """Return people's own responses to the texts, or None for a text without one."""
        return self._items(split, json_lines().reference)

    def _items(self, split: str, parse: Parse) -> Sequence[Optional[str]]:
        def read(path):
            return LineFile(as_json_lines(path, self._columns, optional='reference'), parse)

        return _items_of_split(self._path, split, '.parquet', read)


class JsonLines(NamedTuple):
    """How a line of JSON is read."""

    text: Parse
    reference: Parse
    check: Check  # raises ValueError for a line that has no text, or whose reference is not a string


def json_lines(text: Optional[str] = None, reference: Optional[str] = None) -> JsonLines:
    """Return the functions that read a line: a JSON string, or an object whose strings have these names.

    Without names, they are `text` and `reference`.
    """

    def text_of(line: str) -> str:
        item = _json(line)
        found = item.get(text or 'text') if isinstance(item, dict) else item if text is None else None
        if not isinstance(found, str):
            either = 'neither a string nor' if text is None else 'not'
            raise ValueError(f'{either} an object with a string "{text or "text"}"')
        return found

    def reference_of(line: str) -> Optional[str]:
        item, name = _json(line), reference or 'reference'
        found = item.get(name) if isinstance(item, dict) else None
        if not isinstance(found, (str, type(None))):
            raise ValueError(f'"{name}" is not a string')
        return found

    def check(line: str) -> None:
        text_of(line)
        reference_of(line)

    check.__qualname__ = f'check_json_line {text} {reference}'  # a part of the name of the kept line index
    return JsonLines(text_of, reference_of, check)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError('not JSON') from None


class SourceFile:
    """The file that texts come from."""

    def __init__(self, path: str):
        self._path = path
        self._version = _version(path)
        self._checksum: Optional[str] = None
        self.size = os.path.getsize(path)  # bytes

    def checksum(self) -> str:
        """Return the SHA-256 of the file, which is read only once. ValueError if the file was changed since then."""
        if self._checksum is None:
            digest = hashlib.sha256()
            with open(self._path, 'rb') as file:
                for data in iter(lambda: file.read(1 << 20), b''):
                    digest.update(data)
            self._checksum = digest.hexdigest()
        if _version(self._path) != self._version:
            raise ValueError(f'{self._path}: the file was changed while it was read: give the same command again')
        return self._checksum


def _version(path: str) -> Tuple[int, ...]:
    """What changes with each change of a file, as long as the clock goes on."""
    status = os.stat(path)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class SourceFiles:
    """The files that texts come from, and the names of the columns with the texts."""

    def __init__(self, files: Sequence[SourceFile], columns: Sequence[str] = ()):
        self._files = files
        self._columns = columns
        self.size = sum(file.size for file in files)  # bytes

    def checksum(self) -> str:
        """Return a checksum of files and columns. ValueError if a file was changed since it was first read."""
        parts = (list(self._columns), [file.checksum() for file in self._files])
        return hashlib.sha256(repr(parts).encode('utf-8')).hexdigest()


class LineFile(Sequence):
    """The lines of a file that are not blank. Each is read when it is indexed."""

    def __init__(self, path: str, parse: Parse = str, check: Optional[Check] = None):
        """Find the lines and check them. ValueError naming the first line that `check` refuses.

        Args:
          parse: turns a line without its line end into an item, or raises ValueError.
        """
        self.path = path
        self.source = SourceFile(path)
        self._parse = parse
        self._index = line_index(path, lines, check)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Optional[str]:
        """Return the item of a line. ValueError naming file and byte if the file has changed and has no such line."""
        span = self._index[index]
        try:
            return self._parse(read_span(self.path, span).decode('utf-8').rstrip('\r\n'))
        except ValueError as error:
            raise ValueError(f'{self.path}: line at byte {span[0]}: {error}: the file was changed') from None


class Joined(Sequence):
    """The items of several files, one file after the other."""

    def __init__(self, files: Sequence[LineFile], columns: Sequence[str] = ()):
        self.source = SourceFiles([file.source for file in files], columns)
        self._files = files
        self._ends: List[int] = list(itertools.accumulate(map(len, files)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Optional[str]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        return self._files[number][index - (self._ends[number - 1] if number else 0)]


class Split(Sequence):
    """One split of the items of files that hold all splits.

    Of every HELD_OUT_EVERY items, the middle one belongs to `test`, the last one to `valid`, and the others to `train`.
    So even a short file has items in each split.
    """

    def __init__(self, items: Sequence[Optional[str]], split: str):
        first = {'valid': HELD_OUT_EVERY - 1, 'test': HELD_OUT_EVERY // 2 - 1}
        held_out = {name: range(start, len(items), HELD_OUT_EVERY) for name, start in first.items()}
        self.source = items.source
        self._items = items
        self._held_out = held_out.get(split)
        self._size = len(items) - sum(map(len, held_out.values())) if split == 'train' else len(held_out[split])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._size:
            raise IndexError(index)
        if self._held_out is not None:
            return self._items[self._held_out[index]]
        block, offset = divmod(index, HELD_OUT_EVERY - 2)
        return self._items[block * HELD_OUT_EVERY + offset + (offset >= HELD_OUT_EVERY // 2 - 1)]


def _items_of_split(
    path: str, split: str, suffix: str, read: Callable[[str], LineFile], columns: Sequence[str] = ()
) -> Sequence[Optional[str]]:
    """Return a split of the user's items: those of its own files, or its share of files that hold all splits."""
    try:
        found = shards.find_files(path, split, suffix)
    except FileNotFoundError as error:
        if shards.is_folder(path):
            raise FileNotFoundError(f'{error}: the folder needs train, valid and test{suffix}') from None
        file = 'a Parquet file' if suffix == '.parquet' else 'a file with one text on each line'
        raise FileNotFoundError(f'{error}: give {file}, or a folder of such files') from None
    files = [read(file) for file in found.paths]
    items = files[0] if len(files) == 1 and not columns else Joined(files, columns)
    if found.are_split:
        return items
    items_of_split = Split(items, split)
    if not len(items_of_split):
        few = f'{len(items)} texts, too few for the split {split!r}'
        raise ValueError(f'{path} has {few}: give {HELD_OUT_EVERY} or more')
    return items_of_split
