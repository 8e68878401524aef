"""Save a checkpoint, or resume from one, and be killed before each system call in turn.

    python tests/support/killed_saves.py FOLDER save|save_again|resume

FOLDER/0 has the checkpoints of steps 1 to 3. Each FOLDER/N becomes a copy of it in which one of these was killed before
its system call N: a save of step 4, a save of step 3 in two data files, or resuming after step 2. The last copy was not
killed. This is a script because it forks for each N, which takes long in a process that has loaded TensorFlow.
"""

import os
import shutil
import signal
import sys
import tempfile

from repository import ROOT

sys.path.insert(0, ROOT)

from lm_human_preferences.runs.checkpoint_files import create, new_checkpoint, resume_at  # noqa: E402

STATE = {'seed': 7, 'positions': [3], 'ranks': 1, 'hparams': {'run': {'seed': 7}}}


def save(folder, step, keep=3, data_files=1):
    """Save a checkpoint whose files hold the number of the step."""
    create(folder)
    with new_checkpoint(folder, step, STATE, keep) as path:
        for suffix in [f'.data-{number:05}-of-{data_files:05}' for number in range(data_files)] + ['.index']:
            with open(path + suffix, 'w') as file:
                file.write(f'{step}' * 10)


def kill_at_system_call(number, function):
    """Run `function` in a process that is killed before its system call `number`; return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            if event == 'c_call' and getattr(argument, '__module__', None) in ('posix', 'io'):
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            function()
        finally:
            sys.setprofile(None)
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def main():
    folder, action = sys.argv[1:]
    with tempfile.TemporaryDirectory() as other:
        save(other, 1)  # what it imports is imported now: only calls of the save itself are counted
    number, killed = 0, True
    while killed:
        number += 1
        copy = shutil.copytree(os.path.join(folder, '0'), os.path.join(folder, str(number)))
        act = {
            'save': lambda copy=copy: save(copy, 4),
            'save_again': lambda copy=copy: save(copy, 3, data_files=2),
            'resume': lambda copy=copy: resume_at(copy, 2),
        }[action]
        killed = kill_at_system_call(number, act)


if __name__ == '__main__':
    main()
