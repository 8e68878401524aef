"""What a process shows: standard output and standard error that can show any text, lines, and progress bars.

The bars are shown only on a terminal. A run of several parts has one bar for all of them (`whole_run`).
"""

import codecs
import contextlib
import io
import os
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import tqdm

# What stands for a sign that the terminal's encoding lacks. Any other character is written as its number, as \u20ac.
_PLAIN = {
    '⏎': '\\n',
    '▸': '>',
    '−': '-',
    '–': '-',
    '…': '...',
    '×': 'x',
    '·': '*',
    '→': '->',
    '\N{LEFT SINGLE QUOTATION MARK}': "'",
    '\N{RIGHT SINGLE QUOTATION MARK}': "'",
    '“': '"',
    '”': '"',
}
OUTPUT = 'standard output'  # the `filename` of an OSError from writing to it
PLAIN_SIGNS = 'lm_human_preferences.plain_signs'  # the name of the error handler in `codecs`


# A whole run gives no time that is left before it has worked for this long, or has done this share.
FIRST_SECONDS, FIRST_SHARE = 20.0, 0.02
REFRESH_SECONDS = 0.1  # the shortest time between two pictures of its bar
# Without a terminal, a line says how far it is: each time this share is done, but not sooner than that after the last.
LINE_SHARE, LINE_SECONDS = 0.1, 30.0

_run: Optional['_WholeRun'] = None  # the run whose parts are in progress in this process


def progress(iterable: Iterable, description: str, show: bool = True, total: int = None, done: int = 0) -> Any:
    """Iterate, and show on a terminal how far it is and the time that is left. `set_postfix_str` adds a text to that.

    Args:
      description: a title. Within a `whole_run`, the part of this name begins, or the loop counts to the open part.
      show: whether to show anything.
      total, done: the number of items in all, and of those that an earlier process did. None: of `iterable` alone.
    """
    if _run is not None and show:
        return _Loop(_run, iterable, description, total, done)
    hide = not show or not sys.stderr.isatty()
    return tqdm.tqdm(
        iterable, desc=description, total=total, initial=done, disable=hide, dynamic_ncols=True, leave=False
    )


@contextlib.contextmanager
def whole_run(parts: Dict[str, float]) -> Iterator[None]:
    """Within this, loops of `progress` share one bar, with the time that is left for all parts of a run.

    The time that parts have taken corrects what is left. A part that never begins does not count.

    Args:
      parts: the names of the parts in order, with a rough measure of their work.
    """
    global _run
    _run = _WholeRun(parts)
    try:
        yield
    finally:
        _run.close()
        _run = None


@contextlib.contextmanager
def part_of_run(name: str, num_loops: int = 1) -> Iterator[None]:
    """Do a part of a `whole_run` that has `num_loops` loops of `progress`. Outside a whole run, it changes nothing."""
    if _run is not None:
        _run.begin(name, num_loops=num_loops)
    yield
    if _run is not None:
        _run.end()


class _WholeRun:
    """How far a run is, over all its parts. Its bar appears when its first part begins."""

    def __init__(self, parts: Dict[str, float]):
        self._names, self._work = list(parts), list(parts.values())
        self._place = -1  # of the part in progress, or of the last one
        self._open = False  # whether it is in progress
        self._first = self._done = 0.0  # the share of it that was done at its begin, and that is done now
        self._loops = 0  # that have begun in it
        self._num_loops = 0  # in it in all; 0: it is one loop itself
        self._since = time.monotonic()  # when it began, or ended
        self._worked = self._seconds = 0.0  # what the parts before it have done in this process, and the time for it
        self._starts: List[float] = []  # seconds before each part began: its graph is built, and its models are loaded
        self._share = 0.0  # of the whole run, as it is shown
        self._line = (0.0, time.monotonic())  # the share and the time of the last line
        self._shown = 0.0  # when the bar was drawn
        self._bar: Optional[_RunBar] = None

    def begin(self, name: str, done: float = 0.0, num_loops: int = 0) -> bool:
        """Begin a part of which the share `done` was done earlier. Return False if no later part has this name."""
        if name not in self._names[self._place + 1 :]:
            return False
        self.end()
        now = time.monotonic()
        self._starts.append(now - self._since)
        self._place, self._open, self._since = self._names.index(name), True, now
        self._first = self._done = done
        self._loops, self._num_loops = 0, num_loops
        self._shown = 0.0  # drawn at once
        self.show([name])
        return True

    def end(self) -> None:
        """End the part that is in progress, if there is one."""
        if self._open:
            now = time.monotonic()
            self._worked += self._work[self._place] * (self._done - self._first)
            self._seconds += now - self._since
            self._open, self._done, self._since = False, 1.0, now

    def place_of(self, description: str, done: float) -> Optional[Tuple[float, float]]:
        """Return which share of the part in progress a loop begins at, and which it takes; None: it does not count."""
        if self.begin(description, done):
            return 0.0, 1.0
        if not self._open or not self._num_loops:
            return None
        self._loops += 1
        return (self._loops - 1) / self._num_loops, 1 / self._num_loops

    def advance(self, done: float) -> None:
        """The share `done` of the part in progress is done."""
        self._done = max(self._done, min(done, 1.0))

    def left(self, now: float) -> Optional[float]:
        """Return the seconds that are left, or None if that is not known yet."""
        work = self._work[self._place]
        done, took = (work * (self._done - self._first), now - self._since) if self._open else (0.0, 0.0)
        worked, seconds = self._worked + done, self._seconds + took
        if not worked or (seconds < FIRST_SECONDS and worked < FIRST_SHARE * sum(self._work)):
            return None
        pace = seconds / worked
        later = self._work[self._place + 1 :]
        start = min(self._starts)  # the others may have waited for labels from people
        return work * (1 - self._done) * (took / done if done else pace) + sum(later) * pace + len(later) * start

    def show(self, texts: Sequence[str]) -> None:
        """Show how far the run is, with `texts` beside it: the first is the most important."""
        now = time.monotonic()
        left = self.left(now)
        if left is not None:
            gone = sum(self._starts) + self._seconds + (now - self._since if self._open else 0.0)
            self._share = max(self._share, min(gone / (gone + left), 0.99))
        if not sys.stderr.isatty():
            share, last = self._line
            if left is not None and self._share >= share + LINE_SHARE and now >= last + LINE_SECONDS:
                self._line = (self._share, now)
                say(f'{self._share:.0%} of the run is done, about {duration(left)} left')
        elif self._bar is None:
            self._bar = _RunBar(total=1.0, bar_format=_RunBar.FORMAT, dynamic_ncols=True, leave=False)
        if self._bar is not None and now >= self._shown + REFRESH_SECONDS:
            self._shown = now
            self._bar.n = self._share
            self._bar.beside = ['time left: not known yet' if left is None else f'{duration(left)} left', *texts]
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


