"""Definition files of experiments, and the trials that they describe."""

import pytest

from lm_human_preferences import experiments

BOOKS = {
    'query_dataset': 'books',
    'query_length': 64,
    'response_length': 24,
    'query_prefix': '',
    'query_suffix': '',
    'start_text': '.',
    'end_text': '.',
    'truncate_token': 13,
    'truncate_after': 16,
    'penalty_reward_value': -1,
    'policy': {'temperature': 0.7, 'initial_model': '124M'},
}
CNNDM = {
    'query_dataset': 'cnndm',
    'query_length': 500,
    'response_length': 75,
    'query_prefix': 'Article:\n\n',
    'query_suffix': '\n\nTL;DR:',
    'start_text': None,
    'end_text': '\n',
    'truncate_token': 198,
    'truncate_after': 55,
    'penalty_reward_value': -1,
    'policy': {'temperature': 0.5, 'initial_model': '124M'},
}
TLDR = dict(
    CNNDM,
    query_dataset='tldr',
    query_prefix='',
    end_text=None,
    policy={'temperature': 0.7, 'initial_model': '124M'},
)
# task, labels, (reward batch, lr, rollout batch), (ppo batch, lr), (kl_coef, adaptive target), whiten
TABLE = {
    'sentiment': (BOOKS, 'sentiment/offline_5k', 4992, (32, 5e-5, 512), (512, 1e-5), (0.15, 6.0), True),
    'descriptiveness': (
        BOOKS,
        'descriptiveness/offline_5k',
        4992,
        (32, 5e-5, 512),
        (512, 1e-5),
        (0.15, 6.0),
        True,
    ),
    'cnndm': (CNNDM, 'cnndm/online_45k', 46000, (16, 2.5e-5, 128), (32, 2e-6), (0.01, None), False),
    'tldr': (TLDR, 'tldr/online_45k', 46000, (16, 2.5e-5, 128), (32, 2e-6), (0.03, None), False),
}

FILE = """
description: a test
run: {seed: 3}
task: {query_dataset: test, query_length: 2, response_length: 3, policy: {initial_model: test}}
train_reward: {labels: {type: best_of_4, source: test, num_train: 16}, batch_size: 8}
train_policy: {ppo: {lr: 1e-3}}
"""


def write(tmp_path, text):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    return str(path)


def trials(tmp_path, text, command='train_policy', **overrides):
    flags = {name.replace('__', '.'): value for name, value in overrides.items()}
    return experiments.load(write(tmp_path, text)).trials(command, flags)


def only(found):
    assert len(found) == 1 and found[0].descriptor == ''
    found[0].hparams.validate()
    return found[0].hparams


def test_names():
    assert experiments.names() == ['cnndm', 'demo', 'demo_online', 'descriptiveness', 'sentiment', 'tldr']


@pytest.mark.parametrize('name', sorted(TABLE))
def test_the_papers_experiments(name):
    task, labels, num_train, reward, ppo, kl, whiten = TABLE[name]
    experiment = experiments.load(name)
    hparams = only(experiment.trials('train_reward', {}))
    assert hparams.to_nested_dict() == {
        'run': {
            'seed': 1,
            'log_interval': 10,
            'save_interval': 50,
            'save_dir': None,
            'dtype': 'float32',
            'tf32': False,
        },
        'task': task,
        'labels': {
            'type': 'best_of_4',
            'num_train': num_train,
            'source': f'labels/{labels}.json',
            'schedule': None,
        },
        'batch_size': reward[0],
        'lr': reward[1],
        'rollout_batch_size': reward[2],
        'normalize_samples': 256,
        'normalize_truncated': False,
        'debug_normalize': 0,
        'normalize_before': True,
        'normalize_after': True,
    }
    policy = only(experiment.trials('train_policy', {}))
    assert policy.rewards.train_new_model == hparams
    assert policy.task == hparams.task and policy.run == hparams.run
    assert policy.rewards.trained_model is None
    adaptive = policy.rewards.adaptive_kl
    assert (policy.rewards.kl_coef, adaptive and adaptive.target) == kl
    assert adaptive is None or adaptive.horizon == 10000
    ppo_dict = policy.ppo.to_nested_dict()
    assert ppo_dict == {
        'total_episodes': 1000000,
        'batch_size': ppo[0],
        'nminibatches': 1,
        'noptepochs': 4,
        'lr': ppo[1],
        'vf_coef': 0.1,
        'cliprange': 0.2,
        'cliprange_value': 0.2,
        'gamma': 1.0,
        'lam': 0.95,
        'whiten_rewards': whiten,
        'rollout_batch_size': None,
        'microbatch_size': 0,
    }
    only(experiment.trials('train_lm', {}))


