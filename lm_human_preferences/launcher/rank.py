"""One rank of a run: a process that does the work of a command.

`mpiexec.start` starts each rank as `python -m lm_human_preferences.launcher.rank JOB`. JOB is JSON, so that a rank on
another host needs no file of the launcher.
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
from typing import Any, Dict, Iterator, NamedTuple

from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.launcher.hosts import take_gpu
from lm_human_preferences.launcher.save_dirs import forbid_world_writable_files
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs import preemption
from lm_human_preferences.utils.errors import UserError, user_message
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.locks import holder, locked
from lm_human_preferences.utils.progress import open_streams
from lm_human_preferences.utils.text import without_secrets

ERROR = 'error: '
WRITER_PATIENCE_SECONDS = 30.0  # a rank ends a second after its launcher
REPORT = re.compile(r'rank (\d+)\| (.*)')  # a line of the report of a failing rank


class Job(NamedTuple):
    """The work of the ranks."""

    command: str
    hparams: Dict[str, Any]  # nested
    num_ranks: int
    show_traceback: bool


def runs_long(command: str) -> bool:
    """Return whether a command trains, or waits for people.

    Such work continues when nobody reads its output, and a signal asks it to end in good order.
    """
    return command.startswith('train_') or command == 'label'


def run(command: str, hparams: HParams, ctrl_c: bool = False) -> None:
    """Do the work of a command in this process; on a signal, training saves a checkpoint and ends (`preemption`).

    Args:
      ctrl_c: whether SIGINT is such a signal. Otherwise it raises KeyboardInterrupt.
    """
    if command.startswith('train_'):
        with preemption.heeded(ctrl_c):
            importlib.import_module(f'lm_human_preferences.{command}').train(hparams)
            if ctrl_c and preemption.requested():  # in the last step: what follows the training can be done later
                raise preemption.ended()
    else:
        getattr(importlib.import_module(f'lm_human_preferences.{command}'), command)(hparams)


def main() -> None:
    """Do the job in this process's argument, as one of its ranks."""
    job = Job(**json.loads(sys.argv[1]))
    open_streams(steady=runs_long(job.command))
    forbid_world_writable_files()
    ranks = None
    try:
        _end_with_parent()
        ranks = Ranks()
        if ranks.is_first:
            _listen_to_launcher()
        _check_size(ranks, job.num_ranks)
        do(job, ranks)
    except preemption.Preempted:
        ranks.wait_for_all()  # mpiexec ends the others as soon as one ends with this status
        sys.exit(preemption.EXIT_STATUS)
    except (Exception, KeyboardInterrupt) as error:
        message = user_message(error)
        lines = traceback.format_exc().splitlines() if message is None or job.show_traceback else []
        lines += [] if message is None else [ERROR + message]
        number = ranks.rank if ranks else 0
        sys.stdout.flush()
        sys.stderr.write(''.join(f'rank {number}| {without_secrets(line)}\n' for line in lines))
        sys.stderr.flush()
        abort(1)


def do(job: Job, ranks: Ranks) -> None:
    """Do this rank's share of a job. All ranks call this."""
    take_gpu(ranks.local_rank, ranks.local_size)
    hparams = TREES[job.command]()
    hparams.override_from_nested_dict(job.hparams, exact=True)
    trains = job.command.startswith('train_')
    if trains and ranks.size > 1:
        collectives = importlib.import_module('lm_human_preferences.mpi.collectives')  # loads TensorFlow
        description = collectives.describe(ranks)
        if ranks.is_first:
            print(description, flush=True)
    with contextlib.ExitStack() as stack:
        if ranks.is_first and trains:
            # The launcher owns the folder. If a launcher was killed, its ranks may still be ending.
            stack.enter_context(_only_writer(hparams.run.save_dir))
        run(job.command, hparams)


@contextlib.contextmanager
def _only_writer(folder: str) -> Iterator[None]:
    """Wait until no rank of an earlier start writes a run. UserError if one does not end."""
    lock = os.path.join(folder, 'writer')
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, at_most=WRITER_PATIENCE_SECONDS))
        except BlockingIOError:
            raise UserError(
                f'{folder}: a process of an earlier start still writes this run{holder(lock)}: '
                'end it with kill -9, and give the same command again'
            ) from None
        yield


def _check_size(ranks: Ranks, expected: int) -> None:
    """Raise UserError if mpiexec does not belong to the MPI of mpi4py: each rank would be alone."""
    if ranks.size != expected:
        raise UserError(
            f'mpiexec started {expected} ranks and mpi4py sees {ranks.size}: they belong to different MPIs; '
            'install mpi4py for the MPI whose mpiexec comes first in PATH'
        )


def _end_with_parent() -> None:
    """End this process at most a second after its parent ends, because nothing else would end it."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _listen_to_launcher() -> None:
    """Treat a line on standard input as the signal that it names, and end this process at the end of the input.

    The line comes from the launcher, which received the signal. A command that does not train ends at once. The end of
    the input means that the launcher has ended.
    """

    def listen():
        for line in iter(lambda: os.read(0, 64), b''):
            preemption.ask(signal.Signals[line.decode().split()[0]])
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()


def abort(status: int) -> None:
    """End this rank and the others, which may be waiting for it."""
    if 'mpi4py.MPI' in sys.modules:
        time.sleep(0.5)  # so that our report reaches the launcher before mpiexec's description of the failure
        sys.modules['mpi4py.MPI'].COMM_WORLD.Abort(status)
    os._exit(status)


if __name__ == '__main__':
    main()
