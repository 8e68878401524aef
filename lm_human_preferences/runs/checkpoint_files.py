"""A folder of checkpoints on disk: its files, which checkpoints are complete, and which is the last.

    checkpoints/model.ckpt-STEP.{data-…,index}   TensorFlow's files
    checkpoints/state-STEP.json                  the manifest: checksums, and the rest of a run's state at that step
    checkpoints/checkpoint                       names the last checkpoint, in TensorFlow's format
    checkpoints/.saving/                         a save in progress

A save writes everything into `.saving`, the manifest last. From then on it is complete: its files only have to be
moved, and whoever resumes the run after a kill moves the rest.

A run finds its checkpoints by their names. The file `checkpoint` is for TensorFlow, and for the choice of a model to
load. A checkpoint that cannot be read is passed over, and stays where it is: only a newer one of the same step, or
enough newer complete ones, replace it. This module needs no TensorFlow.
"""

import contextlib
import glob
import os
import re
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from lm_human_preferences.runs.manifests import (
    PREFIX,
    Damaged,
    check_files,
    has_run_state,
    manifest_name,
    new_manifest,
    read_manifest,
    shards_are_complete,
)
from lm_human_preferences.runs.run_folder import CHECKPOINTS
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import sync, write_json, written_whole
from lm_human_preferences.utils.progress import note, say

_POINTER = 'checkpoint'
_SAVING = '.saving'
_OF_STEP = re.compile(r'(?:model\.ckpt-(0|[1-9][0-9]*)\..*|state-(0|[1-9][0-9]*)\.json)', re.DOTALL)
_FAULTS_SHOWN = 3


def latest_checkpoint(folder: str) -> str:
    """Return the path prefix of the checkpoint to load from FOLDER/checkpoints, or from FOLDER itself.

    It is the one that TensorFlow's `checkpoint` file names. If that is missing or not complete, it is the newest
    complete one, and a note on standard error says so. Folders in the `checkpoint` file are ignored, since a model may
    have been moved or downloaded. FileNotFoundError if there is no complete checkpoint.
    """
    faults = []
    for place in (os.path.join(folder, CHECKPOINTS), folder):
        named = _named_checkpoints(place)
        for path in dict.fromkeys(named + _listed_checkpoints(place)):
            if _is_whole(path):
                if named and path != named[0] or faults:
                    wrong = faults[0] if faults else os.path.basename(named[0])
                    note(f'note: {place}: a file of {wrong} is missing or cut off: {path} is used')
                return path
            faults.append(os.path.basename(path))
    fault = f': a file of {faults[0]} is missing or cut off' if faults else ''
    raise FileNotFoundError(f'{folder}: no TensorFlow checkpoint there{fault}')


def checkpoint_path(folder: str, step: int) -> str:
    """Return the path prefix of the checkpoint of a step in a model folder."""
    return os.path.join(folder, CHECKPOINTS, f'{PREFIX}-{step}')


def last_state(folder: str) -> Optional[Dict[str, Any]]:
    """Return the state of a run at the newest complete checkpoint in a model folder; None if there are no checkpoints.

    Checkpoints are complete if their manifest and all their files have the right checksums. UserError if there are
    checkpoints, but no run can resume from them: they must not be overwritten.
    """
    return _newest(os.path.join(folder, CHECKPOINTS)).state


def recover(folder: str) -> Optional[Dict[str, Any]]:
    """Finish a save that was interrupted, and return what `last_state` returns. Say which checkpoints it passes over.

    Only the process that writes the folder may call it.
    """
    place = os.path.join(folder, CHECKPOINTS)
    _finish_save(place)
    found = _newest(place)
    if found.state is None:
        return None
    used = f'{PREFIX}-{found.state["step"]}'
    if found.faults:
        say(f'{place}: {used} is used, and newer ones are passed over: {_in_brief(found.faults)}')
    elif os.path.join(place, used) not in _named_checkpoints(place)[:1]:
        say(f'{place}: {used} is used; the file `{_POINTER}` does not name it as the last')
    return found.state


