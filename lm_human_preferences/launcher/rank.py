"""One rank (process) of a run, and what it does.

`python -m lm_human_preferences.launcher.rank JOB` is a rank that `mpiexec.start` started. JOB is JSON, so that a rank
on another host needs no file of the launcher.
"""

import contextlib
import importlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from typing import Any, Dict, NamedTuple

from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.launcher.hosts import take_gpu
from lm_human_preferences.launcher.save_dirs import forbid_world_writable_files
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs import preemption
from lm_human_preferences.utils.errors import UserError, user_message
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.locks import locked

ERROR = 'error: '
REPORT = re.compile(r'rank (\d+)\| (.*)')  # a line of a failing rank's last words


class Job(NamedTuple):
    """What the ranks are to do."""

    command: str
    hparams: Dict[str, Any]  # nested
    num_ranks: int
    show_traceback: bool


def run(command: str, hparams: HParams) -> None:
    """Do a command's work in this process; training ends in good order on SIGTERM."""
    if command.startswith('train_'):
        with preemption.heeded():
            importlib.import_module(f'lm_human_preferences.{command}').train(hparams)
    else:
        getattr(importlib.import_module(f'lm_human_preferences.{command}'), command)(hparams)


def main() -> None:
    """Be one rank of the job that is this process's argument."""
    job = Job(**json.loads(sys.argv[1]))
    forbid_world_writable_files()
    ranks = None
    try:
        _end_with_parent()
        ranks = Ranks()
        if ranks.is_first:
            _listen_to_launcher()
        _check_size(ranks, job.num_ranks)
        take_gpu(ranks.local_rank, ranks.local_size)
        hparams = TREES[job.command]()
        hparams.override_from_nested_dict(job.hparams)
        if job.command != 'sample' and ranks.size > 1:
            collectives = importlib.import_module('lm_human_preferences.mpi.collectives')  # loads TensorFlow
            description = collectives.describe(ranks)
            if ranks.is_first:
                print(description, flush=True)
        with contextlib.ExitStack() as stack:
            if ranks.is_first and job.command.startswith('train_'):
                # The launcher owns the folder. If it was killed, ranks of its may still be here, ending.
                stack.enter_context(locked(os.path.join(hparams.run.save_dir, 'writer')))
            run(job.command, hparams)
    except preemption.Preempted:
        ranks.wait_for_all()  # mpiexec ends the others as soon as one ends with such a status
        raise
    except (Exception, KeyboardInterrupt) as error:
        message = user_message(error)
        lines = traceback.format_exc().splitlines() if message is None or job.show_traceback else []
        lines += [] if message is None else [ERROR + message]
        number = ranks.rank if ranks else 0
        sys.stdout.flush()
        sys.stderr.write(''.join(f'rank {number}| {line}\n' for line in lines))
        sys.stderr.flush()
        _abort(1)


def _check_size(ranks: Ranks, expected: int) -> None:
    """Refuse an mpiexec that is not of mpi4py's MPI: each rank would think it is alone."""
    if ranks.size != expected:
        raise UserError(
            f'mpiexec started {expected} ranks and mpi4py sees {ranks.size}: they belong to different MPIs; '
            'install mpi4py for the MPI whose mpiexec comes first in PATH'
        )


def _end_with_parent() -> None:
    """End this process within a second of the one that started it: nobody is left to end it then."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _listen_to_launcher() -> None:
    """Take SIGTERM when the launcher says so on standard input, and end when it is gone."""

    def listen():
        while os.read(0, 64):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()


def _abort(status: int) -> None:
    """End this rank, and with it the others, which may be waiting for it."""
    if 'mpi4py.MPI' in sys.modules:
        time.sleep(0.5)  # our own words should reach the launcher before mpiexec's account of the end
        sys.modules['mpi4py.MPI'].COMM_WORLD.Abort(status)
    os._exit(status)


if __name__ == '__main__':
    main()
