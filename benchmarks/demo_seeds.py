"""Run the demo with several seeds, and compare its reward model with a choice model on words.

    python benchmarks/demo_seeds.py SAVE_DIR [SEED …] [--torch-python P --encoder FOLDER] [--FLAG=VALUE …]

Runs `launch.py train_policy demo seed-N` for each seed (default 1 to 5) that SAVE_DIR does not have yet. Flags are
passed to each run, for example --run.dtype=bfloat16 --rewards.train_new_model.run.dtype=bfloat16. Each row of the table
is a result of the demo's evaluation; its columns are the mean over the seeds with its 95 % interval (Student's t: the
trials are the seeds), the minimum and the maximum. A figure that no seed changes has no interval. "better than initial"
is how often a judge scores the fine-tuned policy higher than the initial one. The row "choice model on words, same
labels" is the accuracy of a logistic choice model on words and word pairs, trained on the same labels.

With --torch-python and --encoder, a judge that counts no words compares the responses, too (embedding_judge.py): P is a
Python with torch and transformers, FOLDER that of its sentence encoder. Below the table stands how well each judge
orders real snippets: the correlation of its scores with people's ratings of the test snippets.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import List, Sequence

import numpy as np
from measuring import ROOT
from word_choice import bag_of_words_choice_accuracy, choices_of, judge_correlation

from lm_human_preferences import experiments
from lm_human_preferences.demo import data_set
from lm_human_preferences.demo.snippets import snippets
from lm_human_preferences.evaluate import measure_policies
from lm_human_preferences.evaluation.intervals import mean_interval
from lm_human_preferences.hyperparameters import EvaluateHParams
from lm_human_preferences.language.run_models import run_reward_model
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.runs.run_folder import RESULTS_FILE, RunFolder

CHOICES, SEED = 800, EvaluateHParams().seed  # as in the demo's evaluation
ROWS = [  # title, keys of the result (`tuned` is the fine-tuned policy), format
    ('reward model’s accuracy', ('reward_model', 'accuracy'), '.1%'),
    ('choice model on words, same labels', ('words_accuracy',), '.1%'),
    ('VADER’s accuracy', ('reward_model', 'judges', 'VADER'), '.1%'),
    ('score, initial', ('initial', 'judges', 'score', 'mean'), '.2f'),
    ('score, fine-tuned', ('tuned', 'judges', 'score', 'mean'), '.2f'),
    ('KL (nats)', ('tuned', 'kl'), '.1f'),
    ('better than initial: reward model', ('tuned', 'wins', 'score', 'share'), '.0%'),
    ('better than initial: VADER', ('tuned', 'wins', 'VADER', 'share'), '.0%'),
    ('better than initial: ridge regression', ('tuned', 'wins', 'ridge regression', 'share'), '.0%'),
    ('better than initial: embeddings', ('embeddings', 'wins', 'embeddings', 'share'), '.0%'),
    ('distinct words, initial', ('initial', 'distinct', '1'), '.0%'),
    ('distinct words, fine-tuned', ('tuned', 'distinct', '1'), '.0%'),
    ('responses that end in time', ('tuned', 'valid'), '.0%'),
    ('minutes', ('minutes',), '.1f'),
]


def run(save_dir: str, seed: int, flags: List[str]) -> dict:
    """Return the results of the demo with one seed; run it if SAVE_DIR does not have it."""
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
    """Return the result under nested keys; NaN if there is none."""
    for key in keys:
        figures = figures.get(key, {})
    return np.nan if figures == {} else figures


def table_row(title: str, values: Sequence[float], form: str) -> str:
    """Return a row of the table: the mean of a figure of several seeds, the mean's interval, minimum and maximum."""
    interval = mean_interval(values) if min(values) < max(values) else None
    between = '–'.join(format(bound, form) for bound in interval) if interval else ''
    return f'  {title:38}{np.mean(values):>8{form}}{between:>16}{min(values):>8{form}}{max(values):>8{form}}'


def words_accuracy() -> float:
    """Return the accuracy of a logistic choice model on words and word pairs: how often it picks what people did."""
    (trial,) = experiments.load('demo').trials('train_reward', {})
    task, encoding = trial.hparams.task, find_model('demo').encoding()

    def choices(split, num, seed):
        labels = data_set.best_of_4_labels(split, num, encoding, task.query_length, task.response_length, seed)
        return choices_of(labels, encoding)

    train = choices('train', trial.hparams.labels.num_train, 0)
    return bag_of_words_choice_accuracy(train, choices('valid', CHOICES, SEED), choices('test', CHOICES, SEED))


class EmbeddingJudge:
    """The judge of embedding_judge.py, in a process of its own for each call."""

    def __init__(self, python: str, encoder: str):
        self._command = [python, os.path.join(ROOT, 'benchmarks', 'embedding_judge.py'), encoder]
        self._rated = [[s.text, s.rating] for s in snippets('judge')]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the predicted ratings of texts [n]."""
        given = json.dumps({'rated': self._rated, 'texts': list(texts)})
        done = subprocess.run(self._command, input=given, stdout=subprocess.PIPE, text=True, check=True)
        return np.array(json.loads(done.stdout))

    def compare(self, folder: str) -> dict:
        """Return the figures of the fine-tuned policy of a run, by this judge."""
        run = RunFolder(folder)
        hparams = EvaluateHParams(run=folder)
        found = measure_policies(run, run_reward_model(run), hparams, None, judges={'embeddings': self})
        return found['policies'][os.path.basename(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog='Other flags are those of train_policy.'
    )
    parser.add_argument('save_dir', help='folder of the runs; runs that are there are not made again')
    parser.add_argument('seeds', type=int, nargs='*', default=[1, 2, 3, 4, 5])
    parser.add_argument('--torch-python', help='a Python with torch and transformers, for the judge by embeddings')
    parser.add_argument('--encoder', help='the folder of its sentence encoder')
    given, others = parser.parse_known_intermixed_args()
    if (given.torch_python is None) != (given.encoder is None):
        parser.error('--torch-python and --encoder belong together: give both, or neither')
    seeds = given.seeds
    runs = [run(given.save_dir, seed, others) for seed in seeds]
    judges, rows = data_set.judges(), ROWS
    if given.torch_python:
        judges['embeddings'] = judge = EmbeddingJudge(given.torch_python, given.encoder)
        for seed, figures in zip(seeds, runs):
            figures['embeddings'] = judge.compare(os.path.join(given.save_dir, f'seed-{seed}'))
    else:
        rows = [row for row in ROWS if 'embeddings' not in row[1]]
    words = words_accuracy()
    print(f'{"the demo, seeds " + ", ".join(map(str, seeds)):40}{"mean":>8}{"95 % interval":>16}{"min":>8}{"max":>8}')
    for title, key, form in rows:
        print(table_row(title, [value(dict(figures, words_accuracy=words), key) for figures in runs], form))
    print("correlation with people's ratings of real snippets:")
    for name, judge in judges.items():
        print(f'  {name:38}{judge_correlation(judge):8.2f}')


if __name__ == '__main__':
    main()