@contextlib.contextmanager
def new_checkpoint(folder: str, step: int, state: Dict[str, Any], keep: int) -> Iterator[str]:
    """Give a path prefix for TensorFlow's files of `step`. When the block ends, they become the last checkpoint.

    Then the oldest checkpoints are removed, so that `keep` complete ones are left. An error in the block changes
    nothing. The folder of checkpoints must exist: see `create`.
    """
    place = os.path.join(folder, CHECKPOINTS)
    saving = os.path.join(place, _SAVING)
    _finish_save(place)  # an earlier one, that failed half-way
    os.mkdir(saving)
    try:
        yield os.path.join(saving, f'{PREFIX}-{step}')
        manifest = new_manifest(step, state, saving)
        whole = [other for other in _steps(place) if other < step and _is_whole(checkpoint_path(folder, other))]
        _point(saving, [*whole, step][-keep:])
        write_json(os.path.join(saving, manifest_name(step)), manifest)
    except BaseException:
        shutil.rmtree(saving, ignore_errors=True)  # a full disk needs the space
        raise
    _finish_save(place)
    kept = [*whole, step][-keep:]
    if len(whole) + 1 > keep:
        for old in _steps(place):
            if old < kept[0]:
                _remove(place, old)


def create(folder: str) -> str:
    """Create the folder of checkpoints of a model folder; return its path."""
    place = os.path.join(folder, CHECKPOINTS)
    os.makedirs(place, exist_ok=True)
    return place


def resume_at(folder: str, step: int) -> None:
    """Name the last complete checkpoint up to `step` in TensorFlow's `checkpoint` file.

    Newer checkpoints stay, until the resumed run saves these steps again. Leftovers of files that were being written
    are removed.
    """
    place = os.path.join(folder, CHECKPOINTS)
    if not os.path.isdir(place):
        return
    _finish_save(place)
    whole = [other for other in _steps(place) if other <= step and _is_whole(checkpoint_path(folder, other))]
    if whole:
        _point(place, whole)
    for partial in glob.glob(os.path.join(glob.escape(place), '.*.partial')):
        os.unlink(partial)


class _Newest(NamedTuple):
    """The newest state from which a run can resume, and what is wrong with the newer ones."""

    state: Optional[Dict[str, Any]]
    faults: List[str]


def _newest(place: str) -> _Newest:
    """Find the newest state. UserError if there are files of checkpoints, but no state is complete."""
    saved = _step_to_finish(place)
    names = [name for name in _visible(place) if saved is None or _step_of(name) != saved]
    faults = []
    for step in sorted({_step_of(name) for name in names} - {None}, reverse=True):
        try:
            manifest = read_manifest(place, step)
            if not has_run_state(manifest):
                raise Damaged(f'{manifest_name(step)} holds no state of a run')
            check_files(place, manifest, content=True)
            return _Newest(manifest, faults)
        except Damaged as fault:
            faults.append(f'{PREFIX}-{step} ({fault})')
    if names:
        what = _in_brief(faults) if faults else f'there is only {", ".join(sorted(names)[:_FAULTS_SHOWN])}'
        raise UserError(
            f'{place}: no run can resume from these checkpoints: {what}; '
            'restore a file, or give another NAME (--resume=overwrite removes them)'
        )
    return _Newest(None, faults)


def _in_brief(faults: List[str]) -> str:
    more = len(faults) - _FAULTS_SHOWN
    return ', '.join(faults[:_FAULTS_SHOWN]) + (f' and {more} more' if more > 0 else '')


def _step_to_finish(place: str) -> Optional[int]:
    """Return the step of a save that was interrupted when all its files were complete; None if there is none."""
    try:
        steps = {_step_of(name) for name in os.listdir(os.path.join(place, _SAVING)) if name.startswith('state-')}
    except (FileNotFoundError, NotADirectoryError):
        return None
    return next(iter(steps - {None}), None)


