"""A run of launch.py that would take hours, for tests that stop it."""

import os
import subprocess
import sys
import time

from repository import LAUNCH

RANK_VARIABLES = ('OMPI_COMM_WORLD_RANK', 'PMI_RANK')

DEFINITION = """
run: {seed: 1, log_interval: 1, save_interval: 1000000}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward: {labels: {type: best_of_4, source: test, num_train: 16}, batch_size: 8, lr: 1e-3}
train_policy: {ppo: {batch_size: 16, total_episodes: EPISODES, lr: 1e-3}}
"""


def command(folder, *flags, episodes=1600000):
    """Return the command that fine-tunes a tiny policy in FOLDER/run."""
    definition = os.path.join(folder, 'tiny.yaml')
    with open(definition, 'w') as f:
        f.write(DEFINITION.replace('EPISODES', str(episodes)))
    return [sys.executable, LAUNCH, 'train_policy', definition, 'run', f'--save_dir={folder}', *flags]


class Running:
    """A long run in a folder of its own, and its processes. It has finished its second step when `__init__` returns."""

    def __init__(self, folder, *flags, prefix=(), env=None):
        self.folder = folder
        flags = ['--rewards.train_new_model=off', '--rewards.trained_model=test', *flags]
        self.launcher = subprocess.Popen(
            [*prefix, *command(folder, *flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        for line in self.launcher.stdout:
            if line.startswith(b'step 2/'):
                return
        raise AssertionError(self.launcher.stderr.read().decode())

    def processes(self):
        """Return {pid: environment} of all processes whose arguments contain the run's folder."""
        found = {}
        for name in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{name}/cmdline', 'rb') as f:
                    arguments = f.read().decode('utf-8', 'replace')
                with open(f'/proc/{name}/environ', 'rb') as f:
                    variables = f.read().decode('utf-8', 'replace').split('\0')
            except OSError:  # ended in the meantime
                continue
            if self.folder in arguments:
                found[int(name)] = dict(variable.split('=', 1) for variable in variables if '=' in variable)
        return found

    def rank(self, number):
        """Return the process id of one rank."""
        return next(
            pid
            for pid, variables in self.processes().items()
            if any(variables.get(name) == str(number) for name in RANK_VARIABLES)
        )

    def mpiexec(self):
        """Return the process id of mpiexec, which starts the ranks."""
        return next(
            pid
            for pid, variables in self.processes().items()
            if pid != self.launcher.pid and not any(name in variables for name in RANK_VARIABLES)
        )

    def end(self):
        """Wait until all processes have ended by themselves; return (status, standard output, standard error)."""
        output, errors = self.launcher.communicate(timeout=30)
        self.wait_until_nothing_is_left()
        return self.launcher.returncode, output.decode(), errors.decode()

    def wait_until_nothing_is_left(self):
        """Wait at most 30 seconds until no process of the run is left."""
        deadline = time.time() + 30
        while self.processes() and time.time() < deadline:
            time.sleep(0.1)
        assert not self.processes()

    def kill(self):
        """Kill the processes that are left."""
        for pid in self.processes():
            os.kill(pid, 9)
        self.launcher.communicate()
