"""Errors that the user can fix, and their messages in one line."""

import difflib
import os
import reprlib
from typing import Any, Iterable, Optional

from lm_human_preferences.utils.text import without_secrets

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_SHORTENER = reprlib.Repr()
_SHORTENER.maxlevel, _SHORTENER.maxstring, _SHORTENER.maxlong, _SHORTENER.maxother = 2, 200, 60, 200


class UserError(ValueError):
    """A mistake in the user's input. Its message is one line that names the input and says how to fix it."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the one of `names` that is most similar to `name`."""
    return difflib.get_close_matches(name[:100], list(names), n=1, cutoff=0.0)[0]


def short(value: Any) -> str:
    """Return the repr of a value for a message: one line, without the middle if it is long."""
    try:
        return _SHORTENER.repr(value)
    except ValueError:  # newer Pythons refuse to print very long integers
        return f'a very long {type(value).__name__}'


def user_message(error: BaseException) -> Optional[str]:
    """Return one line that says what went wrong, without secrets; None for a bug, which needs its traceback.

    These are no bugs: a `UserError`, an error of the file system or network, lack of memory, and a ValueError that
    this package raised. A ValueError from inside a library is a bug in our use of it.
    """
    if isinstance(error, OSError):
        message = f'{error.filename}: {error.strerror}' if error.filename and error.strerror else str(error)
    elif isinstance(error, MemoryError):
        message = f'out of memory: {error}: lower batch sizes, lengths or numbers of samples'
    elif isinstance(error, UserError) or (type(error) is ValueError and _raised_here(error)):
        message = str(error)
    else:
        return None
    return without_secrets(' '.join(message.split())) or type(error).__name__


def _raised_here(error: BaseException) -> bool:
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return os.path.abspath(traceback.tb_frame.f_code.co_filename).startswith(_PACKAGE + os.sep)
