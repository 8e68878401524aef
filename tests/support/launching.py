"""Run launch.py as a user does: in a process of its own, with its own arguments, environment and streams."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from typing import Dict, Optional, Tuple

from repository import LAUNCH, TESTS

Ended = Tuple[int, str, str]  # exit status, standard output, standard error

_warm = None


def launch(*arguments: object, folder: str = '', environment: Optional[Dict[str, str]] = None) -> Ended:
    """Run launch.py in a process forked from one that has loaded TensorFlow: the same, some seconds earlier."""
    global _warm
    if _warm is None:
        script = os.path.join(TESTS, 'support', 'warm_launcher.py')
        _warm = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(_end)
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
        request = {
            'arguments': list(map(str, arguments)),
            'environment': dict(os.environ if environment is None else environment),
            'folder': folder or os.getcwd(),
            'output': output.name,
            'errors': errors.name,
        }
        _warm.stdin.write(json.dumps(request).encode() + b'\n')
        _warm.stdin.flush()
        answer = _warm.stdout.readline()
        assert answer, 'tests/support/warm_launcher.py ended'
        return int(answer), output.read().decode(), errors.read().decode()


def launch_anew(*arguments: object) -> Ended:
    """Run launch.py with a new Python."""
    done = subprocess.run([sys.executable, LAUNCH, *map(str, arguments)], capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _end() -> None:
    _warm.stdin.close()
    _warm.wait()
    _warm.stdout.close()
