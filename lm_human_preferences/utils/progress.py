"""What a process shows: standard output and standard error that can show any text, lines, and progress bars.

The bars are shown only on a terminal.
"""

import codecs
import io
import os
import sys
from typing import Iterable, Optional, Tuple

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


def progress(iterable: Iterable, description: str, show: bool = True, total: int = None) -> tqdm.tqdm:
    """Iterate with a bar that shows the remaining time, if `show` is set and standard error is a terminal."""
    hide = not show or not sys.stderr.isatty()
    return tqdm.tqdm(iterable, desc=description, total=total, disable=hide, dynamic_ncols=True, leave=False)


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
