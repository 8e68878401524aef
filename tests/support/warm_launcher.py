"""A process that has loaded the package and TensorFlow, and forks a process for each run of launch.py.

    python tests/support/warm_launcher.py

It reads one request per line from standard input, and answers each with one line:

- {"arguments", "environment", "folder", "output", "errors"}: start a run, whose output and errors go to the named
  files. The answer is its process id.
- {"wait": PROCESS_ID, "block": true or false}: the answer is the exit status, or null while the process is running.

Only the time that loading TensorFlow takes is saved. Each run has its own process, streams, environment and signals,
and ends as launch.py ends. This process never creates a session, so there are no threads of TensorFlow to lose.
"""

import gc
import json
import os
import signal
import sys
from typing import Any, Dict, List, Optional

from repository import LAUNCH, ROOT

sys.path.insert(0, ROOT)

from lm_human_preferences import evaluate, report, sample, train_lm, train_policy, train_reward  # noqa: E402, F401
from lm_human_preferences.launcher import command_line  # noqa: E402

_ended: Dict[int, int] = {}  # the exit status of each process that has ended: the system tells it only once


def open_streams(request: Dict[str, Any]) -> List[int]:
    """Open the files of a run's standard input, output and errors."""
    names = [(os.devnull, os.O_RDONLY), (request['output'], os.O_WRONLY), (request['errors'], os.O_WRONLY)]
    return [os.open(name, flags) for name, flags in names]


def become(request: Dict[str, Any], streams: List[int]) -> None:
    """Make this process look like a new one that runs launch.py."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request['environment'])
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # as loading the package did; TensorFlow reads it again
    os.chdir(request['folder'])
    sys.argv = [LAUNCH, *request['arguments']]
    sys.path[:1] = [ROOT, *filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))]


def status(pid: int, block: bool) -> Optional[int]:
    """Return the exit status of a process, negative if a signal ended it, or None while it is running."""
    if pid not in _ended:
        ended, code = os.waitpid(pid, 0 if block else os.WNOHANG)
        if not ended:
            return None
        _ended[pid] = -os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
    return _ended[pid]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the tests
    gc.freeze()  # or each process would search all of TensorFlow's objects for cycles as it ends, which takes a second
    for line in iter(sys.stdin.readline, ''):
        request = json.loads(line)
        if 'wait' in request:
            answer = status(request['wait'], request['block'])
        else:
            streams = open_streams(request)
            answer = os.fork()
            _ended.pop(answer, None)  # a process number can come again
            if answer == 0:
                become(request, streams)
                command_line.main()
                return
            for stream in streams:
                os.close(stream)
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
