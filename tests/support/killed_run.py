"""Run launch.py again and again, and kill it at random moments, until it has finished.

    python tests/support/killed_run.py KILLS OUTPUT train_policy EXPERIMENT NAME …

This process loads TensorFlow once and forks for each start, which saves time. Each start but the last gets SIGKILL at
a random moment: most of them after they have saved a new checkpoint, some before. Their output goes to OUTPUT.
"""

import os
import random
import signal
import sys
import time

from repository import ROOT

sys.path.insert(0, ROOT)

from lm_human_preferences import train_lm, train_policy  # noqa: E402, F401
from lm_human_preferences.launcher import command_line  # noqa: E402

START_UP_SECONDS = 3
STEPS_SECONDS = 0.3


def newest_checkpoint(save_dir: str) -> float:
    """Return the time when the last checkpoint anywhere in a folder was finished."""
    pointers = [os.path.join(path, 'checkpoint') for path, _, names in os.walk(save_dir) if 'checkpoint' in names]
    times = [0.0]
    for pointer in pointers:
        try:
            times.append(os.stat(pointer).st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def start(output, argv) -> int:
    """Fork a process that does what launch.py does; return its process number."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        command_line.main(argv)
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended(pid, seconds) -> bool:
    """Wait at most `seconds` for a process; return whether it has ended. Exit if its status is not 0."""
    until = time.time() + seconds
    while time.time() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                sys.exit(f'a run ended with status {status}')
            return True
        time.sleep(0.002)
    return False


def kill_at_random(pid, save_dir, chance) -> bool:
    """Kill a run at a random moment; return whether it had already finished."""
    if chance.random() < 0.2:
        moment = chance.uniform(0, START_UP_SECONDS)
        if ended(pid, moment):
            return True
    else:
        before = newest_checkpoint(save_dir)
        while newest_checkpoint(save_dir) == before:
            if ended(pid, 0.02):
                return True
        if ended(pid, chance.uniform(0, STEPS_SECONDS)):
            return True
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main() -> None:
    kills, output, argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    save_dir = next(word.split('=', 1)[1] for word in argv if word.startswith('--save_dir='))
    os.makedirs(save_dir, exist_ok=True)
    chance = random.Random(20190918)
    done = 0
    with open(output, 'ab') as file:
        while done < kills:
            if kill_at_random(start(file, argv), save_dir, chance):
                sys.exit(f'finished after {done} kills of {kills}: make the run longer')
            done += 1
        if not ended(start(file, argv), float('inf')):
            sys.exit('not finished')


if __name__ == '__main__':
    main()
