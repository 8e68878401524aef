"""The cache folder, where fetched files are kept between runs."""

import os
import stat
import tempfile

from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.progress import note

VARIABLE = 'LM_HUMAN_PREFERENCES_CACHE'


def cache_dir() -> str:
    """Return the cache folder: LM_HUMAN_PREFERENCES_CACHE, else `lm-human-preferences` in the user's cache folder.

    If the user has no cache folder that can be written, it is a private temporary folder, which is said once. The
    folder may not exist yet. UserError if another user could change the temporary folder.
    """
    own = os.environ.get(VARIABLE)
    if own:
        return os.path.abspath(expanded_home(own))
    users = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return _usable(users)


def cache_folder(*names: str) -> str:
    """Make a folder in the cache folder if it is not there, and return its path.

    OSError, with what the user can do, if it cannot be made or written.
    """
    folder = os.path.join(cache_dir(), *names)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(path: str, error: OSError) -> OSError:
    """Return an error that says what the user can do about a path in the cache folder that cannot be written."""
    reason = error.strerror or error
    return OSError(f'cannot write {path} ({reason}): make the folder writable, or set {VARIABLE} to another folder')


def expanded_home(path: str) -> str:
    """Replace `~` at the start of a path by the home folder. UserError if this user has none."""
    full = os.path.expanduser(path)
    if full.startswith('~') and not os.path.exists(full):
        raise UserError(f'{path}: there is no home folder for {path.split(os.sep)[0]}: set HOME, or give a full path')
    return full


def _usable(users: str) -> str:
    """Return the cache folder in the user's cache folder, or a temporary one if that cannot be written."""
    wanted = os.path.join(users, 'lm-human-preferences')
    place = wanted
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    if os.path.isabs(users) and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK):
        return wanted
    folder = os.path.join(tempfile.gettempdir(), f'lm-human-preferences-{os.geteuid()}')
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.lstat(folder)
    except OSError as error:
        raise unwritable(wanted, error) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UserError(f'{wanted} cannot be written, and {folder} is not private: set {VARIABLE} to another folder')
    note(f'note: {wanted} cannot be written: the cache is in {folder}; set {VARIABLE} to keep it elsewhere')
    os.environ[VARIABLE] = folder  # so that ranks do not say it again
    return folder
