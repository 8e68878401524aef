"""The demo over several seeds, beside a choice model on words that learns from the same human choices.

    python benchmarks/demo_seeds.py SAVE_DIR [SEED …] [--FLAG=VALUE …]

Runs `launch.py train_policy demo seed-N` for each seed (1, 2 and 3), unless SAVE_DIR has it already, and prints mean
and range of every figure. Flags go to each run, as `--run.dtype=bfloat16 --rewards.train_new_model.run.dtype=bfloat16`.
"""

import json
import os
import subprocess
import sys
import time
from typing import List, Sequence

import numpy as np
import word_choice

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from lm_human_preferences import experiments  # noqa: E402
from lm_human_preferences.demo import data_set  # noqa: E402
from lm_human_preferences.hyperparameters import EvaluateHParams  # noqa: E402
from lm_human_preferences.language.trained_models import find_model  # noqa: E402
from lm_human_preferences.runs.run_folder import RESULTS_FILE  # noqa: E402

CHOICES, SEED = 800, EvaluateHParams().seed  # as the demo's evaluation has them
ROWS = [  # title, where the figure is (`tuned` stands for the fine-tuned policy), format
    ('reward model’s accuracy', ('reward_model', 'accuracy'), '.1%'),
    ('choice model on words, same labels', ('words_accuracy',), '.1%'),
    ('VADER’s accuracy', ('reward_model', 'judges', 'VADER'), '.1%'),
    ('score, initial', ('initial', 'judges', 'score', 'mean'), '.2f'),
    ('score, fine-tuned', ('tuned', 'judges', 'score', 'mean'), '.2f'),
    ('KL (nats)', ('tuned', 'kl'), '.1f'),
    ('better than initial: reward model', ('tuned', 'wins', 'score', 'share'), '.0%'),
    ('better than initial: VADER', ('tuned', 'wins', 'VADER', 'share'), '.0%'),
    ('better than initial: ridge regression', ('tuned', 'wins', 'ridge regression', 'share'), '.0%'),
    ('distinct words, initial', ('initial', 'distinct', '1'), '.0%'),
    ('distinct words, fine-tuned', ('tuned', 'distinct', '1'), '.0%'),
    ('minutes', ('minutes',), '.1f'),
]


def run(save_dir: str, seed: int, flags: List[str]) -> dict:
    """The figures of the demo with one seed, from its run folder where it is there."""
    folder = os.path.join(save_dir, f'seed-{seed}')
    path = os.path.join(folder, RESULTS_FILE)
    if not os.path.exists(path):
        command = [sys.executable, os.path.join(ROOT, 'launch.py'), 'train_policy', 'demo', f'seed-{seed}']
        command += [f'--save_dir={save_dir}', f'--run.seed={seed}', f'--rewards.train_new_model.run.seed={seed}']
        command += flags
        start = time.time()
        subprocess.run(command, check=True)
        minutes = (time.time() - start) / 60
        with open(path) as f:
            figures = dict(json.load(f), minutes=minutes)
        with open(path, 'w') as f:
            json.dump(figures, f, indent=1, sort_keys=True)
    with open(path) as f:
        figures = json.load(f)
    policies = figures['policies']['policies']
    return dict(figures, initial=policies['initial'], tuned=policies[f'seed-{seed}'])


def value(figures: dict, keys: Sequence[str]) -> float:
    """The figure that the keys lead to; not a number where there is none."""
    for key in keys:
        figures = figures.get(key, {})
    return np.nan if figures == {} else figures


def words_accuracy() -> float:
    """How often a logistic choice model on words and pairs of words picks what people rated highest."""
    (trial,) = experiments.load('demo').trials('train_reward', {})
    task, encoding = trial.hparams.task, find_model('demo').encoding()

    def choices(split, num, seed):
        labels = data_set.best_of_4_labels(split, num, encoding, task.query_length, task.response_length, seed)
        return word_choice.choices_of(labels, encoding)

    train = choices('train', trial.hparams.labels.num_train, 0)
    return word_choice.bag_of_words_choice_accuracy(
        train, choices('valid', CHOICES, SEED), choices('test', CHOICES, SEED)
    )


def main() -> None:
    flags = [argument for argument in sys.argv[2:] if argument.startswith('--')]
    seeds = [int(argument) for argument in sys.argv[2:] if argument not in flags] or [1, 2, 3]
    runs = [run(sys.argv[1], seed, flags) for seed in seeds]
    words = words_accuracy()
    print(f'{"the demo, seeds " + ", ".join(map(str, seeds)):40}{"mean":>8}{"least":>8}{"most":>8}')
    for title, key, form in ROWS:
        values = [value(dict(figures, words_accuracy=words), key) for figures in runs]
        cells = (np.mean(values), min(values), max(values))
        print(f'  {title:38}' + ''.join(f'{value:>8{form}}' for value in cells))


if __name__ == '__main__':
    main()
