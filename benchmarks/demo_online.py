"""Compare offline and online data collection on the demo, with equally many labels (section 2.3 of the paper).

    python benchmarks/demo_online.py SAVE_DIR [SEED …]

Both kinds of run ask the same labeler: a ridge regression of held-out ratings by people. (The ratings themselves cannot
be used, since nobody rated the policy's texts.) Offline runs ask only about samples of the initial policy, before
training. Online runs (`launch.py train_policy demo_online`) ask mostly about samples of the policy in training.
Neither uses VADER, which serves as an independent judge. The benchmark makes one run of each kind for each seed
(default: 1, 2 and 3) that SAVE_DIR does not hold yet, and prints the mean and range of each figure.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Dict, List

import numpy as np
from measuring import ROOT

from lm_human_preferences import experiments
from lm_human_preferences.demo.judges import ridge_choice
from lm_human_preferences.evaluation.reward_models import label_rewards
from lm_human_preferences.hyperparameters import EvaluateHParams
from lm_human_preferences.language.run_models import run_policy, run_reward_model
from lm_human_preferences.method.inference import Responder
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import uniforms_of_samples
from lm_human_preferences.online import Schedule
from lm_human_preferences.runs.run_folder import RESULTS_FILE, RunFolder

NEW_MODEL = '--rewards.train_new_model'
QUESTIONS = 512
SEED = EvaluateHParams().seed
SAMPLES = [f'sample{i}' for i in range(4)]
ROWS = [
    ('labels', 'labels', '.0f'),
    ('ridge regression (the labeler), −4 to 4', 'ridge regression', '.2f'),
    ('VADER (not used in training), −1 to 1', 'VADER', '.2f'),
    ('KL from the initial policy (nats)', 'kl', '.1f'),
    ('distinct words', 'distinct', '.0%'),
    ('reward model agrees with the labeler', None, ''),
    ('  on samples of the initial policy', 'initial', '.1%'),
    ('  on samples of the fine-tuned policy', 'tuned', '.1%'),
]


def budget() -> int:
    """Return the number of labels that an online run uses."""
    (trial,) = experiments.load('demo_online').trials('train_policy', {})
    labels = trial.hparams.rewards.train_new_model.labels
    episodes = trial.hparams.ppo.total_episodes
    return Schedule(labels.schedule.num_initial, labels.num_train, labels.schedule.num_retrainings, episodes).budget


def run(save_dir: str, kind: str, seed: int, labels: int) -> str:
    """Return the folder of an offline or online run of the demo. Make the run if SAVE_DIR does not hold it."""
    folder = os.path.join(save_dir, f'{kind}-{seed}')
    if not os.path.exists(os.path.join(folder, RESULTS_FILE)):
        command = [sys.executable, os.path.join(ROOT, 'launch.py'), 'train_policy', 'demo_online', f'{kind}-{seed}']
        command += [f'--save_dir={save_dir}', f'--run.seed={seed}', f'{NEW_MODEL}.run.seed={seed}']
        if kind == 'offline':
            command += [f'{NEW_MODEL}.labels.num_train={labels}', f'{NEW_MODEL}.labels.schedule.num_initial={labels}']
        subprocess.run(command, check=True)
    return folder


def figures(folder: str, labels: int) -> Dict[str, float]:
    """Return the figures of a run."""
    with open(os.path.join(folder, RESULTS_FILE)) as file:
        tuned = json.load(file)['policies']['policies'][os.path.basename(folder)]
    judges = {name: tuned['judges'][name]['mean'] for name in ('ridge regression', 'VADER')}
    agreement = dict(initial=agreement_on(folder, 'ref_policy'), tuned=agreement_on(folder, 'policy'))
    return dict(judges, labels=labels, kl=tuned['kl'], distinct=tuned['distinct']['1'], **agreement)


def agreement_on(folder: str, savescope: str) -> float:
    """Return how often the reward model of a run and the labeler choose the same one of a policy's four samples."""
    run_folder = RunFolder(folder)
    policy = run_policy(run_folder, savescope)
    task = Task(run_folder.task, policy.encoding())
    queries = task.query_stream('test', SEED, Ranks()).next_batch(QUESTIONS)
    labels = {'query': queries}
    with Responder(policy, task, batch=64) as responder:
        for i, name in enumerate(SAMPLES):
            uniforms = uniforms_of_samples(SEED + i, range(QUESTIONS), task.hparams.response_length)
            labels[name] = responder.truncated(queries, uniforms)
    rewards = label_rewards(run_reward_model(run_folder), task, SAMPLES, labels, 64)
    texts = [[task.encoding.decode(labels[name][i]) for name in SAMPLES] for i in range(QUESTIONS)]
    chosen = np.array([ridge_choice('', four) for four in texts])
    return float(np.mean(rewards.argmax(axis=1) == chosen))


def cell(values: List[float], form: str) -> str:
    """Return the mean and range of a figure as a text."""
    least, most = min(values), max(values)
    spread = '' if least == most else f' ({least:{form}} to {most:{form}})'
    return f'{np.mean(values):{form}}{spread}'


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument('save_dir', help='folder of the runs; runs that are there are not made again')
    flags.add_argument('seeds', type=int, nargs='*', default=[1, 2, 3])
    flags = flags.parse_args()
    save_dir, seeds, labels = flags.save_dir, flags.seeds, budget()
    found = {
        kind: [figures(run(save_dir, kind, seed, labels), labels) for seed in seeds] for kind in ('offline', 'online')
    }
    print(f'{"the demo, seeds " + ", ".join(map(str, seeds)):42}{"offline":>26}{"online":>26}')
    for title, key, form in ROWS:
        cells = [cell([run_figures[key] for run_figures in found[kind]], form) if key else '' for kind in found]
        print(f'  {title:40}' + ''.join(f'{text:>26}' for text in cells))


if __name__ == '__main__':
    main()
