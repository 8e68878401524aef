"""An append-only journal: one JSON object on each line. An entry is on disk when `append` returns."""

import contextlib
import fcntl
import json
import os
import re
import stat
from typing import Any, Dict, List, Optional

from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import sync, sync_content

Entry = Dict[str, Any]

SETTINGS = 'settings'
"""The kind of a journal's first entry."""

_BEGINNING = b'{"kind": "settings", "settings": {'
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[][{}]', re.DOTALL)


def journal_path(labels_path: str) -> str:
    """Return the path of a label file's journal: labels.json → labels.journal.jsonl."""
    stem, extension = os.path.splitext(labels_path)
    return (stem if extension == '.json' else labels_path) + '.journal.jsonl'


class Journal:
    """The journal at `path`. It is created if it does not exist, and locked while this process has it open.

    Opening a journal never changes the file. If a process died while it wrote the last line, that line is one of two:
    - It is a whole entry that lacks only its newline. The entry counts.
    - It is torn: only the beginning of an entry is there. `append` never returned, so the entry never counted. `torn`
      has these bytes. The next `append` removes them.

    UserError if another process has the journal open. ValueError if the file is no journal, with the line where one is
    wrong.
    """

    def __init__(self, path: str):
        self.path = os.path.abspath(path)
        self.entries: List[Entry] = []
        self.torn = b''
        self._end = 0  # bytes of the file that hold entries
        self._lacks_newline = False
        self._has_more = False  # whether the file goes on after `_end`
        is_new = not os.path.lexists(self.path)
        self._file = open(self.path, 'a+b', buffering=0)  # noqa: SIM115  (open until `close`)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f'{self.path} is in use: another process is collecting labels there') from None
            self._read()
        except BaseException:
            self._file.close()
            raise
        if is_new:
            sync(os.path.dirname(self.path))

    def append(self, *entries: Entry) -> None:
        """Append all entries, or none if there is an error. OSError if the disk is full."""
        lines = ''.join(json.dumps(entry, sort_keys=True) + '\n' for entry in entries).encode('ascii')
        lines = b'\n' + lines if self._lacks_newline else lines
        if self._has_more:
            self._file.truncate(self._end)
        self._has_more = True  # until all is on disk: a part of a line must not stay before the next entry
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:])
            sync_content(self._file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(lines)
        self._has_more = self._lacks_newline = False
        self.torn = b''
        self.entries.extend(entries)

    def close(self) -> None:
        self._file.close()

    def _read(self) -> None:
        """Read all entries. Nothing is believed, and nothing changed, before the whole file was looked at."""
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise self._no_journal()
        self._file.seek(0)
        content = self._file.read()
        *lines, last = content.split(b'\n')
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(number, _entry(line))
        self._end = len(content) - len(last)
        last = last.rstrip(b'\0')  # a power failure can leave the new size of a file without its bytes
        if last.strip() and not _is_torn(last):
            self._add(len(lines) + 1, _entry(last))
            self._end += len(last)
            self._lacks_newline = True
        elif last.strip():
            self.torn = last
        if content and not self.entries and not (self.torn and _is_same_beginning(self.torn, _BEGINNING)):
            raise self._no_journal()
        self._has_more = self._end < len(content)

    def _add(self, number: int, entry: Optional[Entry]) -> None:
        if not self.entries and (entry is None or entry.get('kind') != SETTINGS):
            raise self._no_journal()
        if entry is None:
            raise ValueError(f'{self.path}: line {number} is no entry of a label journal')
        self.entries.append(entry)

    def _no_journal(self) -> ValueError:
        return ValueError(f'{self.path}: this file is no label journal: move it away, or give another --out or NAME')


def _entry(line: bytes) -> Optional[Entry]:
    """Return the entry on a line, None if the line is something else."""
    try:
        entry = json.loads(line.decode('utf-8-sig'))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _is_torn(line: bytes) -> bool:
    """Return whether a line may be the beginning of a longer entry: an object in ASCII that is not closed."""
    if not line.startswith(b'{') or any(byte < 0x20 or byte > 0x7E for byte in line):
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.findall(line):
        depth += (token in (b'{', b'[')) - (token in (b'}', b']'))
        if depth == 0:
            return False
    return True


def _is_same_beginning(a: bytes, b: bytes) -> bool:
    length = min(len(a), len(b))
    return a[:length] == b[:length]
