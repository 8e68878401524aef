"""Which run owns a folder: one process at a time writes to it, and another run never takes it over by mistake."""

import contextlib
import os
import shutil
import weakref
from typing import Iterator

from lm_human_preferences.remote import mirror
from lm_human_preferences.remote.storage import is_remote
from lm_human_preferences.runs.journal import journal_path
from lm_human_preferences.runs.run_folder import PEOPLES_LABELS, command_of, is_written_by_runs
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.locks import holder, locked


@contextlib.contextmanager
def claimed(folder: str) -> Iterator[None]:
    """Create a run's folder if needed, and lock it for this process until the block or the process ends.

    UserError if another process has locked it, or if it cannot be written.
    """
    lock = os.path.join(folder, 'run')
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            stack.enter_context(locked(lock, wait=False))
        except BlockingIOError:
            raise UserError(
                f'{folder}: this run is in progress in another process{holder(lock)}: give another NAME'
            ) from None
        except OSError as error:
            raise UserError(f'cannot write to {folder}: {error.strerror}; give another --save_dir') from error
        yield


class FolderWatch:
    """Notices when a folder is moved or removed, or one of the folders that it lies in."""

    def __init__(self, path: str):
        """OSError if there is no folder at `path`."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)  # as long as it is open, no other folder gets its number
        weakref.finalize(self, os.close, self._descriptor)

    def check(self) -> None:
        """Raise UserError if `path` is no longer the folder that it was."""
        try:
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise UserError(
            f'{self._path}: this folder was moved or removed while the run wrote to it; nothing more is saved: '
            'move it back, and the same command resumes from its last checkpoint'
        )


def check_owner(command: str, folder: str) -> None:
    """Refuse (UserError) a folder that holds a run of another command, or that lies inside the folder of a run."""
    owner = command_of(folder)
    if owner not in (None, command):
        raise UserError(f'{folder} holds a run of {owner}: give another NAME')
    parent = os.path.dirname(os.path.abspath(folder))
    while parent != os.path.dirname(parent):
        if command_of(parent):
            raise UserError(f'{folder} lies within the run {parent}: give another NAME or --save_dir')
        parent = os.path.dirname(parent)


def unused_name(save_dir: str, name: str) -> str:
    """Return `name`, or the first of NAME-2, NAME-3 … that has no run in `save_dir`."""
    number, candidate = 1, name
    while _is_used(os.path.join(save_dir, candidate)):
        number += 1
        candidate = f'{name}-{number}'
    return candidate


def clear(folder: str) -> None:
    """Remove what a run wrote to its folder, and nothing else.

    UserError if the folder holds people's labels: no run could produce them again.
    """
    journal = os.path.join(folder, journal_path(PEOPLES_LABELS))
    if os.path.exists(journal):
        with open(journal, encoding='utf-8') as file:
            if '"kind": "answer"' in file.read():
                raise UserError(f'{journal} holds labels that people gave: move it away first, or give another NAME')
    mirror.note_cleared(folder)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if is_written_by_runs(name):
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def _is_used(folder: str) -> bool:
    if is_remote(folder):
        return mirror.is_used(folder)
    return os.path.isdir(folder) and any(not name.startswith('.') for name in os.listdir(folder))
