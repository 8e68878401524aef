"""Send the statistics of a run to an experiment tracker: wandb or trackio.

The tracker is no part of a run. An environment variable names it, which --track sets, and not a hyperparameter: a run
resumes with another tracker or without one. It works in a process of its own (`tracker_process`), so that nothing that
it does can end, change or delay the run. (Without a network, wandb tries again without end, also when Python ends.)
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import uuid
from typing import Callable, Iterator, Optional, Tuple

from lm_human_preferences.runs import tracker_process
from lm_human_preferences.runs.run_folder import ONLINE, TRACKERS_FILE
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.progress import note

TRACK_VARIABLE = 'LM_HUMAN_PREFERENCES_TRACK'
PATIENCE_SECONDS = 60.0  # that a tracker may take at the end to send the rest
_OLDEST_PYTHON = {'wandb': (3, 7), 'trackio': (3, 10)}


def check_tracker(flag: Optional[str] = None) -> Optional[str]:
    """Return the tracker that --track names, or else the environment; None if there is none.

    UserError if it is no tracker, or if its package is not installed.
    """
    name, source = (flag, '--track') if flag is not None else (os.environ.get(TRACK_VARIABLE), TRACK_VARIABLE)
    if not name and flag is None:
        return None
    if name not in _OLDEST_PYTHON:
        raise UserError(f'{source} must be wandb or trackio, not {name!r}')
    if importlib.util.find_spec(name) is None:
        oldest = _OLDEST_PYTHON[name]
        python = f' with Python {oldest[0]}.{oldest[1]} or newer' if sys.version_info[:2] < oldest else ''
        raise UserError(f'{source} {name} needs the Python package {name}: install it{python}: pip install {name}')
    return name


@contextlib.contextmanager
def tracked(folder: Optional[str], hparams: HParams, first_step: int = 0) -> Iterator[Callable[[], None]]:
    """Open the tracker that the environment names, if any, for one training.

    Give the function to call after a step was written to the statistics. The tracker reads them there; it also gets
    earlier steps that it lacks.

    Args:
      folder: of the statistics of this training, RUN/tb/NAME. None: nothing is tracked.
      first_step: of this process.

    UserError if the environment names no tracker that is there.
    """
    name = check_tracker()
    if name is None or folder is None:
        yield lambda: None
        return
    tracker = _Tracker(name, folder, hparams, first_step)
    failed = True
    try:
        yield tracker.look
        failed = False
    finally:
        tracker.close(failed)


class _Tracker:
    """The process of a tracker."""

    def __init__(self, name: str, folder: str, hparams: HParams, first_step: int):
        self._name = name
        identity, is_new = _identity(folder, name)
        job = tracker_process.Job(
            tracker=name,
            folder=folder,
            group=_group(folder),
            title=f'{_group(folder)}/{os.path.basename(folder)}',
            identity=identity,
            is_new=is_new,
            first_step=first_step,
            patience=PATIENCE_SECONDS,
            config=hparams.to_shared_dict(),
        )
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
        self._process = subprocess.Popen(
            [sys.executable, '-m', tracker_process.__name__],
            stdin=subprocess.PIPE,
            stdout=2,  # standard output is for the run
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
            start_new_session=True,  # so that Ctrl-C does not reach it
        )
        self._say(json.dumps(job._asdict()).encode() + b'\n')
        os.set_blocking(self._process.stdin.fileno(), False)

    def look(self) -> None:
        """Have the tracker look for new steps."""
        self._say(tracker_process.LOOK)

    def close(self, failed: bool) -> None:
        """Wait until all is sent, but not for long; `failed` says whether the training did not finish."""
        self._say(b'' if failed else tracker_process.FINISHED)
        self._process.stdin.close()
        try:
            status = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            status = tracker_process.OUT_OF_TIME  # its own clock would have said the same a moment later
        finally:
            self._process.kill()
            self._process.wait()
        if status == tracker_process.OUT_OF_TIME:
            note(
                f'note: {self._name} took more than {PATIENCE_SECONDS:.0f} s to send the rest: the run ends without it'
            )
        elif status not in (0, tracker_process.FAILED):
            note(f'note: {self._name} ended with status {status}, and the run went on without it')

    def _say(self, message: bytes) -> None:
        # If the pipe is full, the process has much to look for already. If it is broken, the process has said why.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._process.stdin.fileno(), message)


def _group(folder: str) -> str:
    """Return the name of the run that trains in RUN/tb/NAME; for one of its online trainings, with its number."""
    path = os.path.dirname(os.path.dirname(os.path.abspath(folder)))
    above, name = os.path.split(path)
    run, above = os.path.split(above)
    return f'{os.path.basename(run)}/{name}' if above == ONLINE else name


def _identity(folder: str, tracker: str) -> Tuple[str, bool]:
    """Return what a tracker knows this training by, also when it is resumed, and whether that is new."""
    path = os.path.join(folder, TRACKERS_FILE)
    known = read_json(path) if os.path.exists(path) else {}
    known = known if isinstance(known, dict) else {}
    if isinstance(known.get(tracker), str):
        return known[tracker], False
    known[tracker] = uuid.uuid4().hex[:8]
    os.makedirs(folder, exist_ok=True)
    write_json(path, known)
    return known[tracker], True
