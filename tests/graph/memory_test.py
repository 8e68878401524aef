"""A graph that nobody uses any more is freed, with its tensors and its gradients, and the memory is given back."""

import ctypes
import gc
import os
import resource
import weakref

import numpy as np
import pytest

from lm_human_preferences.graph import gradients
from lm_human_preferences.graph.memory import memory_given_back, use_one_heap
from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.optimizer import minimize
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.distributions import token_logprobs
from lm_human_preferences.language.model import Model

HPARAMS = ModelHParams(n_vocab=50, n_ctx=16, n_embd=8, n_head=2, n_layer=2)
MODELS = 20


def train_a_model(seed):
    """Build a model, take one step, and return its loss and a weak reference to its graph."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(seed)
        model = Model(HPARAMS)
        tokens = tf.constant(np.arange(32).reshape(2, 16), tf.int32)
        loss = -tf.reduce_mean(token_logprobs(model.logits(model(tokens).hidden), tokens))
        step, norm = minimize(loss, list(model.variables.values()), tf.constant(1e-3), 'adam')
        session.run(tf.global_variables_initializer())
        _, loss, norm = session.run((step, loss, norm))
        assert norm > 0
        return loss, weakref.ref(graph)


def memory():
    """The memory of this process now, in MB."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def test_graphs_are_freed():
    losses, graphs, sizes = [], [], []
    for seed in range(MODELS):
        loss, graph = train_a_model(seed % 2)
        losses.append(loss)
        graphs.append(graph)
        gc.collect()
        sizes.append(memory())
    alive = [graph for graph in graphs if graph() is not None]
    assert not alive, f'{len(alive)} of {MODELS} graphs are alive'
    assert len(set(losses[::2])) == len(set(losses[1::2])) == 1 and losses[0] != losses[1]
    assert sizes[-1] - sizes[0] < 20, sizes  # one graph takes 5 MB


def test_the_gradients_belong_to_the_graph():
    sizes = []
    for _ in range(2):
        with tf.Graph().as_default() as graph:
            model = Model(HPARAMS)
            model(tf.constant([[1, 2]]))
            sizes.append(len(gradients._gradients_of_graph(graph)))
            names = {op.get_attr('_gradient_op_type') for op in graph.get_operations() if op.type == 'IdentityN'}
            assert names == {b'with_gradient'}
    assert sizes[0] == sizes[1] == 2 * 4 + 1  # two layer norms, GELU and attention of each layer; the last layer norm


@memory_given_back()
def hold(megabytes):
    """Hold so much in variables, and as much in tensors; return the memory of this process at that time."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        specs = {f'v{number}': VariableSpec([2**20], stddev=1.0) for number in range(megabytes // 4)}
        variables = list(create_variables(specs).values())
        session.run(tf.global_variables_initializer())
        whole = tf.concat(variables, axis=0)
        assert 0.9 < session.run(tf.reduce_mean(tf.square(whole))) < 1.1
        return memory()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'malloc_trim'), reason='needs the heap of glibc')
def test_the_memory_of_a_stage_is_given_back_when_it_ends():
    """A pool that never shrinks would keep it, and so would the heap of C."""
    hold(4)
    before = memory()
    assert hold(100) > before + 100
    assert memory() < before + 30


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv('TF_ONEDNN_USE_SYSTEM_ALLOCATOR', '0')
    use_one_heap()
    assert os.environ['TF_ONEDNN_USE_SYSTEM_ALLOCATOR'] == '0'
