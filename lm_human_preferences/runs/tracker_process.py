"""The process of a tracker: it reads the statistics of a run where the run writes them, and sends them.

`trackers` starts it as `python -m lm_human_preferences.runs.tracker_process`. The first line of its input is the job.
Each LOOK after that means that there are new statistics. FINISHED means that the training has finished. The end of the
input means that nothing more comes: the process then has `patience` seconds to send the rest.
"""

import importlib
import json
import os
import sys
import threading
from typing import Any, Dict, NamedTuple, Optional, Tuple

from lm_human_preferences.runs.statistics import StatisticsReader
from lm_human_preferences.utils.text import without_secrets

LOOK, FINISHED = b'.', b'!'
FAILED = 3  # the exit status if the tracker failed, which a line on standard error has said
OUT_OF_TIME = 75  # the exit status if it could not send the rest in time, which nobody has said
PROJECT = 'lm-human-preferences'  # unless WANDB_PROJECT or TRACKIO_PROJECT gives another name


class Job(NamedTuple):
    """What to send, and where."""

    tracker: str
    folder: str  # of the statistics
    group: str  # what the tracker shows as the name of the run
    title: str  # and as that of this training
    identity: str  # what the tracker knows this training by
    is_new: bool  # whether the identity is new
    first_step: int  # of the process that trains
    patience: float  # seconds
    config: Dict[str, Any]


class _Input:
    """What the process that trains says, read in a thread."""

    def __init__(self, patience: float):
        self.is_over = self.is_finished = False
        self._patience = patience
        self._news = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self) -> None:
        """Wait until there is something new to look for."""
        self._news.wait()
        self._news.clear()

    def _listen(self) -> None:
        for said in iter(lambda: os.read(0, 1 << 16), b''):
            self.is_finished |= FINISHED in said
            self._news.set()
        self.is_over = True
        self._news.set()
        threading.Event().wait(self._patience)
        os._exit(OUT_OF_TIME)


def send(job: Job, run: Any, next_step: int, told: _Input) -> None:
    """Send the steps from `next_step` on to a tracker's run until the input is over."""
    statistics = StatisticsReader(job.folder)
    while True:
        told.wait()
        is_over = told.is_over
        for stats, step in statistics.new(with_last=is_over):
            if step >= next_step:  # a resumed run repeats steps
                run.log(stats, step=step)
                next_step = step + 1
        if is_over:
            return


def open_wandb(job: Job) -> Tuple[Any, Optional[int]]:
    """Start wandb's run, or continue it; return it and the first step that it lacks, if that is known."""
    wandb = importlib.import_module('wandb')
    run = wandb.init(
        project=os.environ.get('WANDB_PROJECT', PROJECT),
        group=job.group,
        name=job.title,
        id=job.identity,
        resume='allow',
        config=job.config,
    )
    return run, run.step if job.is_new or run.step else None  # offline, it does not know what it has of a resumed run


def open_trackio(job: Job) -> Tuple[Any, Optional[int]]:
    """Start trackio's run, or continue it; return it and the first step that it lacks, if that is known."""
    trackio = importlib.import_module('trackio')
    run = trackio.init(
        project=os.environ.get('TRACKIO_PROJECT', PROJECT),
        group=job.group,
        name=f'{job.title}-{job.identity}',  # trackio knows runs by their names
        resume='allow',
        config=job.config,
        embed=False,
    )
    return run, getattr(run, '_next_step', None)


def main() -> None:
    """Do the job on standard input. Whatever a library of others raises becomes one line."""
    with open(0, 'rb', buffering=0, closefd=False) as stream:
        job = Job(**json.loads(stream.readline().decode()))
    told = _Input(job.patience)
    try:
        run, next_step = dict(wandb=open_wandb, trackio=open_trackio)[job.tracker](job)
        send(job, run, job.first_step if next_step is None else next_step, told)
        run.finish(**(dict(exit_code=int(not told.is_finished)) if job.tracker == 'wandb' else {}))
    except Exception as error:
        reason = without_secrets(' '.join(str(error).split()))[:300] or type(error).__name__
        print(f'note: {job.tracker} failed, and the run goes on without it: {reason}', file=sys.stderr, flush=True)
        os._exit(FAILED)


if __name__ == '__main__':
    main()
