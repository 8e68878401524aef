"""Ranks that another launcher started: `mpirun -n 8 ./launch.py …`, or srun, ran launch.py in each of them.

The first one reads the command line, owns the run's folder, and does what follows the training, as launch.py does
alone. The others wait for its work: it sends a job to all ranks, and each does its share. At the end it sends the exit
status.
"""

import contextlib
import functools
import json
import os
import sys
import time
import traceback
from typing import Iterator, NamedTuple, NoReturn, Optional

from lm_human_preferences.launcher import rank
from lm_human_preferences.mpi.ranks import THREADS_VARIABLE, Ranks
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.trackers import TRACK_VARIABLE
from lm_human_preferences.utils.errors import UserError, user_message
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.text import without_secrets

# What launchers tell each process: Open MPI's mpirun, MPICH and its relatives (also srun --mpi=pmi2), and srun.
_VARIABLES = (
    ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
    ('PMI_SIZE', 'PMI_RANK'),
    ('SLURM_STEP_NUM_TASKS', 'SLURM_PROCID'),
)
_PASSED_ON = (THREADS_VARIABLE, TRACK_VARIABLE)  # flags that are no hyperparameters
_DELAY_SECONDS = 3.0  # so that the first rank's error is the one that is shown


class Given(NamedTuple):
    """What the launcher told this process."""

    size: int
    rank: int


def given() -> Optional[Given]:
    """Return this process's place among several that a launcher started; None if it was started alone."""
    for size, number in _VARIABLES:
        texts = os.environ.get(size, ''), os.environ.get(number, '')
        if all(text.isdigit() for text in texts) and int(texts[0]) > 1:
            return Given(*map(int, texts))
    return None


def num_ranks(mpi: Optional[int], has_hosts: bool) -> Optional[int]:
    """Return the number of ranks that a launcher started; None without one. UserError if the flags ask for others."""
    place = given()
    if place is None:
        return None
    if mpi not in (None, place.size):
        raise UserError(
            f'--mpi={mpi}, but {place.size} processes of launch.py were started by mpiexec or srun: '
            f'leave out --mpi, or start {mpi}'
        )
    if has_hosts:
        raise UserError('mpiexec or srun has started the ranks on their hosts: leave out --hosts and --hostfile')
    return place.size


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Run the block in the first rank only, while the others do what it sends. All end with the same status.

    Without a launcher, it is just the block.
    """
    place = given()
    if place is None:
        yield
        return
    os.environ.setdefault('OMPI_MCA_mpi_yield_when_idle', '1')  # the others wait while the first one works alone
    if place.rank:
        _serve()
    status = 1
    try:
        yield
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        raise
    finally:
        with contextlib.suppress(UserError):  # which the block has raised
            _ranks(place).broadcast_text(json.dumps(dict(status=status)))


def start(command: str, hparams: HParams, show_traceback: bool) -> None:
    """Do the work of a command in all ranks. Only the first one calls this."""
    ranks = _ranks(given())
    job = rank.Job(command, hparams.to_nested_dict(), ranks.size, show_traceback)
    environment = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    ranks.broadcast_text(json.dumps(dict(job=job._asdict(), environment=environment)))
    _do(job, ranks)


def _serve() -> NoReturn:
    """Do what the first rank sends, until it sends the end."""
    try:
        ranks = _ranks(given())
    except UserError:  # the first rank has the same, and says it
        time.sleep(_DELAY_SECONDS)
        sys.exit(2)
    while True:
        message = json.loads(ranks.broadcast_text(''))
        if 'status' in message:
            sys.exit(message['status'])
        os.environ.update(message['environment'])
        _do(rank.Job(**message['job']), ranks)


def _do(job: rank.Job, ranks: Ranks) -> None:
    """Do this rank's share of a job. A failure in one rank ends all."""
    try:
        rank.do(job, ranks)
    except preemption.Preempted:
        ranks.wait_for_all()  # launchers end the others as soon as one ends
        raise
    except (Exception, KeyboardInterrupt) as error:
        message = user_message(error)
        if not ranks.is_first:
            time.sleep(_DELAY_SECONDS)
        if message is None or job.show_traceback:
            sys.stderr.write(without_secrets(traceback.format_exc()))
        where = '' if ranks.is_first else f'rank {ranks.rank} of {ranks.size}: '
        sys.stderr.write(f'error: {where}{message or type(error).__name__}\n')
        sys.stdout.flush()
        sys.stderr.flush()
        rank.abort(2 if message else 1)


@functools.lru_cache(maxsize=1)  # all ranks must make one together
def _ranks(place: Given) -> Ranks:
    """Return the ranks of MPI. UserError if they are not those that the launcher started."""
    try:
        ranks = Ranks()
    except ImportError:
        raise UserError(f'{place.size} ranks need the Python package mpi4py: install it') from None
    if ranks.size != place.size:
        raise UserError(
            f'{place.size} processes of launch.py were started, and mpi4py sees {ranks.size}: start them with the '
            "mpiexec of mpi4py's MPI, or with srun --mpi=pmix (srun --mpi=list says what there is)"
        )
    return ranks
