"""A folder of checkpoints never shows an incomplete one, at whatever moment its writer is killed."""

import json
import os
import subprocess
import sys

import killed_saves
import pytest
from killed_saves import STATE, save

from lm_human_preferences.runs.checkpoint_files import last_state, latest_checkpoint, new_checkpoint, recover, resume_at
from lm_human_preferences.utils.errors import UserError


def files(folder):
    return sorted(os.listdir(os.path.join(folder, 'checkpoints')))


def files_of(*steps):
    names = ['checkpoint'] + [f'state-{step}.json' for step in steps]
    names += [f'model.ckpt-{step}.{suffix}' for step in steps for suffix in ('data-00000-of-00001', 'index')]
    return sorted(names)


def test_old_checkpoints_are_removed_when_the_new_one_is_complete(tmp_path):
    folder = str(tmp_path)
    for step in range(2, 12, 2):
        save(folder, step)
    assert files(folder) == files_of(6, 8, 10)
    assert latest_checkpoint(folder) == str(tmp_path / 'checkpoints' / 'model.ckpt-10')
    assert last_state(folder)['step'] == 10 and last_state(folder)['seed'] == 7
    pointer = (tmp_path / 'checkpoints' / 'checkpoint').read_text()
    assert pointer.splitlines() == ['model_checkpoint_path: "model.ckpt-10"'] + [
        f'all_model_checkpoint_paths: "model.ckpt-{step}"' for step in (6, 8, 10)
    ]


def killed_everywhere(tmp_path, action):
    """Do `save` or `resume` in copies of a folder, killed before each system call in turn; return the copies."""
    for step in (1, 2, 3):
        save(str(tmp_path / '0'), step)
    subprocess.run([sys.executable, killed_saves.__file__, str(tmp_path), action], check=True)
    return [str(tmp_path / str(number)) for number in range(1, len(os.listdir(str(tmp_path))))]


def test_a_save_killed_at_any_system_call_leaves_the_last_or_the_new_checkpoint(tmp_path):
    left = []
    for folder in killed_everywhere(tmp_path, 'save'):
        assert last_state(folder)['step'] in (3, 4)
        shown = latest_checkpoint(folder)  # to those who may not change the folder
        assert shown.endswith(('model.ckpt-3', 'model.ckpt-4'))
        # The run resumes.
        step = recover(folder)['step']
        resume_at(folder, step)
        path = latest_checkpoint(folder)
        assert path.endswith(f'model.ckpt-{step}')
        for suffix in ('.data-00000-of-00001', '.index'):
            with open(path + suffix) as file:
                assert file.read() == f'{step}' * 10
        left.append(step)
        # After its next save, the leftovers of the kill are gone, and nothing else.
        assert last_state(folder)['step'] == step
        save(folder, 5)
        assert files(folder) == files_of(*((2, 3, 5) if step == 3 else (3, 4, 5)))
    assert left == sorted(left) and set(left) == {3, 4}
    assert left.count(3) > 20  # it was interrupted at many points


def test_saving_a_step_again_in_more_files_is_killed_too(tmp_path):
    data_files = []
    for folder in killed_everywhere(tmp_path, 'save_again'):
        assert last_state(folder)['step'] in (2, 3)  # before the save is finished, the one before it counts
        state = recover(folder)
        resume_at(folder, 3)
        assert state['step'] == 3 and latest_checkpoint(folder).endswith('model.ckpt-3')
        data_files.append(len(state['files']) - 1)
        assert [name for name in files(folder) if name.startswith('model.ckpt-3.')] == sorted(state['files'])
    assert data_files == sorted(data_files) and set(data_files) == {1, 2}


def test_resuming_killed_at_any_system_call_loses_nothing(tmp_path):
    folders = killed_everywhere(tmp_path, 'resume')
    assert all(last_state(folder)['step'] == 3 for folder in folders)
    assert len(folders) > 5


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: os.unlink(path + '.index'),
        lambda path: os.unlink(path + '.data-00000-of-00001'),
        lambda path: os.truncate(path + '.data-00000-of-00001', 5),
        lambda path: os.truncate(path.replace('model.ckpt-9', 'state-9.json'), 5),
    ],
)
def test_an_incomplete_checkpoint_is_passed_over(tmp_path, damage):
    folder = str(tmp_path)
    for step in (7, 8, 9):
        save(folder, step)
    damage(latest_checkpoint(folder))
    assert latest_checkpoint(folder).endswith('model.ckpt-8')
    assert last_state(folder)['step'] == 8
    # A run that resumes from there replaces it.
    resume_at(folder, 8)
    assert last_state(folder)['step'] == 8
    save(folder, 9)
    assert latest_checkpoint(folder).endswith('model.ckpt-9')
    assert files(folder) == files_of(7, 8, 9)


def test_a_shard_that_is_missing_makes_a_checkpoint_incomplete(tmp_path):
    (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "/moved/model.ckpt"\n')
    for name in ('model.ckpt.index', 'model.ckpt.data-00000-of-00002', 'model.ckpt.data-00001-of-00002'):
        with pytest.raises(FileNotFoundError, match='no TensorFlow checkpoint'):
            latest_checkpoint(str(tmp_path))
        (tmp_path / name).write_text('x')
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'model.ckpt')


@pytest.mark.parametrize('fault', ['no state', 'nothing whole'])
def test_checkpoints_of_no_run_are_not_overwritten(tmp_path, fault):
    folder = str(tmp_path)
    save(folder, 3)
    name = 'state-3.json' if fault == 'no state' else 'model.ckpt-3.index'
    os.unlink(os.path.join(folder, 'checkpoints', name))
    before = files(folder)
    for attempt in (last_state, recover):
        with pytest.raises(UserError, match='no run can resume from these checkpoints'):
            attempt(folder)
    assert files(folder) == before


def test_an_error_while_saving_leaves_everything_as_it_was(tmp_path):
    folder = str(tmp_path)
    save(folder, 1)
    bad = dict(STATE, kl_coef=float('nan'))
    with pytest.raises(ValueError, match='cannot be saved: kl_coef is nan'), new_checkpoint(folder, 2, bad, 3) as path:
        for suffix in ('.data-00000-of-00001', '.index'):
            with open(path + suffix, 'w') as file:
                file.write('2')
    assert files(folder) == files_of(1)
    assert json.loads((tmp_path / 'checkpoints' / 'state-1.json').read_text())['step'] == 1
