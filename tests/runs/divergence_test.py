"""A loss, reward, gradient or parameter that is NaN or infinite stops a run at once, and is never saved."""

import importlib.util
import json
import os

import numpy as np
import pytest
from launching import launch
from refusals import EXPERIMENT, Case, arguments, assert_line, good_labels, labels_with, refusal, write_files
from small_models import save_model

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.method.rewards import normalizing_gain_bias
from lm_human_preferences.runs.checkpoints import CheckpointWriter, latest_checkpoint
from lm_human_preferences.runs.divergence import check_finite
from lm_human_preferences.utils.errors import UserError

STOPPED = 'training diverged and stops; nothing of this step was saved: lower the learning rate'
LOOK = ', or look for extreme labels or rewards'
POLICY = ['--rewards.train_new_model=off', '--rewards.trained_model=test', '--run.save_interval=1']


def run(capsys, folder, *flags, command='train_reward', files=()):
    """Return the error line of a run in this process."""
    write_files(folder, {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels(), **dict(files)})
    return refusal(capsys, arguments(Case('', '', flags=flags, command=command), folder))


def values(folder):
    reader = tf.train.load_checkpoint(latest_checkpoint(folder))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_last_is_good(folder, step):
    assert latest_checkpoint(folder).endswith(f'model.ckpt-{step}')
    assert all(np.isfinite(value).all() for value in values(folder).values())


def ratings(extreme, seed=1):
    """16 ratings. One of them is extreme; it is in the second batch of 8."""
    labels = good_labels(score=0.5) * 2
    labels[np.random.RandomState(seed).permutation(16)[12]] = dict(labels[0], score=extreme)
    return {'labels.json': labels}


HEAD = 'reward_model/model/heads/reward/w'
RATING = ['--labels.type=scalar_rating', '--labels.num_train=16', '--run.save_interval=1']


@pytest.mark.parametrize(
    'score, fault',
    [
        (1e30, 'loss is inf (and so are … other statistics)'),
        (1e19, 'gradient_norm is inf'),  # the loss fits in a float32, but the square of its gradient does not
    ],
)
def test_an_extreme_label(score, fault, tmp_path, capsys):
    line = run(capsys, str(tmp_path), *RATING, files=ratings(score))
    assert_line(line, f'step 2: {fault}: {STOPPED}{LOOK}')
    assert_last_is_good(str(tmp_path / 'save' / 'run' / 'reward_model'), step=1)


def test_a_reward_model_whose_learning_rate_is_too_high(tmp_path, capsys):
    line = run(capsys, str(tmp_path), '--lr=1e38', '--labels.num_train=32', '--labels.source=test')
    assert_line(line, f'step 2: … is …: {STOPPED}{LOOK}')
    assert not os.path.exists(str(tmp_path / 'save' / 'run' / 'reward_model' / 'checkpoints' / 'checkpoint'))


def test_a_policy_whose_learning_rate_is_too_high(tmp_path, capsys):
    line = run(capsys, str(tmp_path), *POLICY, '--ppo.lr=1e38', command='train_policy')
    assert_line(line, f'step 1: ppo/… is nan (and so are … other statistics): {STOPPED}{LOOK}')
    assert not os.path.exists(str(tmp_path / 'save' / 'run' / 'policy' / 'checkpoints' / 'checkpoint'))


def test_a_run_that_diverged_resumes_from_its_last_good_checkpoint(tmp_path, capsys):
    """After the cause is fixed."""
    folder = str(tmp_path)
    line = run(capsys, folder, *RATING, files=ratings(1e30))
    assert_line(line, f'step 2: loss is inf…: {STOPPED}{LOOK}')
    write_files(folder, ratings(0.5))
    from lm_human_preferences.launcher import command_line

    command_line.main(arguments(Case('', '', flags=RATING), folder))
    assert 'resuming after step 1' in capsys.readouterr().out
    assert_last_is_good(str(tmp_path / 'save' / 'run' / 'reward_model'), step=2)


HUGE = 3.3e38  # a float32 can hold it, but not its tenfold


@pytest.mark.parametrize('gain, head_bias, shown', [(HUGE, 10.0, 'inf'), (HUGE, -10.0, '-inf'), (0.0, HUGE, 'nan')])
def test_a_reward_that_is_not_finite(gain, head_bias, shown, tmp_path, capsys):
    """PPO with a reward model of finite values whose rewards are not: the sum over the head or the gain overflows."""
    folder = str(tmp_path / 'reward' / 'reward_model')
    save_model(folder, ['reward_model/'], ['reward'])
    spoil(folder, 'reward_model/reward_norm/gain', gain)
    spoil(folder, 'reward_model/model/heads/reward/b', head_bias)
    if shown == 'nan':  # 0 · ∞
        spoil(folder, 'reward_model/model/heads/reward/w', np.full(values(folder)[HEAD].shape, HUGE))
        spoil(folder, 'reward_model/model/ln_f/b', np.full(values(folder)['reward_model/model/ln_f/b'].shape, 10.0))
    flags = [f'--task.policy.initial_model={tmp_path}/language', f'--rewards.trained_model={tmp_path}/reward']
    save_model(str(tmp_path / 'language'))
    line = run(capsys, str(tmp_path), POLICY[0], *flags, '--run.save_interval=1', command='train_policy')
    assert_line(line, f'step 1: objective/score is {shown} (and so are … other statistics): {STOPPED}{LOOK}')
    assert not os.path.exists(str(tmp_path / 'save' / 'run' / 'policy' / 'checkpoints' / 'checkpoint'))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_reward_model_with_a_value_that_is_not_finite(value, tmp_path, capsys):
    """It is refused when it is loaded: the learning rate is not to blame."""
    folder = str(tmp_path / 'reward' / 'reward_model')
    save_model(folder, ['reward_model/'], ['reward'])
    spoil(folder, 'reward_model/reward_norm/bias', value)
    flags = [f'--task.policy.initial_model={tmp_path}/language', f'--rewards.trained_model={tmp_path}/reward']
    save_model(str(tmp_path / 'language'))
    line = run(capsys, str(tmp_path), POLICY[0], *flags, command='train_policy')
    assert_line(line, '…reward_norm/bias has a value that is not finite: the model in this checkpoint is broken')


