"""Whole runs of the trainers on the built-in `test` names."""

import json
import os
import re

import numpy as np
import pytest
from resumed_runs import event_files

from lm_human_preferences import sample, train_lm, train_policy, train_reward
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import SampleHParams
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.method import reward_trainer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.collectives import initialize_variables
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import step_generator
from lm_human_preferences.runs.checkpoints import latest_checkpoint
from lm_human_preferences.utils.errors import UserError

TASK = {
    'task.query_length': 2,
    'task.response_length': 3,
    'task.query_dataset': 'test',
    'task.policy.initial_model': 'test',
    'run.seed': 1,
    'run.log_interval': 1,
}
LABELS = {'labels.type': 'best_of_4', 'labels.num_train': 16, 'labels.source': 'test', 'batch_size': 8}
NORMALIZE = {'normalize_samples': 64, 'normalize_before': True, 'normalize_after': True, 'lr': 1e-2}


def reward_hparams(**overrides):
    hparams = train_reward.HParams()
    hparams.override_from_dict(dict(TASK, **LABELS))
    hparams.override_from_dict(overrides)
    hparams.validate()
    return hparams


def policy_hparams(**overrides):
    hparams = train_policy.HParams()
    hparams.override_from_dict(dict(TASK, **{'ppo.batch_size': 8, 'ppo.total_episodes': 24, 'ppo.lr': 1e-2}))
    hparams.override_from_dict(overrides)
    hparams.validate()
    return hparams


def events(folder):
    """{tag: [(step, value) …]} of the event file in a folder."""
    (name,) = event_files(folder)
    found = {}
    for event in tf.train.summary_iterator(os.path.join(folder, name)):
        for value in event.summary.value:
            if value.HasField('simple_value'):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def read_json(*path):
    with open(os.path.join(*path)) as f:
        return json.load(f)


def checkpoint_values(folder):
    reader = tf.train.load_checkpoint(latest_checkpoint(folder))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize('label_type', ['best_of_4', 'scalar_rating', 'scalar_compare'])
def test_reward_training_without_files(label_type):
    train_reward.train(reward_hparams(**{'labels.type': label_type}))


def test_rewards_far_from_zero_are_normalized():
    """Their variance is not lost in what float32 can hold of their mean."""
    hparams, ranks, model = reward_hparams(**NORMALIZE), Ranks(), find_model('test')
    task = Task(hparams.task, model.encoding())
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        trainer = reward_trainer.RewardTrainer(hparams, task, model.hparams, ranks)
        initialize_variables(session, [], ranks)
        trainer.reward_model.model.variables['heads/reward/b'].load(3000.0, session)
        queries = task.query_stream('train', 1, ranks)
        reward_trainer.Normalizer(trainer, queries, 1, ranks).normalize(0.0, 1.0, 'normalize', step=0)
        rewards = trainer.sample_rewards(
            task.query_stream('train', 1, ranks).next_batch(64),
            step_generator(1, ranks, step=0).random_sample([64, hparams.task.response_length]),
        )
    assert rewards.mean() == pytest.approx(0, abs=0.01) and rewards.std() == pytest.approx(1, rel=0.01)


def test_runs_are_not_written_to_a_folder_called_gs():
    with pytest.raises(UserError, match='gs://bucket/run/reward_model: runs are written to local folders'):
        train_reward.train(reward_hparams(**{'run.save_dir': 'gs://bucket/run'}))


