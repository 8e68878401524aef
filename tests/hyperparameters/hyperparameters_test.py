"""The project's hyperparameters: their defaults, descriptions and rules."""

import json

import pytest

from lm_human_preferences.hyperparameters import (
    TREES,
    EvaluateHParams,
    LabelPageHParams,
    ModelHParams,
    PolicyHParams,
    PpoHParams,
    RewardHParams,
    RunHParams,
    SampleHParams,
    TaskHParams,
    TrainLmHParams,
    TrainPolicyHParams,
    TrainRewardHParams,
    best_of,
)
from lm_human_preferences.labeling.forms import get_form
from lm_human_preferences.method.label_types import get_label_type

TASK = {
    'task.query_length': 3,
    'task.query_dataset': 'test',
    'task.response_length': 2,
    'task.policy.initial_model': 'test',
}
REWARD = {'labels.type': 'best_of_4', 'labels.num_train': 16, 'labels.source': 'test', 'batch_size': 8}
NEW = 'rewards.train_new_model.'


def reward_hparams(**changes):
    hparams = TrainRewardHParams()
    hparams.override_from_dict({**TASK, **REWARD})
    hparams.override_from_dict({name.replace('__', '.'): value for name, value in changes.items()})
    return hparams


def policy_hparams(changes=None):
    hparams = TrainPolicyHParams()
    new_model = {NEW + name: value for name, value in {**TASK, **REWARD}.items()}
    hparams.override_from_dict({**TASK, **new_model})
    hparams.override_from_dict(changes or {})
    return hparams


def test_defaults_are_the_public_ones():
    assert RunHParams() == RunHParams(seed=None, log_interval=10, save_interval=50, save_dir=None)
    task = TaskHParams().to_nested_dict()
    assert task == {
        'query_length': None,
        'query_dataset': None,
        'query_prefix': '',
        'query_suffix': '',
        'start_text': '.',
        'end_text': None,
        'response_length': None,
        'truncate_token': None,
        'truncate_after': 0,
        'penalty_reward_value': -1,
        'policy': {'temperature': 1.0, 'initial_model': None},
    }
    reward = TrainRewardHParams().to_nested_dict()
    assert {name: reward[name] for name in reward if name not in ('run', 'task')} == {
        'labels': {'type': None, 'num_train': None, 'source': None, 'schedule': None},
        'batch_size': 40,
        'lr': 5e-5,
        'rollout_batch_size': 64,
        'normalize_samples': 0,
        'normalize_truncated': False,
        'debug_normalize': 0,
        'normalize_before': False,
        'normalize_after': False,
    }
    assert PpoHParams().to_nested_dict() == {
        'total_episodes': 2000000,
        'batch_size': 64,
        'nminibatches': 1,
        'noptepochs': 4,
        'lr': 5e-6,
        'vf_coef': 0.1,
        'cliprange': 0.2,
        'cliprange_value': 0.2,
        'gamma': 1.0,
        'lam': 0.95,
        'whiten_rewards': True,
        'rollout_batch_size': None,
        'microbatch_size': 0,
    }
    assert RewardHParams().to_nested_dict() == {
        'kl_coef': 0.2,
        'adaptive_kl': None,
        'trained_model': None,
        'train_new_model': None,
    }
    rewards = RewardHParams()
    rewards.override_from_str('adaptive_kl=on')
    assert rewards.adaptive_kl.to_nested_dict() == {'target': None, 'horizon': 10000}


