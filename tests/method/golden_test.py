"""The numbers recorded from the 2019 reference, reproduced: 1e-4 relative, 1e-5 absolute."""

import json
import os

import numpy as np
import pytest

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import (
    ModelHParams,
    PpoHParams,
    TaskHParams,
    TrainPolicyHParams,
    TrainRewardHParams,
)
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.label_types import get_label_type
from lm_human_preferences.method.lm_tasks import Task, truncate_responses
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.ppo import Rollouts, adaptive_kl_coef, token_rewards
from lm_human_preferences.method.ppo_trainer import PPOTrainer
from lm_human_preferences.method.reward_trainer import RewardTrainer
from lm_human_preferences.method.rewards import RewardModel, normalizing_gain_bias
from lm_human_preferences.mpi.ranks import Ranks


def assert_close(actual, expected, name=''):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=name)


class Golden:
    """The recorded numbers, and the tiny model's hyperparameters and task."""

    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, 'config.json')) as f:
            self.config = json.load(f)
        self.encoding = Encoding.from_files(
            'own', os.path.join(folder, 'encoder.json'), os.path.join(folder, 'vocab.bpe')
        )
        self.model_hparams = ModelHParams()
        self.model_hparams.override_from_json_file(os.path.join(folder, 'model', 'hparams.json'))
        task = TaskHParams(
            query_length=self.config['query_length'],
            response_length=self.config['response_length'],
            query_dataset='test',
            query_prefix=self.config['query_prefix'],
            query_suffix=self.config['query_suffix'],
            truncate_token=self.config['truncate_token'],
            truncate_after=self.config['truncate_after'],
        )
        task.policy.temperature = self.config['temperature']
        task.policy.initial_model = 'unused'
        self.task_hparams = task
        self.task = Task(task, self.encoding)

    def numbers(self, name):
        with np.load(os.path.join(self.folder, name + '.npz'), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays}


@pytest.fixture(scope='module')
def golden(golden_dir):
    return Golden(golden_dir)


@pytest.fixture
def session():
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        yield session


def load(session, numbers, prefix):
    """Initialize all variables, then set those recorded below `prefix`."""
    session.run(tf.global_variables_initializer())
    variables = {v.name[:-2]: v for v in tf.global_variables()}
    for name, value in numbers.items():
        if name.startswith(prefix):
            variables[name[len(prefix) :]].load(value, session)


def recorded(numbers, prefix):
    return {name[len(prefix) :]: value for name, value in numbers.items() if name.startswith(prefix)}


@pytest.mark.parametrize('kind', ['padded', 'unpadded'])
def test_model_outputs(golden, session, kind):
    numbers = golden.numbers('model')
    expected = recorded(numbers, kind + '/')
    model = Model(golden.model_hparams, scope='model', heads=['value'])
    tokens = numbers['tokens'].copy()
    padding = int(numbers['padding_token'])
    if kind == 'unpadded':
        tokens[tokens == padding] = 0
    states = model(tf.constant(tokens), padding if kind == 'padded' else None)
    logits = model.logits(states.hidden)
    outputs = dict(lm_logits=logits, value=model.scalar_head('value', states.hidden), h=states.hidden)
    outputs['present'] = tf.stack([tf.stack(layer, axis=1) for layer in states.past.keys_values], axis=1)
    outputs['lm_all_losses'] = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tokens[:, 1:], logits=logits[:, :-1]
    )
    load(session, numbers, 'param/')
    actual = session.run({name: outputs[name] for name in expected})
    if kind == 'padded':
        # The reference also computes keys and values of padding. No token attends to them.
        real = np.not_equal(tokens, padding)[:, np.newaxis, np.newaxis, np.newaxis, :, np.newaxis]
        actual['present'], expected['present'] = (np.where(real, x['present'], 0) for x in (actual, expected))
    for name in expected:
        assert_close(actual[name], expected[name], name)


