"""Fields that were renamed: their old names work as flags, in experiment files and in the files of earlier runs."""

import glob
import json
import os

import pytest

from lm_human_preferences.hyperparameters import EvaluateHParams, LabelPageHParams, LabelScheduleHParams
from lm_human_preferences.launcher.command_line import main

OLD_SCHEDULE = '{initial: 8, retrainings: 1, ahead: 0, people: 3'
DEFINITION = """
run: {seed: 1, log_interval: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels:
    type: best_of_4
    source: labeler
    num_train: 24
    schedule: SCHEDULE, labeler: 'renamed_fields_labeler:first'}
  batch_size: 8
train_policy: {ppo: {batch_size: 16, total_episodes: 32}}
train_lm: {dataset: 'text:DIR/lines.txt', model: {n_vocab: 265, n_ctx: 12, n_embd: 8, n_head: 2, n_layer: 1},
  sequence_length: 10, batch_size: 8}
"""


@pytest.mark.parametrize(
    'tree, renames',
    [
        (EvaluateHParams, {'queries': 'num_queries', 'checkpoints': 'num_checkpoints', 'part': 'split'}),
        (
            LabelPageHParams,
            {'num': 'num_questions', 'people': 'num_people', 'queries': 'query_dataset', 'mode': 'split'},
        ),
        (
            LabelScheduleHParams,
            {
                'initial': 'num_initial',
                'retrainings': 'num_retrainings',
                'ahead': 'num_ahead',
                'people': 'num_people',
            },
        ),
    ],
)
def test_old_names_mean_the_new_fields(tree, renames):
    for old, new in renames.items():
        value = 'valid' if new == 'split' else 'books' if new == 'query_dataset' else '7'
        one, other = tree(), tree()
        one.override_from_str_dict({old: value})
        other.override_from_str_dict({new: value})
        assert one == other != tree()
        with pytest.raises(ValueError, match=f'{new} is set twice: as {old} and as {new}'):
            tree().override_from_str_dict({old: value, new: value})


def test_both_names_as_flags_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(['evaluate', '/nowhere', '--queries=4', '--num_queries=4'])
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: num_queries is set twice: as queries and as num_queries\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / 'renamed_fields_labeler.py').write_text('def first(query, samples):\n    return 0\n')
    (tmp_path / 'lines.txt').write_text('we saw a cat.\na cat saw us.\nwe are here.\n' * 100)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def launch(folder, command, schedule, *flags):
    path = folder / 'tiny.yaml'
    path.write_text(DEFINITION.replace('SCHEDULE', schedule).replace('DIR', str(folder)))
    main([command, str(path), command, f'--save_dir={folder}', '--mpi=1', *flags])


def with_old_names(group, renames):
    return {renames.get(name, name): value for name, value in group.items()}


def rewrite(run, change):
    """Change the hyperparameters in all files of a run."""
    changed = 0
    for path in glob.glob(os.path.join(str(run), '**', '*.json'), recursive=True):
        with open(path) as file:
            content = json.load(file)
        if path.endswith('_hparams.json'):
            changed += change(content)
        elif 'state-' in path:
            changed += change(content.get('hparams', {}))
            content.pop('checksum')  # that version had none, and only the sizes of files
            content['files'] = {name: file['size'] for name, file in content['files'].items()}
        with open(path, 'w') as file:
            json.dump(content, file)
    assert changed >= 2


def test_a_run_begun_under_the_old_names_resumes(folder, capsys):
    launch(folder, 'train_policy', OLD_SCHEDULE)

    def change(hparams):
        labels = ((hparams.get('rewards') or {}).get('train_new_model') or {}).get('labels') or {}
        if not labels.get('schedule'):
            return 0
        renames = {f'num_{name}': name for name in ('initial', 'retrainings', 'ahead', 'people')}
        labels['schedule'] = with_old_names(labels['schedule'], renames)
        assert set(renames.values()) < set(labels['schedule'])
        return 1

    rewrite(folder / 'train_policy', change)
    capsys.readouterr()
    new_schedule = '{num_initial: 8, num_retrainings: 1, num_ahead: 0, num_people: 3'
    launch(folder, 'train_policy', new_schedule, '--ppo.total_episodes=48')
    output = capsys.readouterr().out
    assert 'step 3/3' in output and 'step 2/3' not in output


def test_a_run_begun_with_the_dropout_rate_of_the_head_resumes(folder, capsys):
    launch(folder, 'train_lm', OLD_SCHEDULE)

    def change(hparams):
        if 'model' in hparams:
            hparams['model']['head_pdrop'] = 0.1
        return 'model' in hparams

    rewrite(folder / 'train_lm', change)
    capsys.readouterr()
    launch(folder, 'train_lm', OLD_SCHEDULE, '--epochs=2')
    output = capsys.readouterr().out
    assert 'epoch 2/2' in output and 'epoch 1/2' not in output