def test_good_trees_pass():
    reward_hparams().validate(num_ranks=8)
    policy_hparams().validate(num_ranks=8)
    policy_hparams({'rewards.train_new_model': 'off', 'rewards.trained_model': 'test'}).validate()
    lm = TrainLmHParams(dataset='books')
    lm.validate(num_ranks=4)
    SampleHParams(save_dir='gs://bucket/run').validate()


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            {'labels__num_train': 20},
            r'labels.num_train \(20\) must be a multiple of batch_size \(8\): the nearest are 16 and 24',
        ),
        ({'labels__num_train': 3}, r'the nearest is 8$'),
        ({'labels__num_train': 0}, 'labels.num_train must be above 0'),
        ({'labels__type': 'best_of_1'}, 'labels.type must be best_of_N'),
        ({'labels__type': 'best_of_'}, 'labels.type must be best_of_N'),
        ({'labels__type': 'best_of_4x'}, 'labels.type must be best_of_N'),
        ({'labels__source': ' '}, 'labels.source'),
        ({'lr': -1.0}, 'lr must be 0 or above'),
        ({'lr': float('inf')}, 'lr must be 0 or above'),
        ({'normalize_before': True}, 'normalize_samples must be above 0'),
        ({'task__policy__temperature': 0.0}, 'task.policy.temperature must be above 0'),
        ({'task__query_length': 0}, 'task.query_length must be above 0'),
        ({'task__truncate_after': -1}, 'task.truncate_after must be 0 or above'),
        ({'task__truncate_token': -1}, 'task.truncate_token must be 0 or above'),
        ({'run__log_interval': 0}, 'run.log_interval must be above 0'),
        ({'run__seed': -1}, 'run.seed must be between'),
    ],
)
def test_reward_rules(changes, message):
    with pytest.raises(ValueError, match=message):
        reward_hparams(**changes).validate()


def test_label_types():
    for kind in ('best_of_2', 'best_of_10', 'scalar_rating', 'scalar_compare'):
        reward_hparams(labels__type=kind).validate()


def test_ranks_share_batches_evenly():
    with pytest.raises(ValueError, match=r'batch_size \(8\) must be a multiple of the number of ranks \(3\)'):
        reward_hparams().validate(num_ranks=3)
    with pytest.raises(ValueError, match=r'rewards.train_new_model.batch_size \(8\) .* ranks \(16\)'):
        policy_hparams({'ppo.whiten_rewards': False}).validate(num_ranks=16)
    with pytest.raises(ValueError, match=r'^batch_size \(32\)'):
        TrainLmHParams(dataset='books').validate(num_ranks=5)


@pytest.mark.parametrize(
    'changes, num_ranks, message',
    [
        (
            {'ppo.nminibatches': 3},
            1,
            r'ppo.batch_size \(64\) must be a multiple of .*\(3\): the nearest are 63 and 66',
        ),
        (
            {'ppo.nminibatches': 16},
            1,
            'ppo.batch_size must be at least 128, .* a minibatch needs 8 episodes',
        ),
        ({'ppo.batch_size': 7}, 1, 'at least 8, not 7'),
        ({'ppo.gamma': 1.5}, 1, 'ppo.gamma must be between 0 and 1'),
        ({'ppo.cliprange': 0.0}, 1, 'ppo.cliprange must be above 0'),
        ({'ppo.noptepochs': 0}, 1, 'ppo.noptepochs must be above 0'),
        ({'rewards.kl_coef': -0.1}, 1, 'rewards.kl_coef'),
        ({'rewards.adaptive_kl.target': 0.0}, 1, 'rewards.adaptive_kl.target must be above 0'),
        ({'rewards.trained_model': 'x'}, 1, 'both set: add --rewards.train_new_model off'),
        (
            {'rewards.train_new_model': 'off'},
            1,
            'neither rewards.trained_model nor rewards.train_new_model is set',
        ),
        ({'rewards.trained_model': ' ', 'rewards.train_new_model': 'off'}, 1, 'rewards.trained_model must be'),
        ({'rewards.trained_model': '', 'rewards.train_new_model': 'off'}, 1, 'neither rewards.trained_model nor'),
        ({NEW + 'labels.num_train': 9}, 1, r'rewards.train_new_model.labels.num_train \(9\)'),
        (
            {'task.query_length': 4, 'task.policy.temperature': 0.5},
            1,
            'they differ in task.policy.temperature, task.query_length',
        ),
    ],
)
def test_policy_rules(changes, num_ranks, message):
    with pytest.raises(ValueError, match=message):
        policy_hparams(changes).validate(num_ranks=num_ranks)


