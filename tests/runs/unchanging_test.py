"""Checkpoints share the file of what does not change, and each is complete by itself."""

import glob
import os
import shutil

import numpy as np
import pytest

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.runs import unchanging
from lm_human_preferences.runs.checkpoint_files import last_state, latest_checkpoint, recover, resume_at
from lm_human_preferences.runs.checkpoints import CheckpointWriter

STATE = {'seed': 7, 'positions': [3], 'ranks': 1, 'hparams': {'run': {'seed': 7}}}
FIXED = np.arange(5.0)


class Saves:
    """A model whose variable `fixed/a` never changes, and whose `trained/b` is the number of the step."""

    def __init__(self, session):
        self._session = session
        self._fixed = tf.get_variable('fixed/a', initializer=FIXED, use_resource=True)
        self._trained = tf.get_variable('trained/b', initializer=np.zeros(3), use_resource=True)
        session.run(tf.global_variables_initializer())

    def writer(self, folder):
        """Return a new writer, as a new process has."""
        return CheckpointWriter(
            folder, [self._fixed, self._trained], keep=20, unchanging=lambda v: v.name.startswith('fixed/')
        )

    def save(self, writer, step, alone=False):
        self._trained.load(np.full(3, float(step)), self._session)
        writer.save(self._session, step, STATE, alone)


@pytest.fixture
def saves():
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        yield Saves(session)


def shared(folder, step):
    return os.path.join(folder, 'checkpoints', f'model.ckpt-{step}.data-00001-of-00002')


def inodes(folder):
    """Return the number of different files of unchanging variables, from the first checkpoint to the last."""
    paths = glob.glob(shared(glob.escape(folder), '*'))
    steps = sorted(int(path.split('model.ckpt-')[1].split('.')[0]) for path in paths)
    return [os.stat(shared(folder, step)).st_ino for step in steps]


def check(folder, step):
    reader = tf.train.load_checkpoint(os.path.join(folder, 'checkpoints', f'model.ckpt-{step}'))
    assert sorted(reader.get_variable_to_shape_map()) == ['fixed/a', 'trained/b']
    np.testing.assert_array_equal(reader.get_tensor('fixed/a'), FIXED)
    np.testing.assert_array_equal(reader.get_tensor('trained/b'), [step] * 3)


def test_each_checkpoint_is_complete_by_itself(saves, tmp_path):
    folder = str(tmp_path / 'policy')
    writer = saves.writer(folder)
    for step in range(1, 24):
        saves.save(writer, step, alone=step == 23)
    found = inodes(folder)  # of the checkpoints 4 to 22, since 20 are kept
    assert len(found) == 19 and [found.count(inode) for inode in dict.fromkeys(found)] == [7, 10, 2]
    assert os.path.exists(os.path.join(folder, 'checkpoints', 'model.ckpt-23.data-00000-of-00001'))
    for step in range(4, 24):
        check(folder, step)
    for step in range(4, 22):  # one after another can be removed
        for path in glob.glob(os.path.join(folder, 'checkpoints', f'*-{step}.*')):
            os.unlink(path)
    check(folder, 22)
    # A copy has files of its own.
    copied = shutil.copytree(folder, str(tmp_path / 'copied'))
    assert os.stat(shared(copied, 22)).st_nlink == 1 and last_state(copied)['step'] == 23
    check(copied, 22)


def test_a_new_process_writes_a_new_file(saves, tmp_path):
    folder = str(tmp_path)
    for first in (1, 3):
        writer = saves.writer(folder)
        for step in (first, first + 1):
            saves.save(writer, step)
    assert inodes(folder)[0] == inodes(folder)[1] != inodes(folder)[2] == inodes(folder)[3]


def flip(path):
    with open(path, 'r+b') as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize('harm', [flip, os.unlink, lambda path: os.truncate(path, 3)])
def test_a_file_that_is_not_what_was_written_is_not_shared(saves, tmp_path, harm):
    folder = str(tmp_path)
    writer = saves.writer(folder)
    for step in (1, 2):
        saves.save(writer, step)
    harm(shared(folder, 2))
    saves.save(writer, 3)
    saves.save(writer, 4)
    check(folder, 3)
    assert inodes(folder)[-1] == inodes(folder)[-2] and last_state(folder)['step'] == 4
    os.unlink(shared(folder, 4))
    os.unlink(shared(folder, 3))
    harmed = harm is not os.unlink
    if harmed:  # all that share the harmed file are passed over
        saves.save(saves.writer(folder), 5)
        flip(shared(folder, 5))
        with pytest.raises(Exception, match='no run can resume from these checkpoints'):
            last_state(folder)
    else:
        assert last_state(folder)['step'] == 1


def test_without_hard_links_it_is_written_each_time(saves, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(unchanging.os, 'link', refuse)
    writer = saves.writer(str(tmp_path))
    for step in (1, 2, 3):
        saves.save(writer, step)
        check(str(tmp_path), step)
    assert len(set(inodes(str(tmp_path)))) == 3


@pytest.mark.parametrize('alone', [False, True])
def test_a_step_is_saved_again_in_another_number_of_files(saves, tmp_path, alone, capsys):
    """The newest checkpoint is damaged, and the run resumes from the one before."""
    folder = str(tmp_path)
    writer = saves.writer(folder)
    for step in (1, 2):
        saves.save(writer, step, alone)
    flip(latest_checkpoint(folder) + '.index')
    assert recover(folder)['step'] == 1
    resume_at(folder, 1)
    saves.save(saves.writer(folder), 2, not alone)
    assert last_state(folder)['step'] == 2 and latest_checkpoint(folder).endswith('model.ckpt-2')
    check(folder, 2)
    shards = ['00000-of-00002', '00001-of-00002'] if alone else ['00000-of-00001']
    found = glob.glob(os.path.join(glob.escape(folder), 'checkpoints', 'model.ckpt-2.data-*'))
    assert sorted(path.split('data-')[1] for path in found) == shards