@pytest.mark.parametrize('command', ['train_reward', 'train_policy', 'train_lm'])
def test_the_demo(command):
    assert only(experiments.load('demo').trials(command, {})).run.seed == 1


def test_a_file_of_the_users_own(tmp_path):
    hparams = only(trials(tmp_path, FILE))
    assert hparams.rewards.train_new_model.labels.num_train == 16
    assert hparams.rewards.train_new_model.run.seed == 3 and hparams.ppo.lr == 1e-3
    with pytest.raises(ValueError, match='does not define train_lm: it defines train_reward, train_policy'):
        trials(tmp_path, FILE, 'train_lm')


def test_the_new_reward_models_task_follows_flags(tmp_path):
    hparams = only(trials(tmp_path, FILE, task__query_length='5', task__policy__initial_model='demo'))
    assert hparams.rewards.train_new_model.task.query_length == 5
    assert hparams.rewards.train_new_model.task.policy.initial_model == 'demo'
    explicit = {'rewards__train_new_model__task__query_length': '6'}
    (trial,) = trials(tmp_path, FILE, task__query_length='5', **explicit)
    assert trial.hparams.rewards.train_new_model.task.query_length == 6
    off = {'rewards__train_new_model': 'off', 'rewards__trained_model': 'x'}
    hparams = only(trials(tmp_path, FILE, task__query_length='5', **off))
    assert hparams.rewards.train_new_model is None and hparams.task.query_length == 5


def test_a_file_with_a_trained_model(tmp_path):
    text = FILE.replace('{ppo: {lr: 1e-3}}', '{rewards: {trained_model: x}}')
    assert only(trials(tmp_path, text)).rewards.train_new_model is None
    flags = {'rewards__trained_model': 'None', 'rewards__train_new_model': 'on'}
    assert only(trials(tmp_path, text, **flags)).rewards.train_new_model.labels.num_train == 16


def test_a_file_that_changes_its_new_model(tmp_path):
    text = FILE.replace('{ppo: {lr: 1e-3}}', '{rewards: {train_new_model: {lr: 0.25}}}')
    new_model = only(trials(tmp_path, text)).rewards.train_new_model
    assert new_model.lr == 0.25 and new_model.batch_size == 8


def test_sweep(tmp_path):
    text = FILE.replace(
        '{ppo: {lr: 1e-3}}', '{sweep: {ppo.lr: [1e-5, 2e-5], run.seed: [1, 2], task.query_length: [4]}}'
    )
    found = trials(tmp_path, text)
    assert [trial.descriptor for trial in found] == [
        'lr1e-05-seed1-query_length4',
        'lr1e-05-seed2-query_length4',
        'lr2e-05-seed1-query_length4',
        'lr2e-05-seed2-query_length4',
    ]
    assert [(t.hparams.ppo.lr, t.hparams.run.seed) for t in found] == [
        (1e-5, 1),
        (1e-5, 2),
        (2e-5, 1),
        (2e-5, 2),
    ]
    assert all(t.hparams.rewards.train_new_model.task.query_length == 4 for t in found)
    fixed = trials(tmp_path, text, ppo__lr='1', task__query_length='2')
    assert [trial.descriptor for trial in fixed] == ['seed1', 'seed2']
    assert all(trial.hparams.ppo.lr == 1.0 for trial in fixed)


