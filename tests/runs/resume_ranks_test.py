"""A run on two ranks resumes without any difference, whichever of its processes are killed.

RESUME_KILLS sets the number of kills.
"""

import glob
import os
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest
from killed_run import newest_checkpoint
from launching import launch
from repository import LAUNCH
from resumed_runs import assert_same_run, curve, samples, write_experiment

from lm_human_preferences.runs.checkpoints import latest_checkpoint

KILLS = int(os.environ.get('RESUME_KILLS', 3))
STEPS = 12 + 8 * KILLS


class RankedRun:
    """launch.py on two ranks, and all processes that it starts."""

    def __init__(self, output, *arguments):
        self._mark = f'RESUME_TEST={uuid.uuid4().hex}'
        name, value = self._mark.split('=')
        with open(output, 'ab') as file:
            self.launcher = subprocess.Popen(
                [sys.executable, LAUNCH, *map(str, arguments), '--mpi=2'],
                env=dict(os.environ, **{name: value}),
                stdout=file,
                stderr=file,
            )

    def processes(self):
        """Return {process number: command line} of the living processes."""
        found = {}
        for path in glob.glob('/proc/[0-9]*/environ'):
            try:
                with open(path, 'rb') as environment:
                    if self._mark.encode() in environment.read():
                        with open(path.replace('environ', 'cmdline'), 'rb') as command:
                            found[int(path.split('/')[2])] = command.read().decode()
            except OSError:
                continue  # the process has just ended
        return found

    def kill(self, which, chance):
        """Send SIGKILL to `all` processes, to the `launcher`, or to one `rank`, and wait until the launcher ends."""
        alive = self.processes()
        ranks = [
            pid
            for pid, command in alive.items()
            if 'lm_human_preferences.launcher.rank' in command and 'mpiexec' not in command
        ]
        victims = {'all': alive, 'launcher': [self.launcher.pid], 'rank': ranks and [chance.choice(ranks)]}[which]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        self.launcher.wait()

    def end(self):
        """Kill all processes that are left."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.launcher.wait()


@pytest.fixture
def ranked_run():
    """A function that starts runs on two ranks. Their processes are killed at the end of the test."""
    runs = []

    def start(*arguments):
        runs.append(RankedRun(*arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


@pytest.fixture
def flags(tmp_path):
    """A function that gives the arguments of a run in a folder, with or without a new reward model."""
    experiment = write_experiment(tmp_path)

    def of(save_dir, new_model, steps):
        model = '--rewards.train_new_model'
        models = [f'{model}.labels.num_train=64', f'{model}.run.save_interval=1']
        if not new_model:
            models = [f'{model}=off', '--rewards.trained_model=test']
        common = ['train_policy', experiment, 'run', f'--save_dir={save_dir}', '--threads=1', *models]
        return [*common, '--ppo.batch_size=32', f'--ppo.total_episodes={32 * steps}']

    return of


def read_text(path):
    with open(path) as file:
        return file.read()


def wait_until(run, holds, *arguments):
    while not holds(*arguments):
        assert run.launcher.poll() is None
        time.sleep(0.01)


def says(output, words):
    return words in read_text(output)


def has_saved(save_dir, since):
    return newest_checkpoint(save_dir) > since


def has_resumed(output, has_policy):
    """Whether a start says that it resumes. If the reward model is finished, the policy may have no checkpoint yet."""
    printed = read_text(output)
    finished = 'reward model' in printed and 'is finished' in printed
    return 'resuming after step' in printed or (finished and not has_policy)


@pytest.mark.slow
def test_two_ranks_killed_at_random_moments_end_as_if_undisturbed(flags, ranked_run, tmp_path):
    status, whole, errors = launch(*flags(tmp_path / 'whole', True, STEPS), '--mpi=2')
    assert (status, errors) == (0, '')
    save_dir = str(tmp_path / 'killed')
    chance = random.Random(20190918)
    outputs, begun = [], []  # of each start: what it printed, and whether the policy then had a checkpoint

    def start():
        begun.append(os.path.exists(os.path.join(save_dir, 'run', 'policy', 'checkpoints', 'checkpoint')))
        outputs.append(str(tmp_path / f'output-{len(outputs)}.txt'))
        return ranked_run(outputs[-1], *flags(save_dir, True, STEPS))

    for kill in range(KILLS):
        run = start()
        # A resuming start first rewrites the `checkpoint` file. Then it says so, and saves its own checkpoints later.
        if kill > 0:
            wait_until(run, has_resumed, outputs[-1], begun[-1])
        wait_until(run, has_saved, save_dir, newest_checkpoint(save_dir))
        time.sleep(chance.uniform(0, 0.2))
        assert run.launcher.poll() is None
        run.kill(('all', 'launcher', 'rank')[kill % 3], chance)
    status = start().launcher.wait()
    printed = [read_text(output) for output in outputs]
    assert status == 0, printed[-1]
    first, second = str(tmp_path / 'whole' / 'run'), str(tmp_path / 'killed' / 'run')
    assert_same_run(first, second, ['reward_model', 'policy'], ['reward_model', 'ppo'])
    killed = ''.join(printed)
    assert samples(whole) == samples(killed) and len(samples(whole)) == 2
    assert [has_resumed(*one) for one in zip(outputs, begun)] == [False] + KILLS * [True]
    steps = [step for tag, step, _ in curve(os.path.join(second, 'tb', 'ppo')) if tag == 'objective/kl']
    assert steps == list(range(STEPS))


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_on_all_ranks(flags, ranked_run, tmp_path):
    save_dir, output = str(tmp_path / 'runs'), str(tmp_path / 'output.txt')
    long = [*flags(save_dir, False, 100000), '--run.save_interval=1000000']
    run = ranked_run(output, *long)
    wait_until(run, says, output, 'step 2/')
    run.launcher.send_signal(signal.SIGTERM)
    status = run.launcher.wait()
    printed = read_text(output)
    assert status == 75, printed
    assert printed.count('because of SIGTERM') == 1 and 'error' not in printed
    step = int(printed.split('saved after step ')[1].split()[0])
    assert latest_checkpoint(os.path.join(save_dir, 'run', 'policy')).endswith(f'-{step}')
    assert run.processes() == {}
    # Another number of ranks would be another run.
    status, _, errors = launch(*long, '--mpi=1')
    assert status == 2 and 'holds a run on 2 rank(s), not 1: give --mpi=2' in errors
