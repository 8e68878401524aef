"""The training of a language model: its hyperparameters reach the graph."""

import numpy as np
import pytest

from lm_human_preferences.graph.tf_versions import IS_TF1, new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainLmHParams
from lm_human_preferences.method.lm_trainer import LmTrainer
from lm_human_preferences.mpi.ranks import Ranks

SIZE = ModelHParams(n_vocab=30, n_ctx=8, n_embd=16, n_head=2, n_layer=2)


def losses(dtype):
    """The losses of two steps of training from the same weights."""
    hparams = TrainLmHParams(dataset='test', sequence_length=6, batch_size=4)
    hparams.run.dtype = dtype
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        trainer = LmTrainer(hparams, SIZE, Ranks(alone=True))
        session.run(tf.global_variables_initializer())
        tokens = np.random.RandomState(0).randint(0, 30, (4, 7))
        return [trainer.step(tokens, 1e-2)['loss'] for _ in range(2)]


def test_dtype_is_that_of_the_products():
    exact = losses('float32')
    if IS_TF1:
        with pytest.raises(ValueError, match='run.dtype=bfloat16 needs TensorFlow 2'):
            losses('bfloat16')
        return
    rounded = losses('bfloat16')
    assert exact != rounded
    np.testing.assert_allclose(exact, rounded, rtol=0.02)
