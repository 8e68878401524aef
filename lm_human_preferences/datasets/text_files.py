"""Texts of the user, one a line of a file; the file may be remote."""

import json
import os
from typing import Any, Callable, Optional, Sequence
from urllib.parse import urlsplit

from lm_human_preferences.datasets.line_index import lines, places
from lm_human_preferences.remote import storage

# Of a single file, one line in twenty is held out as `valid` and another one as `test`.
HELD_OUT_EVERY = 20


class LineFile(Sequence):
    """The lines of a file that are not blank, read when asked for."""

    def __init__(self, path: str, parse: Callable[[str], Optional[str]] = str):
        """`parse` turns a line without its end into a text; its ValueError is reported with the place."""
        self.path = path
        self._parse = parse
        self._places = places(path, lines)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> str:
        """Return a text. ValueError naming file and place for a line that holds none."""
        start, end = self._places[index]
        with open(self.path, 'rb') as f:
            f.seek(start)
            line = f.read(end - start).decode('utf-8').rstrip('\r\n')
        try:
            return self._parse(line)
        except ValueError as e:
            raise ValueError(f'{self.path}: line at byte {start}: {e}') from None


class Part(Sequence):
    """A part of some texts: of every HELD_OUT_EVERY, `test` has the middle one, `valid` the last, `train` the others.

    So a short file has some of each.
    """

    def __init__(self, texts: Sequence[str], mode: str):
        first = {'valid': HELD_OUT_EVERY - 1, 'test': HELD_OUT_EVERY // 2 - 1}
        held_out = {part: range(start, len(texts), HELD_OUT_EVERY) for part, start in first.items()}
        self._texts = texts
        self._held_out = held_out.get(mode)
        self._size = len(texts) - sum(map(len, held_out.values())) if mode == 'train' else len(held_out[mode])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._size:
            raise IndexError(index)
        if self._held_out is not None:
            return self._texts[self._held_out[index]]
        block, place = divmod(index, HELD_OUT_EVERY - 2)
        return self._texts[block * HELD_OUT_EVERY + place + (place >= HELD_OUT_EVERY // 2 - 1)]


class PlainTexts:
    """The data set text:PATH: each line of a file, or of the files in a folder, is a text."""

    def __init__(self, path: str):
        self._path = path

    def texts(self, mode: str) -> Sequence[str]:
        """The lines of `mode`; see `_part` for how the path and `mode` name them."""
        return _part(self._path, mode, '.txt', str)


class JsonTexts:
    """The data set jsonl:PATH: each line is a JSON string, or an object with a string `text`."""

    def __init__(self, path: str):
        self._path = path

    def texts(self, mode: str) -> Sequence[str]:
        """The texts of `mode`."""
        return _part(self._path, mode, '.jsonl', parse_json_line)

    def references(self, mode: str) -> Sequence[Optional[str]]:
        """For each text the string `reference` beside it; None where there is none."""
        return _part(self._path, mode, '.jsonl', _parse_reference)


def _parse_reference(line: str) -> Optional[str]:
    item = _json(line)
    reference = item.get('reference') if isinstance(item, dict) else None
    if not isinstance(reference, (str, type(None))):
        raise ValueError('"reference" is not a string')
    return reference


def parse_json_line(line: str) -> str:
    """Return the text of a line of JSON: a string, or an object with a string `text`."""
    item = _json(line)
    if isinstance(item, dict):
        item = item.get('text')
    if not isinstance(item, str):
        raise ValueError('neither a string nor an object with a string "text"')
    return item


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError('not JSON') from None


def _part(path: str, mode: str, suffix: str, parse: Callable[[str], Optional[str]]) -> Sequence[str]:
    """Return the texts of `mode`: of the folder's file MODE.suffix, or those of one file set apart for it."""
    if _is_folder(path):
        try:
            return LineFile(storage.local_file(storage.join(path, mode + suffix)), parse)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}: the folder needs train, valid and test{suffix}') from None
    try:
        texts = LineFile(storage.local_file(path), parse)
    except FileNotFoundError as error:
        hint = 'give a file of one text a line, or a folder of such files'
        raise FileNotFoundError(f'{error}: {hint}') from None
    part = Part(texts, mode)
    if not len(part):
        raise ValueError(f'{path} has {len(texts)} texts, too few for a part {mode!r}: give {HELD_OUT_EVERY} or more')
    return part


def _is_folder(path: str) -> bool:
    """Whether `path` names a folder; of what is remote, a name without an extension does."""
    if storage.is_remote(path):
        return not os.path.splitext(urlsplit(path).path)[1]
    return os.path.isdir(os.path.expanduser(path))
