"""Text files of the user, one text on each line: the data sets text:PATH and jsonl:PATH.

PATH is a file, or a folder with one file for each split. It may be local or remote.
"""

import hashlib
import json
import os
from typing import Any, Callable, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from lm_human_preferences.datasets.line_index import Check, line_index, lines, read_span
from lm_human_preferences.remote import hub, storage

# Of every 20 lines of a single file, one belongs to the split `valid` and one to `test`.
HELD_OUT_EVERY = 20


class PlainTexts:
    """The data set text:PATH: each line is a text."""

    def __init__(self, path: str):
        self._path = path

    def texts(self, split: str) -> Sequence[str]:
        """Return the texts of a split."""
        return _items_of_split(self._path, split, '.txt', str, None)


class JsonTexts:
    """The data set jsonl:PATH: each line is a JSON string, or an object with a string `text`."""

    def __init__(self, path: str):
        self._path = path

    def texts(self, split: str) -> Sequence[str]:
        """Return the texts of a split."""
        return _items_of_split(self._path, split, '.jsonl', parse_json_line, check_json_line)

    def references(self, split: str) -> Sequence[Optional[str]]:
        """Return the string `reference` of each text's object, or None for a text without one."""
        return _items_of_split(self._path, split, '.jsonl', _parse_reference, check_json_line)


def parse_json_line(line: str) -> str:
    """Return the text of a line of JSON: a string, or an object with a string `text`."""
    return _text_of(_json(line))


def _parse_reference(line: str) -> Optional[str]:
    return _reference_of(_json(line))


def check_json_line(line: str) -> None:
    """Raise ValueError for a line that has no text, or whose reference is not a string."""
    item = _json(line)
    _text_of(item)
    _reference_of(item)


def _text_of(item: Any) -> str:
    text = item.get('text') if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise ValueError('neither a string nor an object with a string "text"')
    return text


def _reference_of(item: Any) -> Optional[str]:
    reference = item.get('reference') if isinstance(item, dict) else None
    if not isinstance(reference, (str, type(None))):
        raise ValueError('"reference" is not a string')
    return reference


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


class LineFile(Sequence):
    """The lines of a file that are not blank. Each is read when it is indexed."""

    def __init__(self, path: str, parse: Callable[[str], Optional[str]] = str, check: Optional[Check] = None):
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


class Split(Sequence):
    """One split of the items of a single file.

    Of every HELD_OUT_EVERY items, the middle one belongs to `test`, the last one to `valid`, and the others to `train`.
    So even a short file has items in each split.
    """

    def __init__(self, items: LineFile, split: str):
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
    path: str, split: str, suffix: str, parse: Callable[[str], Optional[str]], check: Optional[Check]
) -> Sequence[Optional[str]]:
    """Return a split of the user's items: from the folder's file for it, or the split's share of a single file."""
    if _is_folder(path):
        try:
            return LineFile(storage.local_file(storage.join(path, split + suffix)), parse, check)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}: the folder needs train, valid and test{suffix}') from None
    try:
        items = LineFile(storage.local_file(path), parse, check)
    except FileNotFoundError as error:
        hint = 'give a file with one text on each line, or a folder of such files'
        raise FileNotFoundError(f'{error}: {hint}') from None
    items_of_split = Split(items, split)
    if not len(items_of_split):
        few = f'{len(items)} texts, too few for the split {split!r}'
        raise ValueError(f'{path} has {few}: give {HELD_OUT_EVERY} or more')
    return items_of_split


def _is_folder(path: str) -> bool:
    """Return whether `path` names a folder. A remote path is taken for a folder if its name has no extension."""
    if storage.is_remote(path):
        return not os.path.splitext(hub.parse(path).path if hub.is_hub(path) else urlsplit(path).path)[1]
    return os.path.isdir(os.path.expanduser(path))
