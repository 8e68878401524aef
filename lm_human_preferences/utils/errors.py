"""Errors that the user can fix, and their messages in one line."""

import difflib
import importlib.util
import os
import re
import reprlib
import sys
from typing import Any, Iterable, List, Mapping, Optional, Set

from lm_human_preferences.utils.text import without_secrets

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_IS_CHECKOUT = os.path.exists(os.path.join(os.path.dirname(_PACKAGE), 'Pipfile.lock'))

# Packages that not everybody needs: what needs them, and the extra of our package that installs them.
EXTRAS = {
    'flask': ('the label page', 'label'),
    'werkzeug': ('the label page', 'label'),
    'jinja2': ('the report', 'report'),
    'rouge_score': ('ROUGE', 'report'),
    'google.api_core': ('gs://', 'gcs'),
    'google.auth': ('gs://', 'gcs'),
    'google.cloud': ('gs://', 'gcs'),
    'huggingface_hub': ('hf://', 'hub'),
    'pyarrow': ('a parquet file', 'parquet'),
    'vaderSentiment': ('the demo', 'demo'),
    'mpi4py': ('a run of several ranks', 'mpi'),
}

_PYTHON = sys.version_info[:2]
_MISSPELLED = 0.8  # how similar a misspelled name is to the right one, at least

_SHORTENER = reprlib.Repr()
_SHORTENER.maxlevel, _SHORTENER.maxstring, _SHORTENER.maxlong, _SHORTENER.maxother = 2, 200, 60, 200


class UserError(ValueError):
    """A mistake in the user's input. Its message is one line that names the input and says how to fix it."""


def did_you_mean(name: str, names: Iterable[str], about: Optional[Mapping[str, str]] = None) -> str:
    """Return the one of `names` that is most similar to `name`.

    Args:
      about: descriptions of the names. A name that is no misspelling is searched by its words in names and
        descriptions.
    """
    names = list(names)
    similar = difflib.get_close_matches(name[:100], names, n=1, cutoff=_MISSPELLED if about else 0.0)
    return similar[0] if similar else _by_words(name, names, about) or did_you_mean(name, names)


def _by_words(name: str, names: List[str], about: Mapping[str, str]) -> Optional[str]:
    """Return the name that has most of the words of `name`, in itself or in its description; None if it has few."""
    wanted = _words(name[:100])

    def found(other: str) -> int:
        own = _words(other)
        return sum(3 if word in own else 2 if word in _words(about.get(other, '')) else 0 for word in wanted)

    # Of equals, the one in the outermost group.
    best = max(names, key=lambda other: (found(other), -other.count('.'), -len(other)))
    return best if found(best) > len(wanted) else None


def _words(text: str) -> Set[str]:
    return {word.rstrip('s') for word in re.findall('[a-z0-9]+', text.lower())} - {'num', 'n', 'of', 'the'}


def short(value: Any) -> str:
    """Return the repr of a value for a message: one line, without the middle if it is long."""
    try:
        return _SHORTENER.repr(value)
    except ValueError:  # newer Pythons refuse to print very long integers
        return f'a very long {type(value).__name__}'


def user_message(error: BaseException) -> Optional[str]:
    """Return one line that says what went wrong, without secrets; None for a bug, which needs its traceback.

    These are no bugs: a `UserError`, a package that is not installed, an error of the file system or network, lack of
    memory, and a ValueError that this package raised. A ValueError from inside a library is a bug in our use of it.
    """
    if isinstance(error, OSError):
        message = f'{error.filename}: {error.strerror}' if error.filename and error.strerror else str(error)
    elif isinstance(error, MemoryError):
        message = f'out of memory: {error}: lower batch sizes, lengths or numbers of samples'
    elif isinstance(error, ModuleNotFoundError) and _is_missing_package(error):
        message = how_to_install(error.name)
    elif isinstance(error, UserError) or (type(error) is ValueError and _raised_here(error)):
        message = str(error)
    else:
        return None
    return without_secrets(' '.join(message.split())) or type(error).__name__


def _is_missing_package(error: ModuleNotFoundError) -> bool:
    package = _package_of(error.name or '')
    try:
        return bool(package) and package not in sys.modules and importlib.util.find_spec(package) is None
    except ImportError:  # by a hook, or because a parent is missing
        return True


def _package_of(module: str) -> str:
    """Return the package that holds a module: one of EXTRAS, or that of the first name."""
    dotted = [package for package in EXTRAS if f'{module}.'.startswith(f'{package}.')]
    return dotted[0] if dotted else module.partition('.')[0]


def how_to_install(module: str) -> str:
    """Return one line that says what needs a missing module, and how to install it.

    In a checkout, the lock has it, for this version of Python. Elsewhere, it is in an extra of our package.
    """
    what, extra = EXTRAS.get(_package_of(module), (None, None))
    if _IS_CHECKOUT:
        category = ' --categories py37' if _PYTHON < (3, 8) else ' --categories py312' if _PYTHON >= (3, 12) else ''
        how = (
            'run "make environment" and then .venv/bin/python launch.py, '
            f'or "pipenv sync{category}" and then pipenv run ./launch.py'
        )
    else:
        how = f"pip install 'lm-human-preferences[{extra}]'" if extra else 'pip install lm-human-preferences'
    return f'{what} needs {module}: {how}' if what else f'the Python package {module} is missing: {how}'


def _raised_here(error: BaseException) -> bool:
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return os.path.abspath(traceback.tb_frame.f_code.co_filename).startswith(_PACKAGE + os.sep)
