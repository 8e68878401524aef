"""Progress bars for long stages, shown only on a terminal."""

import sys
from typing import Iterable, Optional

import tqdm


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