def test_recorded_checkpoint_loads(golden, session):
    # The checkpoint holds the parameters from which the reward model's training was recorded.
    numbers = recorded(golden.numbers('reward_best_of_4'), 'before/reward_model/model/')
    model = Model(golden.model_hparams, scope='mine')
    session.run(tf.global_variables_initializer())
    loaded = TrainedModel(os.path.join(golden.folder, 'model')).load(session, model)
    assert len(loaded) == len(model.variables)
    for name, variable in model.variables.items():
        np.testing.assert_array_equal(session.run(variable), numbers[name], name)


def test_policy_analysis(golden, session):
    numbers = golden.numbers('policy')
    policy = Policy(golden.model_hparams, golden.task)
    analysis = policy.analyze_responses(tf.constant(numbers['queries']), tf.constant(numbers['responses']))
    load(session, numbers, 'param/')
    actual = session.run(analysis)
    for name, expected in recorded(numbers, 'out/').items():
        assert_close(actual[name], expected, name)


LABEL_TYPES = ['best_of_4', 'scalar_rating', 'scalar_compare']


@pytest.mark.parametrize('label_type', LABEL_TYPES)
def test_rewards_and_normalization(golden, session, label_type):
    numbers = golden.numbers('reward_' + label_type)
    reward_model = RewardModel(golden.model_hparams, golden.task)
    rewards = reward_model.rewards(tf.constant(numbers['eval_queries']), tf.constant(numbers['eval_responses']))
    load(session, numbers, 'before/')
    before = session.run(rewards)
    assert_close(before, numbers['rewards_before'])
    gain, bias = normalizing_gain_bias(before.mean(), before.std(), target_mean=0.25, target_std=1.5)
    assert_close([gain, bias], numbers['norm_gain_bias'])
    reward_model.gain.load(gain, session)
    reward_model.bias.load(bias, session)
    assert_close(session.run(rewards), numbers['rewards_normed'])


@pytest.mark.parametrize('label_type', LABEL_TYPES)
def test_two_steps_of_reward_training(golden, session, label_type):
    numbers = golden.numbers('reward_' + label_type)
    batch = golden.config['batch_size']
    hparams = TrainRewardHParams(task=golden.task_hparams, batch_size=batch, rollout_batch_size=batch)
    hparams.labels.type = label_type
    trainer = RewardTrainer(hparams, golden.task, golden.model_hparams, Ranks())
    load(session, numbers, 'before/')
    labels = recorded(numbers, 'label/')
    for step, lr in enumerate(numbers['lrs']):
        rows = slice(step * batch, (step + 1) * batch)
        trainer.step({name: values[rows] for name, values in labels.items()}, lr)
    variables = {v.name[:-2]: v for v in trainer.trained_variables}
    after = recorded(numbers, 'after/')
    assert set(variables) == set(after)
    actual = session.run(variables)
    for name in after:
        assert_close(actual[name], after[name], name)
    rewards = trainer.reward_model.rewards(tf.constant(numbers['eval_queries']), tf.constant(numbers['eval_responses']))
    if 'rewards_after_two_steps' in numbers:
        assert_close(session.run(rewards), numbers['rewards_after_two_steps'])


