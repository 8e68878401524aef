"""The content of a run's folder, even if the run was trained elsewhere and moved."""

import json
import os
import shutil

import numpy as np
import pytest

from lm_human_preferences import train_policy
from lm_human_preferences.language.run_models import run_policy, run_reward_model
from lm_human_preferences.runs.run_folder import RunFolder
from lm_human_preferences.utils.json_files import read_json


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of a run with a new reward model, by a call of the library."""
    folder = str(tmp_path_factory.mktemp('runs') / 'one')
    hparams = train_policy.HParams()
    task = {'query_length': 2, 'response_length': 3, 'query_dataset': 'test', 'policy': {'initial_model': 'test'}}
    labels = {'type': 'best_of_4', 'num_train': 8, 'source': 'test'}
    new_model = {'task': task, 'labels': labels, 'batch_size': 8}
    hparams.override_from_nested_dict(
        {
            'run': {'seed': 1, 'save_dir': folder},
            'task': task,
            'rewards': {'train_new_model': new_model},
            'ppo': {'batch_size': 8, 'total_episodes': 8},
        }
    )
    train_policy.train(hparams)
    return folder


def weights(trained):
    return trained.arrays()['model/heads/reward/w']


def test_a_library_call_leaves_what_a_command_leaves(run):
    files = ['policy', 'reward_model', 'samples.jsonl', 'tb', 'train_policy_hparams.json', 'train_reward_hparams.json']
    assert sorted(os.listdir(run)) == files
    assert RunFolder(run).hparams.ppo.total_episodes == 8 and RunFolder(run).reward_hparams.labels.num_train == 8
    assert read_json(os.path.join(run, 'train_reward_hparams.json'))['labels']['num_train'] == 8


def test_a_run_of_2019_that_was_moved(run, tmp_path):
    """It holds both how the new reward model was trained, and the folder where it was put."""
    moved = str(tmp_path / 'moved')
    shutil.copytree(run, moved)
    path = os.path.join(moved, 'train_policy_hparams.json')
    hparams = read_json(path)
    hparams['rewards']['trained_model'] = '/gone/reward_model'
    for train_new_model in (hparams['rewards']['train_new_model'], None):
        hparams['rewards']['train_new_model'] = train_new_model
        with open(path, 'w') as file:
            json.dump(hparams, file)
        found, expected = (weights(run_reward_model(RunFolder(folder))) for folder in (moved, run))
        np.testing.assert_array_equal(found, expected)
    shutil.rmtree(os.path.join(moved, 'reward_model'))
    with pytest.raises(FileNotFoundError, match='no model at /gone/reward_model'):
        run_reward_model(RunFolder(moved))


def test_a_scalar_that_we_do_not_know_is_passed_over_with_a_note_and_a_group_is_refused(run, tmp_path, capsys):
    hparams = read_json(os.path.join(run, 'train_policy_hparams.json'))
    hparams['ppo']['ratio_threshold'] = 10.0
    hparams['rewards']['train_new_model']['run']['track'] = None
    for task in (hparams['task'], hparams['rewards']['train_new_model']['task']):
        task['start_text'] = ''
    path = tmp_path / 'train_policy_hparams.json'
    path.write_text(json.dumps(hparams))
    assert RunFolder(str(tmp_path)).hparams.ppo.batch_size == 8
    assert RunFolder(str(tmp_path)).task.start_text is None
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f'note: {path}: {name} is unknown and has no effect'
        for name in ('ppo.ratio_threshold', 'rewards.train_new_model.run.track')
    ]
    hparams['horovod'] = {'size': 8}
    path.write_text(json.dumps(hparams))
    with pytest.raises(ValueError, match='no hyperparameter horovod'):
        RunFolder(str(tmp_path))


def test_paths_below_the_users_home(run, monkeypatch):
    """A shell does not expand --save_dir=~/run."""
    monkeypatch.setenv('HOME', os.path.dirname(run))
    found = RunFolder('~/one')
    assert run_policy(found).folder == os.path.join(run, 'policy')
    assert weights(run_reward_model(found)).shape == (7,)
