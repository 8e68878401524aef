"""A process that has loaded the package and TensorFlow, and forks one process for each run of launch.py.

    python tests/support/warm_launcher.py

It reads one request per line from standard input: JSON with the arguments, the environment, the working folder, and the
files that take the process's output and errors. It answers with the exit status, one per line. Only the seconds that
loading TensorFlow takes are saved: each run has a process, streams, environment and signals of its own, and ends as
launch.py ends. The forking process never creates a session, so it has none of TensorFlow's threads.
"""

import gc
import json
import os
import signal
import sys
from typing import Any, Dict

from repository import LAUNCH, ROOT

sys.path.insert(0, ROOT)

from lm_human_preferences import evaluate, report, sample, train_lm, train_policy, train_reward  # noqa: E402, F401
from lm_human_preferences.launcher import command_line  # noqa: E402


def become(request: Dict[str, Any]) -> None:
    """Take the arguments, environment, folder and streams of a request."""
    os.environ.clear()
    os.environ.update(request['environment'])
    os.chdir(request['folder'])
    sys.argv = [LAUNCH, *request['arguments']]
    sys.path[0] = ROOT
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (request['output'], os.O_WRONLY), (request['errors'], os.O_WRONLY)]
    ):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the tests
    gc.freeze()  # a process that ends would search all of TensorFlow's objects for cycles, for a second
    for line in iter(sys.stdin.readline, ''):
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            become(request)
            command_line.main()
            return
        _, status = os.waitpid(pid, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


if __name__ == '__main__':
    main()