@pytest.mark.parametrize('kind', ['whiten', 'plain'])
def test_two_epochs_of_ppo(golden, session, kind):
    numbers = golden.numbers('ppo_' + kind)
    config = golden.config['ppo']
    hparams = TrainPolicyHParams(task=golden.task_hparams)
    hparams.ppo = PpoHParams(
        batch_size=golden.config['batch_size'],
        nminibatches=config['nminibatches'],
        noptepochs=config['noptepochs'],
        lr=config['lr'],
        gamma=float(config['gamma_' + kind]),
        lam=config['lam'],
        vf_coef=config['vf_coef'],
        cliprange=config['cliprange'],
        cliprange_value=config['cliprange_value'],
        whiten_rewards=kind == 'whiten',
    )
    trainer = PPOTrainer(hparams, golden.task, golden.model_hparams, golden.model_hparams, Ranks())
    load(session, numbers, 'before/')
    rollout = recorded(numbers, 'rollout/')
    rewards, penalties = token_rewards(
        rollout['logprobs'], numbers['ref_logprobs'], numbers['scores'], float(numbers['kl_coef'])
    )
    assert_close(penalties, numbers['non_score_reward'])
    assert_close(rewards, rollout['rewards'])
    rollouts = Rollouts(**rollout)
    for epoch in range(config['noptepochs']):
        stats = trainer.update(rollouts, config['lr'])
        for name, expected in recorded(numbers, 'stat/').items():
            assert_close(stats[name.replace('.', '/')], expected[epoch], f'{name}, epoch {epoch}')
    after = recorded(numbers, 'after/')
    variables = {v.name[:-2]: v for v in tf.global_variables()}
    actual = session.run({name: variables[name] for name in after})
    for name in after:
        assert_close(actual[name], after[name], name)


def test_truncation(golden, session):
    numbers = golden.numbers('truncation')
    truncated, valid = session.run(
        truncate_responses(
            tf.constant(numbers['responses']),
            int(numbers['truncate_token']),
            int(numbers['truncate_after']),
            int(numbers['padding_token']),
        )
    )
    np.testing.assert_array_equal(truncated, numbers['truncated'])
    np.testing.assert_array_equal(valid, numbers['valid'])


@pytest.mark.parametrize('truncated', [False, True])
def test_normalization_measures_whole_responses(golden_dir, session, truncated):
    """The reference measures the rewards of its samples as sampled; truncated ones are another measure."""
    with np.load(os.path.join(golden_dir, 'normalization.npz'), allow_pickle=False) as arrays:
        numbers = {key: arrays[key] for key in arrays}
    params = recorded(numbers, 'param/reward_model/model/')
    size = ModelHParams(
        n_vocab=int(numbers['n_vocab']),
        n_ctx=len(params['wpe']),
        n_embd=params['wpe'].shape[1],
        n_head=int(numbers['n_head']),
        n_layer=sum(name.endswith('ln_1/g') for name in params),
    )
    hparams = TrainRewardHParams(normalize_samples=64, rollout_batch_size=64, normalize_truncated=truncated)
    hparams.task.query_length, hparams.task.response_length = (numbers[n].shape[1] for n in ('queries', 'responses'))
    hparams.task.truncate_token, hparams.task.truncate_after = (
        int(numbers[name]) for name in ('truncate_token', 'truncate_after')
    )
    hparams.labels.type, hparams.task.policy.temperature = 'best_of_4', 1.0
    encoding = Encoding('own', {str(i): i for i in range(size.n_vocab)}, [])
    assert encoding.padding_token == int(numbers['padding_token'])
    trainer = RewardTrainer(hparams, Task(hparams.task, encoding), size, Ranks())
    load(session, numbers, 'param/')
    # The reference's samples take the place of ours.
    feed = {trainer._queries: numbers['queries'], trainer._responses: numbers['responses']}
    rewards = session.run(trainer._sample_rewards, feed)
    gain_bias = normalizing_gain_bias(rewards.mean(), rewards.std())
    if truncated:
        assert np.abs(np.subtract(gain_bias, numbers['gain_bias'])).min() > 0.1
    else:
        assert_close(gain_bias, numbers['gain_bias'])


def test_adaptive_kl(golden):
    numbers = golden.numbers('adaptive_kl')
    coef = float(numbers['init'])
    for kl, expected in zip(numbers['kl'], numbers['coef_after']):
        coef = adaptive_kl_coef(coef, kl, float(numbers['target']), int(numbers['n_steps']), int(numbers['horizon']))
        assert_close(coef, expected)


def test_label_types_of_the_recording_exist():
    assert [len(get_label_type(name).sample_names) for name in LABEL_TYPES] == [4, 1, 2]
