"""How many episodes are sampled at a time: by default what fits a GPU, and in a resumed run what it began with."""

import json
import os

import pytest

from lm_human_preferences import train_policy
from lm_human_preferences.graph.tf_versions import gpu_memory, new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainPolicyHParams
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.ppo_trainer import PPOTrainer, episodes_that_fit
from lm_human_preferences.mpi.ranks import Ranks

GB = 2**30
TASK = {'query_length': 2, 'response_length': 3, 'query_dataset': 'test', 'policy.initial_model': 'test'}


def hparams(**overrides):
    values = TrainPolicyHParams()
    values.override_from_dict({f'task.{name}': value for name, value in TASK.items()})
    values.override_from_dict({'run.seed': 1, 'rewards.trained_model': 'test', 'ppo.batch_size': 80})
    values.override_from_dict({f'ppo.{name}': value for name, value in overrides.items()})
    return values


@pytest.mark.parametrize(
    'memory, dtype, episodes',
    [
        (None, 'float32', 64),
        (16 * GB, 'float32', 156),
        (16 * GB, 'bfloat16', 204),
        (80 * GB, 'float32', 782),
        (2**20, 'float32', 1),
    ],
)
def test_what_fits_a_gpu(memory, dtype, episodes):
    """Of the task `sentiment`, 124M: 13.0 MB of keys and values and 14.5 MB of logits for each episode."""
    assert episodes_that_fit(ModelHParams(), 64 + 24, 24, memory, dtype) == episodes


@pytest.mark.parametrize('given, so_far, expected', [(None, None, 64), (None, 7, 7), (20, None, 20), (20, 7, 20)])
def test_what_a_trainer_takes_on_a_cpu(given, so_far, expected):
    values, model = hparams(rollout_batch_size=given), find_model('test')
    task = Task(values.task, model.encoding())
    with tf.Graph().as_default() as graph, new_session(graph):
        assert gpu_memory() is None
        trainer = PPOTrainer(values, task, model.hparams, model.hparams, Ranks(), so_far)
        fed = [op.outputs[0].shape[0].value for op in graph.get_operations() if op.name == 'uniforms']
    assert trainer.rollout_batch_size == expected
    assert [int(size) for size in fed] == [expected]


def test_a_resumed_run_keeps_its_number(tmp_path):
    def saved(step, **overrides):
        values = hparams(total_episodes=80 * step, **overrides)
        values.run.save_dir = str(tmp_path)
        train_policy.train(values)
        with open(os.path.join(str(tmp_path), 'policy', 'checkpoints', f'state-{step}.json')) as file:
            return json.load(file)['rollout_batch_size']

    assert saved(1, rollout_batch_size=30) == 30
    assert saved(2) == 30
    assert saved(3, rollout_batch_size=20) == 20
    assert saved(4) == 20


def test_a_run_from_before_it_was_saved():
    assert train_policy.rollout_batch_size_so_far({}) is None
    assert train_policy.rollout_batch_size_so_far({'hparams': {'ppo': {'rollout_batch_size': 64}}}) == 64
    assert train_policy.rollout_batch_size_so_far({'hparams': {'ppo': {}}}) is None
