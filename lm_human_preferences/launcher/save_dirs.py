"""Checks of the folders of runs: they are inside SAVE_DIR, and no other user of the machine can change them."""

import os
import stat

from lm_human_preferences.remote.storage import is_remote
from lm_human_preferences.utils.errors import UserError

DEFAULT_SAVE_DIR = '/tmp/save'  # it holds a folder for each command


def forbid_world_writable_files() -> None:
    """Set the umask: only the user and the user's group may write what this process and its children create."""
    os.umask(os.umask(0o077) | 0o002)


def check_run_folder(folder: str, save_dir: str) -> None:
    """Raise UserError if links lead a run's folder out of `save_dir`, or if another user could change it.

    The folder need not exist. If the user names `save_dir`, it may be shared with others. The default one is in /tmp:
    there, another user could create it first and replace our files.
    """
    if is_remote(save_dir):
        return
    folder, save_dir = os.path.abspath(folder), os.path.abspath(save_dir)
    real = os.path.realpath(folder)
    if os.path.commonpath([real, os.path.realpath(save_dir)]) != os.path.realpath(save_dir):
        raise UserError(f'{folder} is a link out of --save_dir, to {real}: give another NAME or --save_dir')
    place = folder
    while os.path.commonpath([place, DEFAULT_SAVE_DIR]) == DEFAULT_SAVE_DIR:
        try:
            status = os.lstat(place)
        except FileNotFoundError:  # we will create it
            place = os.path.dirname(place)
            continue
        if stat.S_ISLNK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise UserError(f'{place} belongs to another user or is a link: give a folder of your own, --save_dir=DIR')
        if status.st_mode & stat.S_IWOTH:
            raise UserError(f'{place} can be changed by every user: chmod o-w {place}, or give another --save_dir')
        place = os.path.dirname(place)
