"""Errors that are the user's to mend, and how they are told in one line."""

import difflib
import os
import reprlib
from typing import Any, Iterable, Optional

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_SHORTENER = reprlib.Repr()
_SHORTENER.maxlevel, _SHORTENER.maxstring, _SHORTENER.maxlong, _SHORTENER.maxother = 2, 200, 60, 200


class UserError(ValueError):
    """A mistake in what the user gave; its message is one line that names the thing and the fix."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The one of `names` that is most like `name`."""
    return difflib.get_close_matches(name[:100], list(names), n=1, cutoff=0.0)[0]


def short(value: Any) -> str:
    """A value as a message shows it: its repr in one line, with the middle left out of a long one."""
    try:
        return _SHORTENER.repr(value)
    except ValueError:  # newer Pythons refuse to write very long integers
        return f'a very long {type(value).__name__}'


def user_message(error: BaseException) -> Optional[str]:
    """The one line that tells the user what went wrong; None for a bug, which deserves its traceback.

    Bad input is a `UserError`, an error of the file system or network, lack of memory, or a ValueError that the package
    raised itself: a ValueError from inside a library is a bug of ours.
    """
    if isinstance(error, OSError):
        message = f'{error.filename}: {error.strerror}' if error.filename and error.strerror else str(error)
    elif isinstance(error, MemoryError):
        message = f'out of memory: {error}: lower batch sizes, lengths or numbers of samples'
    elif isinstance(error, UserError) or (type(error) is ValueError and _raised_here(error)):
        message = str(error)
    else:
        return None
    return ' '.join(message.split()) or type(error).__name__


def _raised_here(error: BaseException) -> bool:
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return os.path.abspath(traceback.tb_frame.f_code.co_filename).startswith(_PACKAGE + os.sep)
