"""Aliases and merges of YAML in definition files."""

import pytest

from lm_human_preferences import experiments
from lm_human_preferences.experiments.definitions import MOST_VALUES

TASK = 'task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}\n'


@pytest.mark.parametrize(
    'run, seed',
    [
        ('run: {seed: 3}', 3),
        ('description: &d {seed: 4}\nrun: *d', 4),
        ('description: &d {seed: 4, log_interval: 2}\nrun: {<<: *d, seed: 5}', 5),
        ('description: [&a {seed: 1}, &b {seed: 2}]\nrun: {<<: [*b, *a]}', 2),
        (f'description: [&a [{"x, " * 100}], {"*a, " * (MOST_VALUES // 101 - 2)}]\nrun: {{seed: 6}}', 6),
    ],
    ids=['none', 'alias', 'merge', 'first_of_two', 'many'],
)
def test_a_file_may_use_them(tmp_path, run, seed):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'{TASK}{run}\ntrain_policy: {{rewards: {{trained_model: test}}}}\n')
    (trial,) = experiments.load(str(path)).trials('train_policy', {})
    assert trial.hparams.run.seed == seed
