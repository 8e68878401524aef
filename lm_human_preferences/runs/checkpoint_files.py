"""A folder of checkpoints on disk: its files, which checkpoints are complete, and which is the last.

    checkpoints/model.ckpt-STEP.{data-…,index}   TensorFlow's files
    checkpoints/state-STEP.json                  the rest of a run's state at that step
    checkpoints/checkpoint                       names the last checkpoint, in TensorFlow's format

The files are written in this order, and each appears only when it is complete. So a checkpoint that the file
`checkpoint` names is complete. This module needs no TensorFlow.
"""

import contextlib
import glob
import json
import os
import re
import shutil
from typing import Any, Dict, Iterator, List, Optional

from lm_human_preferences.runs.run_folder import CHECKPOINTS
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import sync, write_json, written_whole

PREFIX = 'model.ckpt'
_POINTER = 'checkpoint'
_UNFINISHED = '.saving'


def latest_checkpoint(folder: str) -> str:
    """Return the path prefix of the last complete checkpoint in FOLDER/checkpoints, or in FOLDER itself.

    Folders in TensorFlow's `checkpoint` file are ignored, since a model may have been moved or downloaded.
    FileNotFoundError if there is no complete checkpoint.
    """
    named = [path for place in (os.path.join(folder, CHECKPOINTS), folder) for path in _named_checkpoints(place)]
    for path in named:
        if _is_whole(path):
            return path
    fault = f': a file of {os.path.basename(named[0])} is missing or cut off' if named else ''
    raise FileNotFoundError(f'{folder}: no TensorFlow checkpoint there{fault}')


def last_state(folder: str) -> Optional[Dict[str, Any]]:
    """Return the state of a run at the last complete checkpoint in a model folder; None if there are no checkpoints.

    UserError if there are checkpoints, but no run can resume from them. They must not be overwritten.
    """
    place = os.path.join(folder, CHECKPOINTS)
    paths = _named_checkpoints(place)
    if not paths:
        return None
    whole = next(filter(_is_whole, paths), None)
    state = _read_state(whole) if whole else None
    if state is None:
        fault = f'there is no {os.path.basename(_state_path(whole))}' if whole else 'none of them is complete'
        raise UserError(f'{place}: no run can resume from these checkpoints ({fault}): give another NAME')
    return state


@contextlib.contextmanager
def new_checkpoint(folder: str, step: int, state: Dict[str, Any], keep: int) -> Iterator[str]:
    """Give a path prefix for TensorFlow's files of `step`. When the block ends, they become the last checkpoint.

    Then the oldest checkpoints are removed, so that `keep` are left. An error in the block changes nothing.
    """
    place = os.path.join(folder, CHECKPOINTS)
    unfinished = os.path.join(place, _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)  # from a save that was interrupted
    os.makedirs(unfinished)
    name = f'{PREFIX}-{step}'
    try:
        yield os.path.join(unfinished, name)
        files = sorted(os.listdir(unfinished))
        sizes = {file: os.path.getsize(os.path.join(unfinished, file)) for file in files}
        for file in files:
            sync(os.path.join(unfinished, file))
            os.replace(os.path.join(unfinished, file), os.path.join(place, file))
        write_json(_state_path(os.path.join(place, name)), dict(state, step=step, files=sizes))
        steps = [other for other in _steps(place) if other <= step]
        _point(place, steps[-keep:])
    except BaseException:
        if os.path.join(place, name) not in _named_checkpoints(place):
            _remove(place, step)  # a full disk needs the space
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for old in steps[:-keep]:
        _remove(place, old)


def forget_after(folder: str, step: int) -> None:
    """Remove checkpoints after `step` (0: all), which the resumed run will write again, and unfinished files.

    UserError if there are checkpoints from which no run can resume.
    """
    place = os.path.join(folder, CHECKPOINTS)
    if not os.path.isdir(place):
        return
    last_state(folder)
    steps = _steps(place)
    kept = [other for other in steps if other <= step and _is_whole(os.path.join(place, f'{PREFIX}-{other}'))]
    if kept:
        _point(place, kept)
    elif os.path.exists(os.path.join(place, _POINTER)):
        os.unlink(os.path.join(place, _POINTER))
    for other in set(steps) - set(kept):
        _remove(place, other)
    shutil.rmtree(os.path.join(place, _UNFINISHED), ignore_errors=True)
    for partial in glob.glob(os.path.join(glob.escape(place), '.*.partial')):
        os.unlink(partial)


def _named_checkpoints(place: str) -> List[str]:
    """Return the path prefixes that a folder's `checkpoint` file names, the last checkpoint first."""
    try:
        with open(os.path.join(place, _POINTER), encoding='utf-8') as file:
            lines = re.findall(r'^(all_)?model_checkpoint_paths?: "(.*)"', file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return []
    last = [name for one_of_all, name in lines if not one_of_all]
    others = [name for one_of_all, name in lines if one_of_all]
    return [os.path.join(place, name) for name in dict.fromkeys(map(os.path.basename, last + others[::-1]))]


def _is_whole(path: str) -> bool:
    """Return whether all files of a checkpoint are there, with the sizes in its state file, if it has one."""
    shards = glob.glob(glob.escape(path) + '.data-?????-of-?????')
    if not os.path.exists(path + '.index') or not shards or len(shards) < int(shards[0][-5:]):
        return False
    try:
        state = _read_state(path)
    except ValueError:
        return False
    sizes = state['files'] if state else {}
    files = {os.path.join(os.path.dirname(path), name): size for name, size in sizes.items()}
    return all(os.path.exists(file) and os.path.getsize(file) == size for file, size in files.items())


def _read_state(path: str) -> Optional[Dict[str, Any]]:
    """Return the state saved with a checkpoint; None if there is none. ValueError if the file is damaged."""
    try:
        with open(_state_path(path), encoding='utf-8') as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def _state_path(path: str) -> str:
    place, name = os.path.split(path)
    return os.path.join(place, f'state-{name.split("-")[-1]}.json')


def _steps(place: str) -> List[int]:
    """Return the steps of all checkpoint files in a folder, in order."""
    matches = (re.match(r'(model\.ckpt-|state-)([0-9]+)\.', name) for name in os.listdir(place))
    return sorted({int(match.group(2)) for match in matches if match})


def _point(place: str, steps: List[int]) -> None:
    """Write the `checkpoint` file for these steps: the last one is the folder's last checkpoint."""
    with written_whole(os.path.join(place, _POINTER)) as file:
        file.write(f'model_checkpoint_path: "{PREFIX}-{steps[-1]}"\n')
        file.writelines(f'all_model_checkpoint_paths: "{PREFIX}-{step}"\n' for step in steps)


def _remove(place: str, step: int) -> None:
    path = os.path.join(place, f'{PREFIX}-{step}')
    for file in [path + '.index', _state_path(path), *glob.glob(glob.escape(path) + '.data-*')]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
