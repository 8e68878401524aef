"""A folder of checkpoints on disk: what belongs to one, which of them are whole, and which is the last.

    checkpoints/model.ckpt-STEP.{data-…,index}   TensorFlow's files
    checkpoints/state-STEP.json                  the rest of a run's state at that step
    checkpoints/checkpoint                       names the last checkpoint; TensorFlow's format

They appear in this order, each whole: a checkpoint that `checkpoint` names is complete. Needs no TensorFlow.
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
    """The path prefix of the last whole checkpoint in a model folder: of FOLDER/checkpoints, or of FOLDER itself.

    Only file names are read from TensorFlow's `checkpoint` file, since a folder may have been moved or downloaded.
    FileNotFoundError where there is none.
    """
    named = [path for place in (os.path.join(folder, CHECKPOINTS), folder) for path in _named_checkpoints(place)]
    for path in named:
        if _is_whole(path):
            return path
    fault = f': a file of {os.path.basename(named[0])} is missing or cut off' if named else ''
    raise FileNotFoundError(f'{folder}: no TensorFlow checkpoint there{fault}')


def last_state(folder: str) -> Optional[Dict[str, Any]]:
    """What the last whole checkpoint of a run's model folder keeps of the run; None where none was saved yet.

    Raises UserError for a folder with checkpoints from which no run can go on: they are not to be written over.
    """
    place = os.path.join(folder, CHECKPOINTS)
    paths = _named_checkpoints(place)
    if not paths:
        return None
    whole = next(filter(_is_whole, paths), None)
    state = _read_state(whole) if whole else None
    if state is None:
        fault = f'no {os.path.basename(_state_path(whole))} is beside {whole}' if whole else 'none of them is whole'
        raise UserError(f'{place}: no run can go on from these checkpoints ({fault}): give another NAME')
    return state


@contextlib.contextmanager
def new_checkpoint(folder: str, step: int, state: Dict[str, Any], keep: int) -> Iterator[str]:
    """A path prefix to write TensorFlow's files of `step` under; when the block ends they are the last checkpoint.

    Only then are older ones beyond `keep` removed. An error in the block leaves everything as it was.
    """
    place = os.path.join(folder, CHECKPOINTS)
    unfinished = os.path.join(place, _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a save that was cut short
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
            _remove(place, step)  # a full disk needs the room
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for old in steps[:-keep]:
        _remove(place, old)


def forget_after(folder: str, step: int) -> None:
    """Remove what a run that goes on from `step` (0: from the start) will write again, and what a kill left half done.

    UserError for a folder whose checkpoints are of no run that could have been killed.
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
    """The path prefixes that a folder's `checkpoint` file names, the last one first."""
    try:
        with open(os.path.join(place, _POINTER), encoding='utf-8') as file:
            lines = re.findall(r'^(all_)?model_checkpoint_paths?: "(.*)"', file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return []
    last = [name for one_of_all, name in lines if not one_of_all]
    others = [name for one_of_all, name in lines if one_of_all]
    return [os.path.join(place, name) for name in dict.fromkeys(map(os.path.basename, last + others[::-1]))]


def _is_whole(path: str) -> bool:
    """Whether the files of a checkpoint are all there, and of the sizes they had when saved where that is known."""
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
    """What is kept beside a checkpoint, if anything; ValueError for a damaged file."""
    try:
        with open(_state_path(path), encoding='utf-8') as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def _state_path(path: str) -> str:
    place, name = os.path.split(path)
    return os.path.join(place, f'state-{name.split("-")[-1]}.json')


def _steps(place: str) -> List[int]:
    """The steps of which there are files in a folder, in order."""
    matches = (re.match(r'(model\.ckpt-|state-)([0-9]+)\.', name) for name in os.listdir(place))
    return sorted({int(match.group(2)) for match in matches if match})


def _point(place: str, steps: List[int]) -> None:
    """Make the last of `steps` the folder's last checkpoint."""
    with written_whole(os.path.join(place, _POINTER)) as file:
        file.write(f'model_checkpoint_path: "{PREFIX}-{steps[-1]}"\n')
        file.writelines(f'all_model_checkpoint_paths: "{PREFIX}-{step}"\n' for step in steps)


def _remove(place: str, step: int) -> None:
    path = os.path.join(place, f'{PREFIX}-{step}')
    for file in [path + '.index', _state_path(path), *glob.glob(glob.escape(path) + '.data-*')]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
