"""Checkpoints of OpenAI's GPT-2 and of either TensorFlow load; broken ones are refused in one line."""

import os
import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT, TESTS
from small_models import SMALL, save_small, write_gpt2

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import TrainedModel, save_model_folder
from lm_human_preferences.runs.checkpoints import CheckpointWriter


@pytest.mark.slow
def test_a_gpt2_of_124m_in_openais_layout_loads(tmp_path):
    values = write_gpt2(str(tmp_path), n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12)
    trained = TrainedModel(str(tmp_path))
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Model(trained.hparams, scope='policy/model', heads=['value'])
        loaded = trained.load(session, model)
        assert len(loaded) == 148  # 12 variables in each of 12 blocks, and 4 more
        assert sum(v.shape.num_elements() for v in loaded) == 124439808
        for name, expected in values.items():
            np.testing.assert_array_equal(session.run(model.variables[name]), expected, name)
        session.run([v.initializer for name, v in model.variables.items() if name.startswith('heads/')])
        logits = model.logits(model(tf.constant([[50256, 1, 2]])).hidden)
        assert session.run(logits).shape == (1, 3, 50257)


LOAD_AND_PRINT = """
import sys
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.graph.tf_versions import new_session, tf
trained = TrainedModel(sys.argv[1])
with tf.Graph().as_default() as graph, new_session(graph) as session:
    model = Model(trained.hparams, scope='other', heads=['value'])
    trained.load(session, model, heads=['value'])
    logits = model.logits(model(tf.constant([[1, 2, 3]])).hidden)
    logits, value = session.run((logits, model.variables['heads/value/w']))
    print(tf.__version__, *logits.ravel(), *value)
"""

SAVE = """
import sys
sys.path.insert(0, sys.argv[2])
from small_models import save_small
save_small(sys.argv[1])
"""


def numbers_loaded_by(python, folder):
    env = dict(os.environ, PYTHONPATH=ROOT)
    done = subprocess.run([python, '-c', LOAD_AND_PRINT, folder], env=env, stdout=subprocess.PIPE, check=True)
    version, *numbers = done.stdout.decode().split()
    return version, np.array(numbers, float)


def test_checkpoints_pass_between_tensorflows(tmp_path):
    other = os.environ.get('OTHER_PYTHON')
    if not other:
        pytest.skip('OTHER_PYTHON does not name a Python with the other TensorFlow')
    mine, theirs = str(tmp_path / 'mine'), str(tmp_path / 'theirs')
    save_small(mine)
    env = dict(os.environ, PYTHONPATH=ROOT)
    subprocess.run([other, '-c', SAVE, theirs, os.path.join(TESTS, 'support')], env=env, check=True)
    for folder in (mine, theirs):
        version, here = numbers_loaded_by(sys.executable, folder)
        other_version, there = numbers_loaded_by(other, folder)
        assert version.split('.')[0] != other_version.split('.')[0]
        assert here[-6:].tolist() == list(range(6))
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


def load_into(hparams, folder):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        TrainedModel(folder).load(session, Model(hparams, scope='mine', heads=['value']), heads=['value'])


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    save_small(str(tmp_path))
    wider = ModelHParams(n_vocab=27, n_ctx=9, n_embd=6, n_head=2, n_layer=1)
    with pytest.raises(ValueError, match=r'policy/model/wpe has shape \[8, 6\].*\[9, 6\]'):
        load_into(wider, str(tmp_path))


def test_a_missing_variable_is_named(tmp_path):
    save_small(str(tmp_path))
    deeper = ModelHParams(n_vocab=27, n_ctx=8, n_embd=6, n_head=2, n_layer=2)
    with pytest.raises(ValueError, match='no variable policy/model/h1/ln_1/g'):
        load_into(deeper, str(tmp_path))


def test_a_folder_without_checkpoint_is_refused(tmp_path):
    save_model_folder(str(tmp_path), SMALL, letters())
    with pytest.raises(FileNotFoundError, match='no TensorFlow checkpoint'):
        load_into(SMALL, str(tmp_path))


def test_a_moved_folder_loads(tmp_path):
    save_small(str(tmp_path / 'here'))
    os.rename(str(tmp_path / 'here'), str(tmp_path / 'there'))
    load_into(SMALL, str(tmp_path / 'there'))


def test_the_last_twenty_checkpoints_are_kept(tmp_path):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Model(SMALL)
        session.run(tf.global_variables_initializer())
        writer = CheckpointWriter(str(tmp_path), list(model.variables.values()))
        for step in range(1, 24):
            writer.save(session, step)
    steps = sorted(
        int(n.split('-')[1].split('.')[0]) for n in os.listdir(str(tmp_path / 'checkpoints')) if n.endswith('.index')
    )
    assert steps == list(range(4, 24))