def _finish_save(place: str) -> None:
    """Move the files of an interrupted save if it was complete, or else remove what there is of it."""
    saving = os.path.join(place, _SAVING)
    step = _step_to_finish(place)
    if step is not None:
        _remove_other_shards(place, saving, step)
        files = sorted(name for name in os.listdir(saving) if not name.startswith('.'))
        for name in sorted(files, key=lambda name: (name == _POINTER, name == manifest_name(step))):
            os.replace(os.path.join(saving, name), os.path.join(place, name))
        sync(place)
    shutil.rmtree(saving, ignore_errors=True)


def _remove_other_shards(place: str, saving: str, step: int) -> None:
    """Remove data files of an earlier checkpoint of this step that the saved one does not replace."""
    try:
        files = read_manifest(saving, step)['files']
    except Damaged:
        return
    for name in _visible(place):
        if name.startswith(f'{PREFIX}-{step}.') and name not in files:
            os.unlink(os.path.join(place, name))


def _named_checkpoints(place: str) -> List[str]:
    """Return the path prefixes that a folder's `checkpoint` file names, the last checkpoint first; [] if it is bad."""
    try:
        with open(os.path.join(place, _POINTER), encoding='utf-8') as file:
            lines = re.findall(r'^(all_)?model_checkpoint_paths?: "(.*)"', file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return []
    last = [name for one_of_all, name in lines if not one_of_all]
    others = [name for one_of_all, name in lines if one_of_all]
    return [os.path.join(place, name) for name in dict.fromkeys(map(os.path.basename, last + others[::-1]))]


def _listed_checkpoints(place: str) -> List[str]:
    """Return the path prefixes of the checkpoints in a folder, the newest first; one without a step comes last."""
    names = _visible(place)
    without = [PREFIX] if f'{PREFIX}.index' in names else []
    steps = sorted({_step_of(name) for name in names if name.endswith('.index')} - {None}, reverse=True)
    return [os.path.join(place, name) for name in [f'{PREFIX}-{step}' for step in steps] + without]


def _is_whole(path: str) -> bool:
    """Return whether all files of a checkpoint are there, with the sizes in its manifest, if it has one."""
    place, prefix = os.path.split(path)
    if not shards_are_complete(_visible(place), prefix):
        return False
    step = _step_of(f'{prefix}.index')
    if step is None or not os.path.exists(os.path.join(place, manifest_name(step))):
        return True  # a checkpoint of another program
    try:
        check_files(place, read_manifest(place, step), content=False)
    except Damaged:
        return False
    return True


def _visible(place: str) -> List[str]:
    """Return the names in a folder, without hidden ones; [] if there is no such folder. OSError if it is unreadable."""
    try:
        return [name for name in os.listdir(place) if not name.startswith('.')]
    except FileNotFoundError:
        return []


def _step_of(name: str) -> Optional[int]:
    match = _OF_STEP.fullmatch(name)
    return int(match.group(1) or match.group(2)) if match else None


def _steps(place: str) -> List[int]:
    """Return the steps of all files of checkpoints in a folder, in order."""
    return sorted({_step_of(name) for name in _visible(place)} - {None})


def _point(folder: str, steps: List[int]) -> None:
    """Write a `checkpoint` file for these steps into a folder: the last step is that of the last checkpoint."""
    with written_whole(os.path.join(folder, _POINTER)) as file:
        file.write(f'model_checkpoint_path: "{PREFIX}-{steps[-1]}"\n')
        file.writelines(f'all_model_checkpoint_paths: "{PREFIX}-{step}"\n' for step in steps)


def _remove(place: str, step: int) -> None:
    path = os.path.join(place, f'{PREFIX}-{step}')
    for file in [path + '.index', os.path.join(place, manifest_name(step)), *glob.glob(glob.escape(path) + '.data-*')]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
