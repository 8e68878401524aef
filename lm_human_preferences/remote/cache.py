"""The cache folder, where fetched files are kept between runs."""

import os


def cache_dir() -> str:
    """Return the cache folder: LM_HUMAN_PREFERENCES_CACHE, else `lm-human-preferences` in the user's cache folder.

    The folder may not exist yet.
    """
    own = os.environ.get('LM_HUMAN_PREFERENCES_CACHE')
    if own:
        return os.path.abspath(os.path.expanduser(own))
    users = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return os.path.join(users, 'lm-human-preferences')