def test_descriptors_are_safe_and_tell_trials_apart(tmp_path):
    sweep = '{rewards.train_new_model.lr: [1], ppo.lr: [2], rewards.adaptive_kl: [off]}'
    (trial,) = trials(tmp_path, FILE.replace('{ppo: {lr: 1e-3}}', f'{{sweep: {sweep}}}'))
    assert trial.descriptor == 'train_new_model.lr1-ppo.lr2-adaptive_kloff'
    sweep = "{task.start_text: ['a/b', 'a b', '%s']}" % ('x' * 300)
    found = trials(tmp_path, FILE.replace('{ppo: {lr: 1e-3}}', f'{{sweep: {sweep}}}'))
    descriptors = [trial.descriptor for trial in found]
    assert descriptors == ['start_texta_b-1', 'start_texta_b-2', 'start_text' + 'x' * 24 + '-3']


@pytest.mark.parametrize(
    'text, message',
    [
        (FILE + 'train_polcy: {}\n', "unknown section 'train_polcy': did you mean 'train_policy'"),
        (FILE.replace('lr: 1e-3', 'lrr: 1'), 'train_policy: no hyperparameter ppo.lrr: did you mean ppo.lr'),
        (
            FILE.replace('query_length', 'query_lenght'),
            'task: no hyperparameter query_lenght: .* query_length',
        ),
        (FILE.replace('seed', 'seeds'), 'run: no hyperparameter seeds'),
        (FILE.replace('{seed: 3}', '3'), "section 'run' should hold"),
        (FILE.replace('lr: 1e-3', 'lr: 1e-3, lr: 2'), 'not YAML'),
        (FILE.replace('{ppo:', '{sweep: {ppo.lrr: [1]}, ppo:'), 'train_policy: no hyperparameter ppo.lrr'),
        (FILE.replace('{ppo:', '{sweep: {ppo.lr: 1}, ppo:'), 'ppo.lr should have a list of values'),
        (FILE.replace('{ppo:', '{sweep: 1, ppo:'), 'sweep should hold'),
        (FILE.replace('{ppo: {lr: 1e-3}}', '{rewards: 3}'), 'train_policy: rewards is a group'),
        ('- 1\n', 'should hold sections, not list'),
        ('', 'should hold sections'),
        ('run: {\n', 'line 2: not YAML'),
        ('run: !!python/object:os.system {}\n', 'not YAML'),
    ],
)
def test_mistakes_in_a_file_name_it(tmp_path, text, message):
    with pytest.raises(ValueError, match='mine.yaml: .*' + message):
        trials(tmp_path, text)


def test_no_such_experiment(tmp_path):
    with pytest.raises(ValueError, match='no experiment .sentimental.: give one of cnndm, demo'):
        experiments.load('sentimental')
    with pytest.raises(FileNotFoundError):
        experiments.load(str(tmp_path / 'none.yaml'))


def test_whole_numbers_with_exponents_and_underscores(tmp_path):
    path = tmp_path / 'numbers.yaml'
    path.write_text(
        'task: {query_length: 2, response_length: 3, query_dataset: test, start_text: "", end_text: none}\n'
        'train_policy:\n  ppo: {total_episodes: 1e6, batch_size: 1_024, lr: 1e0}\n'
        '  rewards: {adaptive_kl: {target: 6e0, horizon: 1e4}}\n'
        '  sweep: {run.seed: [1e3, 2_000], ppo.gamma: [1e0]}\n'
    )
    trials = experiments.load(str(path)).trials('train_policy', {'ppo.nminibatches': '2e0'})
    assert [trial.hparams.run.seed for trial in trials] == [1000, 2000]
    assert [trial.descriptor for trial in trials] == ['seed1000-gamma1.0', 'seed2000-gamma1.0']
    hparams = trials[0].hparams
    hparams.check_types()
    assert repr(hparams.ppo.total_episodes) == '1000000' and hparams.rewards.adaptive_kl.horizon == 10000
    assert (hparams.ppo.batch_size, hparams.ppo.nminibatches, type(hparams.ppo.lr)) == (1024, 2, float)
    assert hparams.task.start_text is None and hparams.task.end_text is None
