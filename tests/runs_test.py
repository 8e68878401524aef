"""The command line with real runs: as one process and as ranks of MPI."""

import json
import os

import numpy as np
import pytest
from launching import launch, launch_anew

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.runs.checkpoints import latest_checkpoint

DEFINITION = """
description: tiny runs on the built-in names
run: {seed: 1, log_interval: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels: {type: best_of_4, source: LABELS, num_train: 32}
  batch_size: 8
  lr: 1e-2
train_policy:
  ppo: {batch_size: 16, total_episodes: 48, lr: 1e-2}
"""


@pytest.fixture
def experiment(tmp_path):
    """An experiment of the user's own, with labels of the user's own."""
    random = np.random.RandomState(0)
    labels = []
    for _ in range(32):
        label = {f'sample{i}': random.randint(0, 27, 3).tolist() for i in range(4)}
        labels.append(dict(label, query=random.randint(0, 27, 2).tolist(), best=int(random.randint(4))))
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    path = tmp_path / 'tiny.yaml'
    path.write_text(DEFINITION.replace('LABELS', str(tmp_path / 'labels.json')))
    return path


def parameters(folder):
    reader = tf.train.load_checkpoint(latest_checkpoint(folder))
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if 'adam' not in name.lower()}


def assert_same(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=1e-5, err_msg=name)


def test_both_steps_and_samples(experiment, tmp_path):
    reward, policy = tmp_path / 'reward', tmp_path / 'policy'
    assert launch('train_reward', experiment, 'r-1911190400', f'--save_dir={reward}')[0] == 0
    trained = reward / 'r-1911190400'
    flags = ['--rewards.trained_model', trained, '--rewards.train_new_model', 'off']
    status, output, errors = launch('train_policy', experiment, 'group/p', f'--save_dir={policy}', *flags)
    assert (status, errors) == (0, '')
    assert 'Samples after fine-tuning:' in output
    run = policy / 'group' / 'p'
    names = ['policy', 'report.html', 'samples.jsonl', 'tb', 'train_policy_hparams.json']
    assert sorted(name for name in os.listdir(str(run)) if not name.startswith('.')) == names
    saved = json.loads((run / 'train_policy_hparams.json').read_text())
    assert saved['rewards']['trained_model'] == str(trained) and saved['ppo']['batch_size'] == 16
    status, output, errors = launch_anew(
        'sample', '--save_dir', run, '--savescope', 'policy', '--mpi', 1, '--nsamples=3'
    )
    assert (status, errors, output.count('▸')) == (0, '', 3)


def test_a_language_model_is_trained_and_then_fine_tuned(experiment, tmp_path):
    text = tmp_path / 'lines.txt'
    text.write_text('we saw a cat.\na cat saw us.\nwe are here.\n' * 100)
    section = f"""
train_lm:
  dataset: text:{text}
  model: {{n_vocab: 265, n_ctx: 12, n_embd: 8, n_head: 2, n_layer: 1}}
  sequence_length: 10
  batch_size: 8
"""
    experiment.write_text(experiment.read_text() + section)
    status, output, errors = launch('train_lm', experiment, 'lm', f'--save_dir={tmp_path}')
    assert (status, errors) == (0, '') and 'held-out loss' in output
    flags = [
        f'--task.policy.initial_model={tmp_path}/lm',
        f'--task.query_dataset=text:{text}',
        '--task.start_text=None',
    ]
    flags += ['--rewards.train_new_model.labels.source=test', f'--save_dir={tmp_path}']
    status, output, errors = launch('train_policy', experiment, 'tuned', *flags)
    assert (status, errors) == (0, ''), errors
    # The vocabulary of its own goes along.
    names = ['checkpoints', 'encoder.json', 'encoding', 'hparams.json', 'vocab.bpe']
    assert sorted(os.listdir(str(tmp_path / 'tuned' / 'policy'))) == names


def test_a_sweep_makes_a_folder_for_each_trial(experiment, tmp_path):
    experiment.write_text(experiment.read_text().replace('train_policy:', '  sweep: {lr: [1e-2, 1e-3]}\ntrain_policy:'))
    assert launch('train_reward', experiment, 'sweep', f'--save_dir={tmp_path}')[0] == 0
    assert sorted(os.listdir(str(tmp_path / 'sweep'))) == ['lr0.001', 'lr0.01']


@pytest.mark.slow
def test_two_ranks_train_the_same_reward_model_as_one(experiment, tmp_path):
    for ranks in (1, 2):
        status, _, errors = launch('train_reward', experiment, f'on{ranks}', f'--save_dir={tmp_path}', f'--mpi={ranks}')
        assert status == 0, errors
    one, two = (parameters(str(tmp_path / f'on{ranks}' / 'reward_model')) for ranks in (1, 2))
    assert_same(one, two)


@pytest.mark.slow
def test_two_ranks_fine_tune_and_sample(experiment, tmp_path):
    flags = [
        f'--save_dir={tmp_path}',
        '--mpi=2',
        '--rewards.trained_model=test',
        '--rewards.train_new_model=off',
    ]
    status, output, errors = launch('train_policy', experiment, 'two', *flags)
    assert status == 0, errors
    assert output.count('step 3/3') == 1  # the first rank alone prints
    status, output, errors = launch('sample', f'--save_dir={tmp_path / "two"}', '--mpi=2', '--nsamples=4')
    assert (status, output.count('▸')) == (0, 4), errors


@pytest.mark.parametrize('ranks', [1, 2])
def test_an_error_in_a_run_is_one_line(experiment, tmp_path, ranks):
    flags = [f'--save_dir={tmp_path}', f'--mpi={ranks}', f'--task.policy.initial_model={tmp_path}/nowhere']
    status, _, errors = launch('train_reward', experiment, 'run', *flags)
    assert status == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: no model at ') and 'nowhere' in lines[0]


def test_sampling_needs_a_run(tmp_path):
    status, _, errors = launch_anew('sample', f'--save_dir={tmp_path}', '--nsamples=1')
    assert status == 2 and 'not the folder of a run' in errors and len(errors.splitlines()) == 1