BELOW_LENGTH = r'truncate_after \(2\) must be below {0}response_length \(2\): .* {0}penalty_reward_value'


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'task.truncate_token': 1, 'task.truncate_after': 2}, BELOW_LENGTH.format('task.')),
        ({'rewards.adaptive_kl.target': 6.0, 'rewards.adaptive_kl.horizon': 12}, r'horizon \(12\) must be above 12.8'),
        (
            {'rewards.adaptive_kl.target': 6.0, 'rewards.adaptive_kl.horizon': 16, 'ppo.batch_size': 80},
            r'horizon \(16\) must be above 16, which is 0.2 × ppo.batch_size',
        ),
        ({'rewards.adaptive_kl.target': 6.0, 'rewards.kl_coef': 0.0}, 'rewards.kl_coef is 0 and rewards.adaptive_kl'),
        ({'task.policy.temperature': 1e-45}, 'temperature is too close to 0 for 32-bit numbers: 1e-45'),
        ({'task.policy.temperature': 1e-7}, 'task.policy.temperature must be between 0.000001 and 1000000, not 1e-07'),
        ({'task.policy.temperature': 1e7}, 'task.policy.temperature must be between'),
        ({'ppo.total_episodes': 63}, r'ppo.total_episodes \(63\) must be at least ppo.batch_size \(64\)'),
        ({'ppo.lr': 1e39}, r'ppo.lr is too large for 32-bit numbers: 1e\+39'),
        ({'ppo.lr': 1e-40}, 'ppo.lr is too close to 0'),
        ({'ppo.cliprange': 1e-50}, 'ppo.cliprange is too close to 0'),
        ({'rewards.kl_coef': 1e300}, 'rewards.kl_coef is too large'),
        ({NEW + 'lr': 1e39}, NEW + 'lr is too large'),
        ({NEW + 'normalize_after': True, NEW + 'normalize_samples': 1, NEW + 'rollout_batch_size': 1}, 'be 2 or more'),
        ({NEW + 'labels.schedule.overlap': 0.5}, 'labels.schedule.overlap is for people, and .*labeler is a:b'),
    ],
)
def test_settings_that_cannot_work_start_no_run_but_saved_ones_can_be_read(changes, message, tmp_path):
    if NEW + 'labels.schedule' in ' '.join(changes):
        changes = {**changes, NEW + 'labels.schedule.num_initial': 8, NEW + 'labels.schedule.labeler': 'a:b'}
    changes = {**changes, **{NEW + name: value for name, value in changes.items() if name.startswith('task.')}}
    hparams = policy_hparams(changes)
    with pytest.raises(ValueError, match=message):
        hparams.validate(num_ranks=1)
    path = tmp_path / 'train_policy_hparams.json'
    path.write_text(json.dumps(hparams.to_nested_dict()))
    assert TrainPolicyHParams.from_json_file(str(path)) == hparams


@pytest.mark.parametrize(
    'changes',
    [
        {'task.truncate_token': 1, 'task.truncate_after': 1},
        {'rewards.adaptive_kl.target': 6.0, 'rewards.adaptive_kl.horizon': 13},
        {'rewards.kl_coef': 0.0},
        {'task.policy.temperature': 1e-6},
        {'ppo.total_episodes': 64},
        {'ppo.lr': 0.0},
        {NEW + 'normalize_after': True, NEW + 'normalize_samples': 1, NEW + 'rollout_batch_size': 2},
    ],
)
def test_settings_at_the_edge_start_a_run(changes):
    changes = {**changes, **{NEW + name: value for name, value in changes.items() if name.startswith('task.')}}
    policy_hparams(changes).validate(num_ranks=1)


def test_whitening_needs_eight_episodes_in_the_minibatch_of_all_ranks():
    policy_hparams({'ppo.batch_size': 16, 'ppo.nminibatches': 2}).validate(num_ranks=8)
    with pytest.raises(ValueError, match='must be at least 16, not 8: with ppo.whiten_rewards a minibatch needs 8'):
        policy_hparams({'ppo.batch_size': 8, 'ppo.nminibatches': 2}).validate(num_ranks=1)


@pytest.mark.parametrize(
    'hparams, message',
    [
        (TrainLmHParams(dataset='books', lr=1.0, weight_decay=1.0), 'lr × weight_decay must be below 1, not 1'),
        (TrainLmHParams(dataset='books', dropout=1e-50), 'dropout is too close to 0'),
        (SampleHParams(save_dir='x', temperature=1e-45), 'temperature is too close to 0'),
        (SampleHParams(save_dir='x', top_p=1e-45), 'top_p is too close to 0'),
        (EvaluateHParams(run='x', temperature=1e-9), 'temperature must be between'),
        (LabelPageHParams(policy='x', out='y', temperature=1e9), 'temperature must be between'),
        (LabelPageHParams(policy='x', out='y', type='best_of_4', scale=7), 'scale is for scalar_rating'),
    ],
)
def test_settings_of_other_commands_that_cannot_work(hparams, message):
    with pytest.raises(ValueError, match=message):
        hparams.validate(**({'num_ranks': 1} if isinstance(hparams, TrainLmHParams) else {}))


