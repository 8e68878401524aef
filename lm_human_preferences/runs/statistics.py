"""The statistics of a training as a file of JSON: one object on each line, one line for each step."""

import itertools
import json
import os
from typing import Any, Dict, Iterator, Optional, Tuple

from lm_human_preferences.runs.run_folder import STATISTICS_FILE


class StatisticsFile:
    """The file `statistics.jsonl` in `folder`, to which a training writes: {"step": 0, "loss": …} and so on.

    A resumed run repeats the steps after its last checkpoint. So opening the file removes the lines of `first_step` and
    later ones, and half a line that a killed process left. Other lines stay as they are.
    """

    def __init__(self, folder: str, first_step: int = 0):
        """OSError if the file cannot be written."""
        self._file = open(os.path.join(folder, STATISTICS_FILE), 'a+b', buffering=0)  # noqa: SIM115  (until `close`)
        try:
            self._end = _length_before(self._file.name, first_step)
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        self._last: Dict[str, Any] = {}
        self._start = self._end  # where the last line begins

    def write(self, stats: Dict[str, float], step: int) -> None:
        """Write the line of a step, or add to it if it is the last line. OSError if the disk is full."""
        more = self._last.get('step') == step
        entry = {**(self._last if more else {}), 'step': step, **stats}
        start = self._start if more else self._end
        line = (json.dumps(entry, sort_keys=True) + '\n').encode('ascii')
        self._file.truncate(start)
        written = 0
        while written < len(line):
            written += self._file.write(line[written:])
        self._last, self._start, self._end = entry, start, start + len(line)

    def close(self) -> None:
        self._file.close()


def _length_before(path: str, first_step: int) -> int:
    """Return how many bytes of a file of statistics come before the line of `first_step`, or before half a line."""
    length = 0
    with open(path, 'rb') as file:
        for line in file:
            if not line.endswith(b'\n') or _entry(line).get('step', -1) >= first_step:
                break
            length += len(line)
    return length


class StatisticsReader:
    """Reads the statistics in a folder's file while a training writes them."""

    def __init__(self, folder: str):
        self._path = os.path.join(folder, STATISTICS_FILE)
        self._end = 0  # of what was read

    def new(self, with_last: bool = False) -> Iterator[Tuple[Dict[str, float], int]]:
        """Yield the new statistics of each step, with the step.

        The last step is left for later, unless `with_last` is set: more may be added to its line.
        """
        if not os.path.exists(self._path):
            return
        with open(self._path, 'rb') as file:
            # Only the last line may still change. So nothing is read that is written from now on: it may belong to a
            # newer version of that line.
            length = os.fstat(file.fileno()).st_size
            file.seek(self._end)
            lines = iter(lambda: file.readline(max(length - file.tell(), 0)), b'')
            before = b''
            for line in itertools.chain(lines, [b''] * with_last):
                self._end += len(before)
                entry = _entry(before)
                if entry:
                    yield entry, entry.pop('step')
                before = line


def last_statistics(folder: str) -> Dict[str, float]:
    """Return the statistics of the last step in a folder's file; {} if there is no such file."""
    last: Dict[str, float] = {}
    for last, _ in StatisticsReader(folder).new(with_last=True):  # noqa: B007  (it is what is returned)
        pass
    return last


def _entry(line: bytes) -> Dict[str, Any]:
    """Return the object on a whole line; {} if it is none with a step."""
    try:
        entry: Optional[Dict[str, Any]] = json.loads(line.decode()) if line.endswith(b'\n') else None
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and type(entry.get('step')) is int else {}
