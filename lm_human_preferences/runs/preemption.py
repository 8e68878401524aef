"""Ending early and in good order: SIGTERM, as a machine that is being taken away sends it.

The first one asks: training finishes its step, saves, and the process ends with EXIT_STATUS, so that whoever started
it knows to start it again. A second one ends the process at once, as Ctrl-C does.
"""

import contextlib
import signal
import threading
from typing import Iterator

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again later

_asked = threading.Event()


class Preempted(SystemExit):
    """The end of a process that has saved its run on being asked to end."""

    def __init__(self):
        super().__init__(EXIT_STATUS)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Within this block the first SIGTERM asks to end; only the main thread of a process can enter it."""
    _asked.clear()
    before = signal.signal(signal.SIGTERM, _ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def requested() -> bool:
    """Whether this process was asked to end."""
    return _asked.is_set()


def _ask(*_):
    _asked.set()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