def test_small_minibatches_are_fine_without_whitening():
    policy_hparams({'ppo.batch_size': 4, 'ppo.nminibatches': 2, 'ppo.whiten_rewards': False}).validate(num_ranks=2)


def test_unset_fields_are_asked_for():
    with pytest.raises(TypeError, match='task.query_length is not set: give --task.query_length='):
        TrainRewardHParams().validate()
    with pytest.raises(TypeError, match='rewards.adaptive_kl.target is not set'):
        policy_hparams({'rewards.adaptive_kl': 'on'}).validate()


def test_model_and_lm_rules():
    with pytest.raises(ValueError, match=r'n_embd \(768\) must be a multiple of n_head \(7\)'):
        ModelHParams(n_head=7).validate()
    with pytest.raises(ValueError, match='attn_pdrop'):
        ModelHParams(attn_pdrop=1.0).validate()
    lm = TrainLmHParams(dataset='books', model=ModelHParams(n_ctx=64))
    with pytest.raises(ValueError, match=r'sequence_length must be at most model.n_ctx \(64\), not 128|128'):
        lm.validate()
    lm.initial_model = 'demo'  # its size is unknown before it is read
    lm.validate()
    with pytest.raises(ValueError, match='temperature must be above 0, not 0.0'):
        PolicyHParams(initial_model='test', temperature=0.0).validate()
    with pytest.raises(ValueError, match='temperature must be 0 or between'):
        SampleHParams(save_dir='x', temperature=-0.1).validate()
    SampleHParams(save_dir='x', temperature=0.0).validate()  # greedy


@pytest.mark.parametrize('command', sorted(TREES))
def test_every_hyperparameter_has_a_one_line_description(command):
    for name, hparam in TREES[command].tree().items():
        assert hparam.description.endswith('.') and '\n' not in hparam.description, name
        assert len(hparam.description) <= 112, name


def test_a_models_file_may_hold_the_retired_dropout_rate_of_the_head(tmp_path):
    sizes = {'n_vocab': 27, 'n_ctx': 8, 'n_embd': 7, 'n_head': 1, 'n_layer': 2}
    path = tmp_path / 'hparams.json'
    path.write_text(json.dumps(dict(sizes, head_pdrop=0.3)))
    assert ModelHParams.from_json_file(str(path)) == ModelHParams(**sizes)
    lm = TrainLmHParams()
    lm.override_from_nested_dict({'model': dict(sizes, head_pdrop=0.3)})
    assert lm.model == ModelHParams(**sizes)


def test_best_of():
    assert [best_of(name) for name in ('best_of_2', 'best_of_12')] == [2, 12]
    for name in ('best_of_1', 'best_of_0', 'best_of_04', 'best_of_', 'best_of_4\n', 'xbest_of_4', 'scalar_rating'):
        assert best_of(name) is None
        for ask in (get_form, get_label_type):
            if not name.startswith('scalar'):
                with pytest.raises(ValueError, match='best_of_N'):
                    ask(name)


@pytest.mark.parametrize('name', ['embd_pdrop', 'attn_pdrop', 'resid_pdrop'])
def test_dropout_rates_of_a_language_model_in_training(name):
    lm = TrainLmHParams(dataset='books', model=ModelHParams(**{name: 0.2}))
    with pytest.raises(ValueError, match=rf'^model.{name} \(0.2\) has no effect: dropout is the rate of all .*=0.2'):
        lm.validate(num_ranks=1)
    lm.validate()  # a saved run can be read
    for dropout, rate in ((0.2, 0.2), (0.3, 0.1)):  # the same rate, and the default of ModelHParams
        TrainLmHParams(dataset='books', model=ModelHParams(**{name: rate}), dropout=dropout).validate(num_ranks=1)