def spoil(folder, name, value):
    """Set a variable of a checkpoint."""
    variables = dict(values(folder), **{name: np.asarray(value, np.float32)})
    path = latest_checkpoint(folder)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        for variable, content in variables.items():
            tf.get_variable(variable, initializer=tf.constant(content))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, path, write_meta_graph=False)
    for state in [name for name in os.listdir(os.path.dirname(path)) if name.startswith('state-')]:
        os.unlink(os.path.join(os.path.dirname(path), state))


def test_a_language_model_whose_learning_rate_is_too_high(tmp_path, capsys):
    files = {'texts.txt': 'we saw a cat.\n' * 100}
    flags = ['--lr=1e38', '--warmup_steps=0', '--run.save_interval=1']
    line = run(capsys, str(tmp_path), *flags, command='train_lm', files=files)
    assert_line(line, f'step 2: … is …: {STOPPED}{LOOK}')
    assert_last_is_good(str(tmp_path / 'save' / 'run' / 'training'), step=1)


def test_rewards_that_cannot_be_normalized():
    for mean, std in ((np.nan, 1.0), (0.0, np.inf), (np.inf, np.nan)):
        with pytest.raises(ValueError, match='cannot normalize rewards of mean .*: the model that gave them is broken'):
            normalizing_gain_bias(mean, std)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_variable_that_is_not_finite_is_not_saved(value, tmp_path):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        good = tf.get_variable('good', initializer=tf.zeros([3]), use_resource=True)
        bad = tf.get_variable('bad', initializer=tf.zeros([2]), use_resource=True)
        steps = tf.get_variable('steps', initializer=tf.constant(3), use_resource=True)
        session.run(tf.global_variables_initializer())
        writer = CheckpointWriter(str(tmp_path), [good, bad, steps])
        graph.finalize()
        writer.save(session, 1)
        bad.load([0, value], session)
        with pytest.raises(UserError, match='step 2: bad:0 is not finite: training diverged and stops'):
            writer.save(session, 2)
    assert_last_is_good(str(tmp_path), step=1)


def test_check_finite():
    stats = {'objective/kl': 1.0, 'ppo/gradient_norm': 2.0}
    check_finite(stats, 1)
    assert stats == {'objective/kl': 1.0, 'ppo/gradient_norm': 2.0}
    with pytest.raises(UserError, match=r'step 7: b is inf: training diverged'):
        check_finite({'a': 1.0, 'b': float('inf')}, 7)
    with pytest.raises(UserError, match=r'step 7: a is nan \(and so are 1 other statistics\): training'):
        check_finite({'a': float('nan'), 'b': float('inf'), 'c': 0.0}, 7)


def launched(folder, ranks, *flags, command='train_reward'):
    """Return the one error line of a run in processes of its own."""
    argv = [word for word in arguments(Case('', '', flags=flags, command=command), folder) if word != '--mpi=1']
    status, _, errors = launch(*argv, f'--mpi={ranks}', environment=dict(os.environ, CUDA_VISIBLE_DEVICES=''))
    assert status == 2, errors
    (line,) = errors.splitlines()
    assert line.startswith('error: ')
    return line[len('error: ') :]


needs_mpi = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='needs mpi4py')


@pytest.mark.slow
@needs_mpi
def test_all_ranks_stop_with_one_line(tmp_path):
    """The extreme label is in the share of one rank."""
    folder = str(tmp_path)
    write_files(folder, {'tiny.yaml': EXPERIMENT, **ratings(1e30)})
    # The other rank sees only the infinite gradient, which all ranks share. The first rank to stop prints its line.
    assert_line(launched(folder, 2, *RATING), f'step 2: … is inf…: {STOPPED}{LOOK}')
    model = os.path.join(folder, 'save', 'run', 'reward_model')
    assert_last_is_good(model, step=1)
    with open(os.path.join(model, 'hparams.json')) as file:
        assert json.load(file)['n_embd'] == 7


@pytest.mark.parametrize('ranks', [1, pytest.param(2, marks=[needs_mpi, pytest.mark.slow])])
@pytest.mark.parametrize(
    'flag, expected',
    [
        ('--labels.type=best_of_4', "DIR/labels.json: entry 5: field 'best': 9 is none of the 4 samples"),
        ('--task.policy.initial_model=DIR/none', 'no model at DIR/none: …'),
        ('--task.query_dataset=text:DIR/texts.txt', 'DIR/texts.txt: line 2: not UTF-8 text: byte 2 of the line'),
    ],
)
def test_processes_refuse_with_one_line(ranks, flag, expected, tmp_path):
    files = {'labels.json': labels_with(best=9), 'texts.txt': b'a.b\n' + b'ab\xff\n'}
    write_files(str(tmp_path), {'tiny.yaml': EXPERIMENT, **files})
    flags = [flag.replace('DIR', str(tmp_path))]
    flags += [] if 'best_of_4' in flag else ['--labels.source=test']
    assert_line(launched(str(tmp_path), ranks, *flags), expected, str(tmp_path))