def test_reward_run_folder(tmp_path):
    run = str(tmp_path)
    train_reward.train(reward_hparams(**dict(NORMALIZE, **{'run.save_dir': run, 'debug_normalize': 64})))
    assert sorted(os.listdir(run)) == ['reward_model', 'tb', 'train_reward_hparams.json']
    model = os.path.join(run, 'reward_model')
    assert read_json(model, 'hparams.json')['n_embd'] == 7
    assert read_json(model, 'encoding') == 'test'
    values = checkpoint_values(model)
    assert 'reward_model/model/h1/mlp/c_proj/w' in values
    # Normalized: the rewards of a random head have neither mean 0 nor deviation 1.
    assert abs(values['reward_model/reward_norm/gain'] - 1) > 0.05 < abs(values['reward_model/reward_norm/bias'])
    losses = events(os.path.join(run, 'tb', 'reward_model'))
    assert [step for step, _ in losses['loss']] == [0, 1]
    assert set(losses) == {'loss', 'error', 'accuracy', 'gradient_norm', 'lr'}
    assert [lr for _, lr in losses['lr']] == pytest.approx([1e-2, 5e-3])
    assert all(norm > 0 for _, norm in losses['gradient_norm'])


def test_normalization_reaches_its_target(capsys, tmp_path):
    train_reward.train(reward_hparams(**dict(NORMALIZE, normalize_samples=512, debug_normalize=512)))
    line = capsys.readouterr().out.strip().splitlines()[-1]
    mean, std = map(float, line.split('measured anew: ')[1].rstrip(')').split(', '))
    assert abs(mean) < 0.2 and abs(std - 1) < 0.2


def test_policy_run_with_a_new_reward_model(tmp_path):
    run = str(tmp_path)
    new_model = {'rewards.train_new_model.' + name: value for name, value in dict(TASK, **LABELS).items()}
    train_policy.train(policy_hparams(**dict(new_model, **{'run.save_dir': run})))
    files = ['policy', 'reward_model', 'samples.jsonl', 'tb', 'train_policy_hparams.json', 'train_reward_hparams.json']
    assert sorted(os.listdir(run)) == files
    stats = events(os.path.join(run, 'tb', 'ppo'))
    expected = {'objective/' + tag for tag in ('kl', 'kl_coef', 'entropy', 'score', 'score_total')}
    expected |= {'ppo/loss/' + tag for tag in ('policy', 'value', 'total')}
    expected |= {'ppo/policy/' + tag for tag in ('entropy', 'approxkl', 'clipfrac')}
    expected |= {'ppo/returns/mean', 'ppo/returns/var', 'ppo/gradient_norm', 'ppo/lr'}
    expected |= {'ppo/val/' + t for t in ('vpred', 'error', 'clipfrac', 'mean', 'var', 'var_explained')}
    expected |= {'elapsed/' + tag for tag in ('updates', 'episodes', 'steps/serial', 'steps/total', 'fps', 'time')}
    assert set(stats) == expected
    assert [value for _, value in stats['elapsed/episodes']] == [8, 16, 24]
    # Before the first update policy and reference are the same; after it they are not.
    assert abs(stats['objective/kl'][0][1]) < 1e-5 < abs(stats['objective/kl'][2][1])
    values = checkpoint_values(os.path.join(run, 'policy'))
    assert {'policy/model/wte', 'ref_policy/model/wte', 'policy/model/heads/value/w'} <= set(values)
    assert np.abs(values['policy/model/wte'] - values['ref_policy/model/wte']).max() > 1e-3


