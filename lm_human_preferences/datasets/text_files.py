"""Texts of the user, one a line of a file."""

import array
import json
import os
from typing import Callable, Optional, Sequence

import numpy as np

# Of a single file, one line in twenty is held out as `valid` and another one as `test`.
HELD_OUT_EVERY = 20


class LineFile(Sequence):
    """The lines of a file that are not blank, read when asked for: memory holds only their places."""

    def __init__(self, path: str, parse: Callable[[str], Optional[str]] = str):
        """`parse` turns a line without its end into a text; its ValueError is reported with the place."""
        self.path = path
        self._parse = parse
        self._starts = array.array('q')
        place = 0
        with open(path, 'rb') as f:
            for line in f:
                if line.strip():
                    self._starts.append(place)
                place += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> str:
        """Return a text. ValueError naming file and place for a line that holds none."""
        start = self._starts[index]
        with open(self.path, 'rb') as f:
            f.seek(start)
            line = f.readline().decode('utf-8', errors='replace').rstrip('\r\n')
        try:
            return self._parse(line)
        except ValueError as e:
            raise ValueError(f'{self.path}: line at byte {start}: {e}') from None


class Selection(Sequence):
    """Some of the items of a sequence, by their indices."""

    def __init__(self, items: Sequence[str], indices: Sequence[int]):
        self._items = items
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> str:
        return self._items[int(self._indices[index])]


def plain_texts(path: str, mode: str) -> Sequence[str]:
    """Return the lines of a text file; see `_part` for how `path` and `mode` name them."""
    return _part(path, mode, '.txt', str)


def json_texts(path: str, mode: str) -> Sequence[str]:
    """Return the texts of a JSON-lines file: each line a string or an object with a string `text`."""
    return _part(path, mode, '.jsonl', parse_json_line)


def json_references(path: str, mode: str) -> Sequence[Optional[str]]:
    """Return for each text of `json_texts` the string `reference` beside it, None where there is none."""
    return _part(path, mode, '.jsonl', _parse_reference)


def _parse_reference(line: str) -> Optional[str]:
    item = json.loads(line)
    reference = item.get('reference') if isinstance(item, dict) else None
    if not isinstance(reference, (str, type(None))):
        raise ValueError('"reference" is not a string')
    return reference


def parse_json_line(line: str) -> str:
    """Return the text of a line of JSON: a string, or an object with a string `text`."""
    try:
        item = json.loads(line)
    except ValueError:
        raise ValueError('not JSON') from None
    if isinstance(item, dict):
        item = item.get('text')
    if not isinstance(item, str):
        raise ValueError('neither a string nor an object with a string "text"')
    return item


def _part(path: str, mode: str, suffix: str, parse: Callable[[str], Optional[str]]) -> Sequence[str]:
    """Return the texts of `mode`: of the folder's file MODE.suffix, or those of one file set apart for it."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        path = os.path.join(path, mode + suffix)
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path} not found: the folder needs train, valid and test{suffix}')
        return LineFile(path, parse)
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} not found: give a file of one text a line, or a folder of such files')
    lines = LineFile(path, parse)
    # `valid` are the lines 20, 40, …, `test` the lines 10, 30, …: a short file has some of both.
    group = np.arange(1, len(lines) + 1) % HELD_OUT_EVERY
    part = {'valid': group == 0, 'test': group == HELD_OUT_EVERY // 2}
    part['train'] = ~(part['valid'] | part['test'])
    indices = np.flatnonzero(part[mode])
    if not len(indices):
        raise ValueError(f'{path} has {len(lines)} texts, too few for a part {mode!r}: give {HELD_OUT_EVERY} or more')
    return Selection(lines, indices)
