"""A long run of a tiny model: does anything grow or become slower with the number of steps?

    python benchmarks/soak.py [--steps=2000] [--mpi=2]

Run PPO on the built-in `test` model, with checkpoints as often as in a real run. Measure on every rank: memory, open
files, nodes of the graph, seconds per step. Exit with status 1 if one of the limits below is exceeded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import List

import measuring  # noqa: F401  puts this checkout on the path
import numpy as np

from lm_human_preferences import train_policy
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.launcher import mpiexec
from lm_human_preferences.mpi.ranks import Ranks

SETTLED = 200  # steps; after them nothing may grow
MEMORY_GROWTH = 0.02  # from step SETTLED to the last steps
SLOWER = 0.05  # from the first quarter of the steps after SETTLED to the last quarter
WINDOW = 50  # steps in each median


def hyperparameters(steps: int, num_ranks: int, save_dir: str) -> train_policy.HParams:
    """Return the hyperparameters of a run of `steps` small steps."""
    hparams = train_policy.HParams()
    hparams.override_from_dict(
        {
            'run.seed': 1,
            'run.save_dir': save_dir,
            'task.query_length': 2,
            'task.response_length': 3,
            'task.query_dataset': 'test',
            'task.policy.initial_model': 'test',
            'rewards.trained_model': 'test',
            'ppo.batch_size': 16 * num_ranks,
            'ppo.total_episodes': 16 * num_ranks * steps,
        }
    )
    return hparams


class WatchedTrainer(train_policy.PPOTrainer):
    """The trainer, with measurements at each step."""

    measured = []  # for each step: time in seconds, bytes of memory, open files, nodes of the graph

    def train_on(self, *arguments):
        with open('/proc/self/statm') as file:
            memory = int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
        self.measured.append((time.time(), memory, len(os.listdir('/proc/self/fd')), tf.get_default_graph().version))
        return super().train_on(*arguments)


def be_rank(steps: int, folder: str) -> None:
    """Train as one rank, and write its measurements to `folder`."""
    ranks = Ranks()
    train_policy.PPOTrainer = WatchedTrainer
    train_policy.train(hyperparameters(steps, ranks.size, os.path.join(folder, 'run')))
    with open(os.path.join(folder, f'rank{ranks.rank}.json'), 'w') as file:
        json.dump(WatchedTrainer.measured, file)


def faults(measured: np.ndarray, name: str) -> List[str]:
    """Print a summary of a rank's measurements [steps, 4], and return the limits that they exceed."""
    seconds = np.diff(measured[:, 0])
    memory, files, nodes = measured[:, 1:].T

    def median(values, start):
        return np.median(values[start : start + WINDOW])

    before, after = median(memory, SETTLED - WINDOW), median(memory, len(memory) - WINDOW)
    quarter = (len(seconds) - SETTLED) // 4
    early, late = (np.median(part) for part in (seconds[SETTLED : SETTLED + quarter], seconds[-quarter:]))
    print(
        f'{name}: memory {before / 2**20:.1f} MB at step {SETTLED}, {after / 2**20:.1f} MB at step {len(memory)} '
        f'({after / before - 1:+.2%}); open files {files[SETTLED]:.0f}, {files[-1]:.0f}; '
        f'graph nodes {nodes[0]:.0f}, {nodes[-1]:.0f}; '
        f'ms a step {1e3 * early:.2f}, {1e3 * late:.2f} ({late / early - 1:+.1%})'
    )
    limits = {
        'memory grows': after / before - 1 > MEMORY_GROWTH,
        'open files grow': files[SETTLED:].max() > files[: SETTLED + 1].max(),
        'the graph grows': nodes[-1] > nodes[0],
        'steps become slower': late / early - 1 > SLOWER,
    }
    return [f'{name}: {fault}' for fault, present in limits.items() if present]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--mpi', type=int, default=1)
    parser.add_argument('--rank_in', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_in:
        be_rank(arguments.steps, arguments.rank_in)
        return
    if arguments.steps < 2 * SETTLED:
        parser.error(f'--steps must be {2 * SETTLED} or more')
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, os.path.abspath(__file__), f'--steps={arguments.steps}', f'--rank_in={folder}']
        start = mpiexec.ranks_of(arguments.mpi) if arguments.mpi > 1 else []
        with open(os.path.join(folder, 'output.txt'), 'w') as output, mpiexec.session() as environment:
            subprocess.run([*start, *command], env=environment, stdout=output, check=True)
        checkpoints = os.path.join(folder, 'run', 'policy', 'checkpoints')
        kept = sum(os.path.getsize(os.path.join(checkpoints, name)) for name in os.listdir(checkpoints))
        print(f'{len(os.listdir(checkpoints))} files of checkpoints, {kept / 2**20:.1f} MB')
        found = []
        for rank in range(arguments.mpi):
            with open(os.path.join(folder, f'rank{rank}.json')) as file:
                found += faults(np.array(json.load(file)), f'rank {rank}')
    if found:
        sys.exit('\n'.join(found))


if __name__ == '__main__':
    main()
