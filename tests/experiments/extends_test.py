"""An experiment that extends another one: what it inherits, what it changes, and what is refused."""

import os

import pytest

from lm_human_preferences import experiments

BASE = """
description: the base
run: {seed: 3, log_interval: 4}
task: {query_dataset: test, query_length: 2, response_length: 3, policy: {initial_model: test, temperature: 0.5}}
train_reward: {labels: {type: best_of_4, source: test, num_train: 16}, batch_size: 8, sweep: {lr: [1, 2]}}
train_policy:
  rewards: {kl_coef: 0.1, adaptive_kl: {target: 6, horizon: 50}}
  ppo: {batch_size: 16, lr: 1e-3}
evaluate: {labels: test, num_labels: 5, num_checkpoints: 0}
"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a definition file and returns its path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    write('base.yaml', BASE)
    return write


def policy(path, **flags):
    (trial,) = experiments.load(path).trials('train_policy', flags)
    trial.hparams.validate()
    return trial.hparams


def test_extends_by_name(write):
    path = write('mine.yaml', 'extends: sentiment\ntrain_policy: {ppo: {lr: 1}}\n')
    found, base = policy(path), policy('sentiment')
    assert base.differences(found) == ['ppo.lr'] and found.ppo.lr == 1
    write('sentiment.yaml', 'this file: is not read\n')
    assert policy(path) == found


@pytest.mark.parametrize('base', ['base.yaml', './base.yaml', '../base.yaml', 'ABSOLUTE', '~/base.yaml'])
def test_extends_by_path(write, tmp_path, monkeypatch, base):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir('/')  # the path is relative to the file that extends, not to the working directory
    folder = 'inner/' if base.startswith('..') else ''
    base = base.replace('ABSOLUTE', str(tmp_path / 'base.yaml'))
    path = write(folder + 'mine.yaml', f'extends: {base}\ndescription: mine\nrun: {{seed: 5}}\n')
    hparams = policy(path)
    assert (hparams.run.seed, hparams.run.log_interval, hparams.ppo.batch_size) == (5, 4, 16)
    assert hparams.rewards.train_new_model.run.seed == 5
    assert experiments.load(path).description == 'mine'


def test_the_description_is_not_inherited(write):
    assert experiments.load(write('mine.yaml', 'extends: base.yaml\n')).description == ''


def test_groups_are_merged_field_by_field(write):
    write('middle.yaml', 'extends: base.yaml\ntrain_policy: {rewards: {adaptive_kl: {target: 7}}}\n')
    path = write(
        'mine.yaml',
        'extends: middle.yaml\n'
        'task: {policy: {temperature: 0.25}}\n'
        'train_policy: {ppo.lr: 2, rewards: {train_new_model: {lr: 3}}}\n'
        'train_reward: {labels.num_train: 24}\n',
    )
    hparams = policy(path)
    assert hparams.rewards.adaptive_kl.to_nested_dict() == {'target': 7, 'horizon': 50}
    assert hparams.task.policy.to_nested_dict() == {'temperature': 0.25, 'initial_model': 'test'}
    assert (hparams.ppo.lr, hparams.ppo.batch_size) == (2, 16)
    new_model = hparams.rewards.train_new_model
    assert (new_model.lr, new_model.labels.num_train, new_model.batch_size) == (3, 24, 8)


@pytest.mark.parametrize('off', ['null', 'off', 'false'])
def test_null_switches_a_group_off(write, off):
    path = write('mine.yaml', f'extends: base.yaml\ntrain_policy: {{rewards: {{adaptive_kl: {off}, kl_coef: 0.3}}}}\n')
    hparams = policy(path)
    assert hparams.rewards.adaptive_kl is None and hparams.rewards.kl_coef == 0.3
    for on in ('{adaptive_kl: {target: 2}}', '{adaptive_kl.target: 2}'):  # anew, without the values of the base
        again = policy(write('again.yaml', f'extends: mine.yaml\ntrain_policy: {{rewards: {on}}}\n'))
        assert again.rewards.adaptive_kl.to_nested_dict() == {'target': 2, 'horizon': 10000}


def test_a_trained_model_in_place_of_a_new_one(write):
    path = write('mine.yaml', 'extends: base.yaml\ntrain_policy: {rewards: {trained_model: x}}\n')
    assert policy(path).rewards.train_new_model is None
    path = write(
        'new.yaml',
        'extends: mine.yaml\ntrain_policy: {rewards: {trained_model: null, train_new_model: {lr: 3}}}\n',
    )
    new_model = policy(path).rewards.train_new_model
    assert (new_model.lr, new_model.labels.num_train) == (3, 16)


def test_old_and_new_names_of_a_field_are_one_field(write):
    schedule = 'train_reward: {labels: {num_train: 16, schedule: {%s: %d}}}\n'
    write('middle.yaml', 'extends: base.yaml\n' + schedule % ('num_initial', 8))
    path = write('mine.yaml', 'extends: middle.yaml\n' + schedule % ('initial', 16))
    assert policy(path).rewards.train_new_model.labels.schedule.num_initial == 16


def test_a_sweep_is_replaced_as_a_whole(write):
    def descriptors(text):
        path = write('mine.yaml', f'extends: base.yaml\n{text}')
        return [trial.descriptor for trial in experiments.load(path).trials('train_reward', {})]

    assert descriptors('') == ['lr1', 'lr2']
    assert descriptors('train_reward: {sweep: {run.seed: [7, 8, 9]}}\n') == ['seed7', 'seed8', 'seed9']
    for none in ('{}', 'null'):
        assert descriptors(f'train_reward: {{sweep: {none}}}\n') == ['']


def test_the_section_evaluate(write):
    def evaluation(text):
        return experiments.load(write('mine.yaml', f'extends: base.yaml\n{text}')).evaluation('/run')

    found = evaluation('evaluate: {labels: null, queries: 7}\n')
    assert (found.labels, found.num_labels, found.num_queries, found.run) == (None, 5, 7, '/run')
    assert found.policies == ['initial', '/run']
    assert evaluation('').labels == 'test'
    assert evaluation('evaluate: null\n') is None


@pytest.mark.parametrize(
    'text, message',
    [
        ('extends: mine.yaml\n', 'mine.yaml: extends: mine.yaml extends this file, too'),
        ('extends: other.yaml\n', 'other.yaml: extends: ./mine.yaml extends this file, too'),
        ('extends: none.yaml\n', 'mine.yaml: extends: DIR/none.yaml not found'),
        ('extends: .\n', "mine.yaml: extends: no experiment '.': give one of cnndm"),
        ('extends: sentimental\n', "mine.yaml: extends: no experiment 'sentimental': give one of cnndm, .* or a path"),
        ('extends: 3\n', 'mine.yaml: extends should be the name or the path of an experiment, not 3'),
        ('extends: [demo, sentiment]\n', "mine.yaml: extends should be .*, not \\['demo', 'sentiment'\\]"),
        ('extends: bad.yaml\n', 'DIR/bad.yaml: run: no hyperparameter sed: did you mean seed'),
        ('extends: base.yaml\nrun: {sed: 1}\n', 'mine.yaml: run: no hyperparameter sed: did you mean seed'),
        ('extends: base.yaml\nrun: null\n', "mine.yaml: section 'run' should hold hyperparameters, not None"),
        ('extend: base.yaml\n', "mine.yaml: unknown section 'extend': did you mean 'extends'"),
        ('extends: base.yaml\nevaluate: {run: x}\n', 'mine.yaml: evaluate: run cannot be set'),
        ('extends: base.yaml\nevaluate: {num_labels: many}\n', 'mine.yaml: evaluate: num_labels should be int'),
        ('extends: base.yaml\nevaluate: {num_label: 3}\n', 'mine.yaml: evaluate: no hyperparameter num_label'),
        ('extends: base.yaml\nevaluate: 3\n', "mine.yaml: section 'evaluate' should hold hyperparameters, not 3"),
    ],
)
def test_mistakes_are_refused(write, tmp_path, text, message):
    write('bad.yaml', 'run: {sed: 1}\n')
    write('other.yaml', 'extends: ./mine.yaml\n')
    with pytest.raises(ValueError, match=message.replace('DIR', str(tmp_path))):
        experiments.load(write('mine.yaml', text))


def test_a_file_that_cannot_be_read_as_a_base(write, tmp_path):
    os.mkdir(str(tmp_path / 'folder.yaml'))
    with pytest.raises(ValueError, match='mine.yaml: extends: .*folder.yaml: Is a directory'):
        experiments.load(write('mine.yaml', 'extends: folder.yaml\n'))


def test_values_of_evaluate_that_do_not_fit(write):
    experiment = experiments.load(write('mine.yaml', 'extends: base.yaml\nevaluate: {num_queries: 0}\n'))
    with pytest.raises(ValueError, match='mine.yaml: evaluate: num_queries must be above 0, not 0'):
        experiment.evaluation('/run')


def test_the_demo_with_online_labels_differs_from_the_demo_in_its_labels():
    demo, online = (policy(name) for name in ('demo', 'demo_online'))
    labels = 'rewards.train_new_model.labels'
    assert {name for name in demo.differences(online) if not name.startswith(f'{labels}.schedule')} == {
        f'{labels}.num_train',
        f'{labels}.source',
    }
    assert online.rewards.train_new_model.labels.to_nested_dict() == {
        'type': 'best_of_4',
        'num_train': 3200,
        'source': 'labeler',
        'schedule': {
            'num_initial': 640,
            'labeler': 'lm_human_preferences.demo.judges:ridge_choice',
            'num_retrainings': 4,
            'num_ahead': 1000,
            'overlap': 0.0,
            'num_people': 5,
            'instructions': None,
            'port': 0,
        },
    }
    assert online.run.seed == 1 and online.ppo == demo.ppo
