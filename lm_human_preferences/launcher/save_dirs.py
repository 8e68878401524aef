"""Where runs write: inside SAVE_DIR, and in no folder that another user of the machine could change."""

import os
import stat

from lm_human_preferences.remote.storage import is_remote
from lm_human_preferences.utils.errors import UserError

DEFAULT_SAVE_DIR = '/tmp/save'  # the folders of the commands are in it


def forbid_world_writable_files() -> None:
    """Let no file or folder that this process or one of its children makes be writable for everybody."""
    os.umask(os.umask(0o077) | 0o002)


def check_run_folder(folder: str, save_dir: str) -> None:
    """Refuse (UserError) a run folder, made or not, that links lead out of `save_dir` or that is not ours alone.

    A folder that the user names is the user's choice, as one shared by a group may be. The default one is in /tmp,
    where anybody could have put it before us to give us other files than those we wrote.
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
        except FileNotFoundError:  # to be made, and then ours
            place = os.path.dirname(place)
            continue
        if stat.S_ISLNK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise UserError(f'{place} belongs to another user or is a link: give a folder of your own, --save_dir=DIR')
        if status.st_mode & stat.S_IWOTH:
            raise UserError(f'{place} can be changed by every user: chmod o-w {place}, or give another --save_dir')
        place = os.path.dirname(place)
