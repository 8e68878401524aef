"""Run launch.py as a user does: in a process of its own, with its own arguments, environment and streams."""

import atexit
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Dict, Optional, Tuple

from repository import LAUNCH, TESTS

Ended = Tuple[int, str, str]  # exit status, standard output, standard error

_warm = None  # the process of warm_launcher.py
_asking = threading.Lock()


def launch(*arguments: object, **options: object) -> Ended:
    """Run launch.py in a process forked from one that has loaded TensorFlow, which saves some seconds.

    The options are those of `Launched`.
    """
    process = Launched(*arguments, **options)
    output, errors = process.communicate()
    return process.returncode, output.decode(), errors.decode()


def launch_anew(*arguments: object) -> Ended:
    """Run launch.py with a new Python."""
    done = subprocess.run([sys.executable, LAUNCH, *map(str, arguments)], capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Launched:
    """A running launch.py, forked as by `launch`, with the methods of subprocess.Popen.

    `environment` replaces the environment, and `folder` the current folder. With `merged`, its errors go to its output.
    """

    def __init__(
        self, *arguments: object, folder: str = '', environment: Optional[Dict[str, str]] = None, merged: bool = False
    ):
        self.returncode = None
        with tempfile.TemporaryDirectory() as pipes:
            output, errors = (os.path.join(pipes, name) for name in ('output', 'errors'))
            os.mkfifo(output)
            self.stdout = os.fdopen(os.open(output, os.O_RDONLY | os.O_NONBLOCK), 'rb')
            self.stderr = os.fdopen(os.open(errors, os.O_RDONLY | os.O_CREAT), 'rb')
            self.pid = _ask(
                arguments=list(map(str, arguments)),
                environment=dict(os.environ if environment is None else environment),
                folder=folder or os.getcwd(),
                output=output,
                errors=output if merged else errors,
            )
        fcntl.fcntl(self.stdout, fcntl.F_SETFL, 0)  # the other end is open now: reading waits for output

    def poll(self) -> Optional[int]:
        if self.returncode is None:
            self.returncode = _ask(wait=self.pid, block=False)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Wait until the process has ended, and return its exit status."""
        until = time.time() + timeout
        while self.poll() is None:
            if time.time() > until:
                raise subprocess.TimeoutExpired('launch.py', timeout)
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float = 300) -> Tuple[bytes, bytes]:
        """Wait until the process has ended; return what it has printed: (standard output, standard error)."""
        if self.stdout.closed:
            return b'', b''
        watchdog = threading.Timer(timeout, self.kill)  # reading ends with the process
        watchdog.start()
        output = self.stdout.read()
        self.wait(timeout)
        watchdog.cancel()
        errors = self.stderr.read()
        self.stdout.close()
        self.stderr.close()
        return output, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _ask(**request: object) -> Optional[int]:
    """Send a request to warm_launcher.py, which is started if it is not running; return its answer."""
    global _warm
    with _asking:  # threads of a test ask in turn, or one would get the answer of another
        if _warm is None:
            script = os.path.join(TESTS, 'support', 'warm_launcher.py')
            _warm = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            atexit.register(_end)
        _warm.stdin.write(json.dumps(request).encode() + b'\n')
        _warm.stdin.flush()
        answer = _warm.stdout.readline()
    assert answer, 'warm_launcher.py ended'
    return json.loads(answer.decode())


def _end() -> None:
    _warm.stdin.close()
    _warm.wait()
    _warm.stdout.close()
