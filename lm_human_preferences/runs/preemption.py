"""End a run early without losing work.

On SIGTERM (sent to a preempted machine), SIGHUP (the terminal is closed) or Ctrl-C (SIGINT), the run finishes its step,
saves, and ends. After SIGTERM and SIGHUP the exit status is EXIT_STATUS. It says: run the same command again. After
Ctrl-C it is 130, as usual. A second SIGTERM or Ctrl-C ends the process at once. A second SIGHUP does nothing, because
one closed terminal may send two.
"""

import contextlib
import os
import signal
import threading
from typing import Any, Callable, Iterator, Optional, Sequence

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 128 + signal.SIGINT  # what a shell makes of Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # and SIGINT, where the terminal sends it
NOTICE = 'Ctrl-C: the run finishes its step and saves; a second Ctrl-C ends it at once\n'

_asked = threading.Event()
_reason: Optional[int] = None  # the first signal


class Preempted(SystemExit):
    """Ends a process that has saved its run because a signal asked for it."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__(INTERRUPTED if number == signal.SIGINT else EXIT_STATUS)


@contextlib.contextmanager
def heeded(ctrl_c: bool = False) -> Iterator[None]:
    """Handle SIGTERM, SIGHUP and, with `ctrl_c`, SIGINT inside this block as described above.

    A signal that is ignored, as by `nohup`, stays ignored. Only the main thread of a process can enter the block.
    """
    global _reason
    _asked.clear()
    _reason = None
    with handled([*SIGNALS, *[signal.SIGINT] * ctrl_c], _handle):
        yield


@contextlib.contextmanager
def handled(numbers: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Call `handler` on these signals inside this block. A signal that is ignored, as by `nohup`, stays ignored."""
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number in numbers if before[number] != signal.SIG_IGN]
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number] or signal.SIG_DFL)


def requested() -> bool:
    """Return whether this process was asked to end."""
    return _asked.is_set()


def reason() -> str:
    """Return what asked this process to end; SIGTERM if another rank was asked."""
    return 'Ctrl-C' if _reason == signal.SIGINT else signal.Signals(_reason or signal.SIGTERM).name


def ended() -> Preempted:
    """Return the exception that ends this process with the status for the signal it received."""
    return Preempted(_reason or signal.SIGTERM)


def ask(number: int) -> None:
    """Ask this process to end, as signal `number` does."""
    global _reason
    _reason = _reason or number
    _asked.set()


def explain_ctrl_c() -> None:
    """Print what Ctrl-C does. A signal handler may call this: print could be interrupted in the middle of a print."""
    with contextlib.suppress(OSError):
        os.write(2, NOTICE.encode())


def end_at_the_next() -> None:
    """Have SIGTERM and SIGINT end this process at once from now on, and ignore SIGHUP."""
    for number, action in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_IGN),
    ):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, action)


def _handle(number, frame):
    if number == signal.SIGINT:
        explain_ctrl_c()
    ask(number)
    end_at_the_next()