def test_every_step_is_in_the_event_file_and_samples_at_each_interval(tmp_path, capsys):
    """72 episodes in batches of 16 are 5 steps: a part of a batch counts as a whole one."""
    run = str(tmp_path)
    overrides = {'ppo.total_episodes': 72, 'ppo.batch_size': 16, 'run.log_interval': 2, 'rewards.trained_model': 'test'}
    train_policy.train(policy_hparams(**dict(overrides, **{'run.save_dir': run})))
    stats = events(os.path.join(run, 'tb', 'ppo'))
    assert all([step for step, _ in points] == [0, 1, 2, 3, 4] for points in stats.values())
    assert [value for _, value in stats['elapsed/episodes']] == [16, 32, 48, 64, 80]
    assert [value for _, value in stats['ppo/lr']] == pytest.approx([1e-2, 8e-3, 6e-3, 4e-3, 2e-3])
    assert all(0 < value < np.inf for _, value in stats['ppo/gradient_norm'])
    blocks = re.split(r'^step ', capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert [block.split()[0] for block in blocks] == ['1/5', '3/5', '5/5']
    assert ['Samples before fine-tuning:' in block for block in blocks] == [True, False, False]
    assert ['Samples after fine-tuning:' in block for block in blocks] == [False, False, True]
    for block, number in zip(blocks, (4, 3, 4)):
        samples = re.findall(r'^  .* ▸ .*\[score (\S+), KL (\S+), total (\S+)\]$', block, re.MULTILINE)
        assert len(samples) == number
        for score, kl, total in np.array(samples, float):
            assert total == pytest.approx(score - 0.2 * kl, abs=0.02)


def test_ratings_report_the_labels_and_the_correlation(tmp_path):
    """The statistics of 2019 for the type scalar_rating, at every step."""
    labels = [dict(query=[1, 2], sample=[i % 20, 3, 4], score=float(i)) for i in range(16)]
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    overrides = {'labels.type': 'scalar_rating', 'labels.source': str(tmp_path / 'labels.json'), 'run.log_interval': 5}
    train_reward.train(reward_hparams(**dict(overrides, **{'run.save_dir': str(tmp_path)})))
    stats = events(str(tmp_path / 'tb' / 'reward_model'))
    assert set(stats) == {'loss', 'error', 'label_mean', 'label_var', 'corr', 'gradient_norm', 'lr'}
    order = np.random.RandomState(1).permutation(16)
    for step, mean in stats['label_mean']:
        assert mean == pytest.approx(order[8 * step : 8 * step + 8].mean())
    for step, variance in stats['label_var']:
        assert variance == pytest.approx(order[8 * step : 8 * step + 8].var())
    assert [step for step, _ in stats['corr']] == [0, 1] and all(abs(corr) <= 1 for _, corr in stats['corr'])


@pytest.mark.slow
def test_policy_learns_what_is_rewarded(tmp_path):
    # The random reward model prefers some letters: the mean score rises by more than the noise of a batch.
    run = str(tmp_path)
    overrides = {'ppo.batch_size': 64, 'ppo.total_episodes': 64 * 40, 'rewards.kl_coef': 0.0, 'ppo.lr': 3e-3}
    train_policy.train(policy_hparams(**dict(overrides, **{'run.save_dir': run, 'rewards.trained_model': 'test'})))
    scores = [value for _, value in events(os.path.join(run, 'tb', 'ppo'))['objective/score']]
    assert np.mean(scores[-5:]) > np.mean(scores[:5]) + 3 * np.std(scores[:5])


def test_adaptive_kl_moves_the_coefficient(tmp_path):
    run = str(tmp_path)
    overrides = {'rewards.adaptive_kl.target': 1.0, 'rewards.adaptive_kl.horizon': 100, 'run.save_dir': run}
    train_policy.train(policy_hparams(**dict(overrides, **{'rewards.trained_model': 'test'})))
    coefs = [value for _, value in events(os.path.join(run, 'tb', 'ppo'))['objective/kl_coef']]
    # KL 0 is far below the target, so the first change is the largest downwards: 1 − 0.2 · 8 / 100.
    assert coefs[:2] == pytest.approx([0.2, 0.2 * (1 - 0.2 * 8 / 100)], rel=1e-6)


def train_small_policy(folder):
    train_policy.train(policy_hparams(**{'run.save_dir': folder, 'rewards.trained_model': 'test'}))
    return folder


@pytest.fixture(scope='module')
def policy_run(tmp_path_factory):
    """Return the folder of a finished run, which the tests only read."""
    return train_small_policy(str(tmp_path_factory.mktemp('policy')))


def test_the_same_seed_gives_the_same_run(policy_run, tmp_path):
    runs = [policy_run, train_small_policy(str(tmp_path))]
    first, second = (checkpoint_values(os.path.join(run, 'policy')) for run in runs)
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_trained_models_are_found_in_run_folders(tmp_path):
    run = str(tmp_path)
    train_reward.train(reward_hparams(**{'run.save_dir': run}))
    assert find_reward_model(run).folder == find_reward_model(os.path.join(run, 'reward_model')).folder
    with pytest.raises(FileNotFoundError, match='no model at'):
        find_model(os.path.join(run, 'nothing'))


def test_language_model_training_and_use_as_initial_model(tmp_path):
    text = tmp_path / 'lines.txt'
    text.write_text('the cat sat on the mat.\nthe dog sat on the log.\n' * 200)
    hparams = train_lm.HParams()
    run = str(tmp_path / 'lm')
    hparams.override_from_dict(
        {
            'run.seed': 1,
            'run.save_dir': run,
            'dataset': f'text:{text}',
            'model.n_vocab': 270,
            'model.n_ctx': 16,
            'model.n_embd': 16,
            'model.n_head': 2,
            'model.n_layer': 1,
            'sequence_length': 8,
            'batch_size': 4,
            'epochs': 4,
            'lr': 1e-2,
            'dropout': 0.1,
            'weight_decay': 0.01,
        }
    )
    hparams.validate()
    train_lm.train(hparams)
    stats = events(os.path.join(run, 'tb', 'lm'))
    assert set(stats) == {'loss', 'gradient_norm', 'lr', 'held_out_loss'}
    steps = len(stats['loss'])
    assert [step for step, _ in stats['lr']] == list(range(steps)) == [step for step, _ in stats['gradient_norm']]
    warm = 2 / 100  # the second of the steps in which it rises
    assert stats['lr'][1][1] == pytest.approx(1e-2 * warm * (1 - 1 / steps))
    held_out = [value for _, value in stats['held_out_loss']]
    # Two sentences a text: all but the choice between them and the cut of the sequences can be known.
    assert held_out[-1] < 1.0 < held_out[0]
    assert sorted(os.listdir(os.path.join(run, 'model'))) == [
        'checkpoints',
        'encoder.json',
        'encoding',
        'hparams.json',
        'vocab.bpe',
    ]
    assert set(checkpoint_values(os.path.join(run, 'model'))) >= {'model/wte', 'model/h0/attn/c_attn/w'}
    overrides = {
        'task.policy.initial_model': run,
        'task.query_dataset': f'text:{text}',
        'task.start_text': None,
        'rewards.trained_model': 'test',
        'task.query_length': 8,
    }
    with pytest.raises(ValueError, match='another vocabulary'):
        train_policy.train(policy_hparams(**overrides))
    # From this model on, with half as fine a vocabulary, training goes on where it was.
    again = train_lm.HParams()
    again.override_from_nested_dict(hparams.to_nested_dict())
    again.override_from_dict({'initial_model': run, 'run.save_dir': str(tmp_path / 'again'), 'lr': 0.0, 'epochs': 1})
    train_lm.train(again)
    resumed = [value for _, value in events(str(tmp_path / 'again' / 'tb' / 'lm'))['held_out_loss']]
    assert resumed[0] == pytest.approx(min(held_out), rel=1e-4)


def test_samples_are_printed(policy_run, capsys):
    printed = {}
    for savescope in ('policy', 'ref_policy', 'policy'):
        sample.sample(SampleHParams(save_dir=policy_run, savescope=savescope, seed=3, batch_size=16, nsamples=96))
        again = printed.get(savescope)
        printed[savescope] = capsys.readouterr().out
        assert again in (None, printed[savescope])
    lines = printed['policy'].splitlines()
    assert len(lines) == 192 and all(line.startswith('  ▸ ') for line in lines[1::2])
    assert all(len(line.strip(' ▸')) <= 3 for line in lines[1::2])
    # The scope chooses the weights: at a learning rate this high the policy has left the initial model.
    assert printed['policy'] != printed['ref_policy']
    with pytest.raises(ValueError, match='no model under nobody/'):
        sample.sample(SampleHParams(save_dir=policy_run, savescope='nobody', nsamples=1))
