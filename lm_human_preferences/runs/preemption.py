"""End a run early without losing work.

On SIGTERM (sent to a preempted machine) the run finishes its step, saves, and ends with EXIT_STATUS. This status says:
run the same command again. A second SIGTERM ends the process at once, as Ctrl-C does.
"""

import contextlib
import signal
import threading
from typing import Iterator

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again later

_asked = threading.Event()


class Preempted(SystemExit):
    """Ends a process that has saved its run after a SIGTERM."""

    def __init__(self):
        super().__init__(EXIT_STATUS)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Handle SIGTERM inside this block as described above. Only the main thread of a process can enter it."""
    _asked.clear()
    before = signal.signal(signal.SIGTERM, _ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def requested() -> bool:
    """Return whether this process received a SIGTERM."""
    return _asked.is_set()


def _ask(*_):
    _asked.set()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