class _RunBar(tqdm.tqdm):
    """A bar with as many texts beside it as the terminal has room for."""

    FORMAT = '{percentage:3.0f}%|{bar}| {beside}'
    LEAST = 10  # characters of the bar

    beside: Sequence[str] = ()

    @property
    def format_dict(self) -> Dict[str, Any]:
        found = super().format_dict
        room = (found.get('ncols') or 80) - self.LEAST - len('100%|| ')
        texts = list(self.beside)
        while len(texts) > 1 and len('  '.join(texts)) > room:
            texts.pop()
        return dict(found, beside='  '.join(texts))


class _Loop:
    """A loop of a whole run."""

    def __init__(self, run: _WholeRun, iterable: Iterable, description: str, total: Optional[int], done: int):
        self._run = run
        self._iterable = iterable
        self._description = description
        self._done = done
        self._total = done + len(iterable) if total is None else total  # type: ignore[arg-type]
        self._note = ''

    def set_postfix_str(self, text: str) -> None:
        """Show a text beside the bar."""
        self._note = text

    def __iter__(self) -> Iterator[Any]:
        place = self._run.place_of(self._description, self._done / max(self._total, 1))
        for item in self._iterable:
            yield item
            self._done += 1
            if place is not None:
                self._run.advance(place[0] + place[1] * self._done / self._total)
            texts = [f'{self._description} {self._done}/{self._total}', self._note]
            self._run.show([text for text in texts if text])


def duration(seconds: float) -> str:
    """Return a rough time for people: '40 s', '12 min', '3 h 20 min'."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60} min'


def transfer_bar(description: str, done: int, total: Optional[int]) -> tqdm.tqdm:
    """Return a bar for transferred bytes and their speed, shown only if standard error is a terminal."""
    hide = not sys.stderr.isatty()
    units = dict(unit='B', unit_scale=True, unit_divisor=1024)
    return tqdm.tqdm(
        desc=description, initial=done, total=total, disable=hide, dynamic_ncols=True, leave=False, **units
    )


def say(line: str, show: bool = True) -> None:
    """Print a line above the progress bars."""
    if show:
        tqdm.tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def note(line: str) -> None:
    """Print a line on standard error, above the progress bars."""
    tqdm.tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def plain_signs(error: UnicodeError) -> Tuple[str, int]:
    """Return text for the characters that an encoding lacks, and the position after them.

    This is an error handler for `codecs`.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ''.join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(char: str) -> str:
    if char < '\x80':
        return '?'  # some encodings lack even such a one
    return _PLAIN.get(char) or char.encode('ascii', 'backslashreplace').decode('ascii')


codecs.register_error(PLAIN_SIGNS, plain_signs)


def open_streams(steady: bool) -> None:
    """Make standard output and standard error streams that can show any text; call it when a process starts.

    Characters that the terminal's encoding lacks are replaced. A stream that is closed shows nothing.

    Args:
      steady: whether this process continues when nobody reads its output, or when the disk behind it is full. Otherwise
        a line that cannot be written raises OSError. Standard error never does.
    """
    sys.stdout = _opened(sys.stdout, sys.__stdout__, 1, steady)
    sys.stderr = _opened(sys.stderr, sys.__stderr__, 2, True)


def _opened(stream, original, number: int, steady: bool):
    """Return the stream that writes to a file descriptor. A stream that is not this process's own stays as it is."""
    if isinstance(getattr(getattr(stream, 'buffer', None), 'raw', None), _Output):
        stream.buffer.raw.steady = steady
        return stream
    if stream is not original:
        return stream
    options = dict(encoding='utf-8', errors=PLAIN_SIGNS)
    if stream is None:
        _open_nothing(number)
    else:
        try:
            stream.flush()
        except OSError:
            _lose(number)
        options.update(encoding=stream.encoding, write_through=getattr(stream, 'write_through', False))
    raw = _Output(number, 'wb', closefd=False)
    raw.steady = steady
    return io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=number == 2 or raw.isatty(), **options)


class _Output(io.FileIO):
    """A file descriptor that leads to nowhere from the first write on that fails."""

    steady = False  # whether that failure is no error

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _lose(self.fileno())
            if self.steady:
                return len(data)
            error.filename = OUTPUT
            raise


def _lose(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _open_nothing(number: int) -> None:
    """Open a descriptor that is closed, so that no other file gets its number and what is printed."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
