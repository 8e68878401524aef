"""The section `evaluate` of a user's own experiment: what happens when train_policy is finished."""

import json
import os

import pytest
from launching import launch

from lm_human_preferences.launcher.command_line import main

DEFINITION = """
run: {seed: 1, log_interval: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_policy:
  rewards: {trained_model: test}
  ppo: {batch_size: 16, total_episodes: 16, lr: 1e-2}
"""
KEPT = ['evaluation.json', 'policy', 'report.html', 'samples.jsonl', 'train_policy_hparams.json']


@pytest.fixture
def start(tmp_path, capsys):
    """A function that trains with a section `evaluate`, in this process; (standard output, standard error)."""

    def start(evaluate, name='run'):
        (tmp_path / 'mine.yaml').write_text(f'{DEFINITION}evaluate: {evaluate}\n')
        main(['train_policy', str(tmp_path / 'mine.yaml'), name, f'--save_dir={tmp_path}', '--mpi=1'])
        return capsys.readouterr()

    return start


def test_the_run_is_measured_once(start, tmp_path):
    output, _ = start('{num_queries: 8, batch_size: 4}')
    run = tmp_path / 'run'
    assert output.index('Samples after fine-tuning:') < output.index('Policies on 8 held-out queries')
    assert set(KEPT) < set(os.listdir(str(run)))
    results = json.loads((run / 'evaluation.json').read_text())
    assert list(results['policies']['policies']) == ['initial', 'run'] and results['policies']['queries'] == 8
    assert 'held-out' in (run / 'report.html').read_text()
    output, _ = start('{num_queries: 8, batch_size: 4}')
    assert 'this run is finished' in output and 'Policies on' not in output
    os.unlink(str(run / 'evaluation.json'))
    output, _ = start('{num_queries: 4}')
    assert 'this run is finished' in output and 'Policies on 4 held-out queries' in output


def test_a_run_that_cannot_be_measured_is_finished(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'{DEFINITION}evaluate: {{labels: {tmp_path}/nowhere.json, label_type: best_of_4}}\n')
    status, output, errors = launch('train_policy', path, 'run', f'--save_dir={tmp_path}', '--mpi=1')
    assert status == 0 and 'Samples after fine-tuning:' in output
    (line,) = errors.splitlines()
    assert line.startswith('note: the run is complete, but it could not be evaluated: ') and 'nowhere.json' in line
    kept = os.listdir(str(tmp_path / 'run'))
    assert 'report.html' in kept and 'evaluation.json' not in kept


@pytest.mark.parametrize(
    'evaluate, message',
    [
        ('{num_queries: 0}', 'evaluate: num_queries must be above 0, not 0'),
        ('{split: all}', "evaluate: split must be train, valid or test, not 'all'"),
        ('{queries: 8, num_queries: 8}', 'evaluate: num_queries is set twice'),
        ('{num_query: 8}', 'evaluate: no hyperparameter num_query: did you mean num_queries?'),
        ('{run: x}', 'evaluate: run cannot be set: the run is always the one that was trained'),
    ],
)
def test_bad_values_are_refused_before_anything_runs(start, tmp_path, capsys, evaluate, message):
    with pytest.raises(SystemExit) as end:
        start(evaluate)
    errors = capsys.readouterr().err
    assert end.value.code == 2 and errors == f'error: {tmp_path}/mine.yaml: {message}\n'
    assert os.listdir(str(tmp_path)) == ['mine.yaml']
