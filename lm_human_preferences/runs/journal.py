"""An append-only journal: one JSON object on each line. An entry is on disk when `append` returns."""

import contextlib
import fcntl
import json
import os
from typing import Any, Dict, List

from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import sync

Entry = Dict[str, Any]


def journal_path(labels_path: str) -> str:
    """Return the path of a label file's journal: labels.json → labels.journal.jsonl."""
    stem, extension = os.path.splitext(labels_path)
    return (stem if extension == '.json' else labels_path) + '.journal.jsonl'


class Journal:
    """The journal at `path`. It is created if it does not exist, and locked while this process has it open.

    An unfinished last line is cut off. It comes from a process that died before `append` returned, so it never counted.
    UserError if another process has the journal open. ValueError, with the line, if the file is no journal.
    """

    def __init__(self, path: str):
        self.path = os.path.abspath(path)
        is_new = not os.path.exists(self.path)
        self._file = open(self.path, 'a+b', buffering=0)  # noqa: SIM115  (open until `close`)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f'{self.path} is in use: another process is collecting labels there') from None
            self.entries = self._read()
        except BaseException:
            self._file.close()
            raise
        if is_new:
            sync(os.path.dirname(self.path))

    def append(self, *entries: Entry) -> None:
        """Append all entries, or none if there is an error. OSError if the disk is full."""
        lines = ''.join(json.dumps(entry, sort_keys=True) + '\n' for entry in entries).encode('ascii')
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:])
            os.fsync(self._file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(end)  # otherwise the next entry would continue a torn line
            raise
        self.entries.extend(entries)

    def close(self) -> None:
        self._file.close()

    def _read(self) -> List[Entry]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b'\n') + 1
        if whole < len(content):
            self._file.truncate(whole)
        entries = []
        for number, line in enumerate(content[:whole].split(b'\n')[:-1], start=1):
            try:
                entry = json.loads(line.decode('utf-8'))
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise ValueError(f'{self.path}: line {number} is no entry of a label journal')
            entries.append(entry)
        return entries
