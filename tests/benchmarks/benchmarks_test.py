"""The benchmarks, on a tiny model: what they hold times against, several ranks, and another checkout."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams


def printed(script, *arguments):
    command = [sys.executable, os.path.join(ROOT, 'benchmarks', script), '--model=tiny', '--repeats=1', *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()


@pytest.mark.parametrize('ranks', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_is_held_against_the_arithmetic_of_a_rank(ranks):
    lines = printed('ppo_step.py', f'--ranks={ranks}', '--json').splitlines()
    assert [line.split()[1] for line in lines[2:-2]] == ['sample', 'reference', 'score', 'train', 'step']
    figures = json.loads(lines[-1])
    assert figures['ranks'] == ranks
    # Two layers of width 64 over 64 + 23 tokens, each attending to 44 on average, and 24 times 512 logits.
    forward = 2 * 87 * (24 * 64**2 + 4 * 64 * 44) + 24 * 2 * 64 * 512
    arithmetic = figures['limits']['train'] * figures['gflops'] * 1e9
    assert arithmetic == pytest.approx(4 * 3 * forward * 8 / ranks)
    assert figures['limits']['reference'] == pytest.approx(figures['limits']['train'] / 12)


def test_the_exponent_of_growth():
    from ppo_step import growth_exponent

    assert growth_exponent([(1, 3), (2, 12), (4, 48)]) == pytest.approx(2)
    assert growth_exponent([(2.0, 5.1), (4.0, 9.8), (8.0, 20.3)]) == pytest.approx(0.996, abs=1e-3)


@pytest.mark.slow
def test_ranks_train_a_shared_reward_batch_as_the_naive_graph_does():
    text = printed('reward_batch.py', '--ranks=2')
    ours, naive = re.search(r'losses of the first step (\S+) and (\S+);', text).groups()
    assert float(ours) == pytest.approx(float(naive), abs=2e-6)
    assert 0.5 < float(ours) < 4  # cross entropy of four samples


def test_ranks_are_not_started_from_within_ranks():
    script = os.path.join(ROOT, 'benchmarks', 'limits.py')
    done = subprocess.run(
        [sys.executable, script, '--ranks=2'], env=dict(os.environ, BENCHMARK_RANKS='2'), stderr=subprocess.PIPE
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith('error: mpiexec has started 1 ranks')


@pytest.mark.slow
def test_another_checkout_is_the_one_that_is_measured(tmp_path):
    package = tmp_path / 'other' / 'lm_human_preferences'
    shutil.copytree(os.path.join(ROOT, 'lm_human_preferences'), str(package))
    with open(str(package / 'method' / 'policy.py'), 'a') as file:
        file.write(f'\nopen({str(tmp_path / "measured")!r}, "a").write("x")\n')
    arguments = ['--against', str(tmp_path / 'other'), '--pairs=1', '--batches=2', '--response=3']
    row = printed('sampling.py', *arguments).splitlines()[-1].strip('| ').split('|')
    assert (tmp_path / 'measured').read_text() == 'x'  # one of the pair
    theirs, ours, ratio = map(float, row[1:4])
    assert theirs > 0 and ours > 0 and 0.05 < ratio < 20


@pytest.mark.filterwarnings('ignore:Converting sparse IndexedSlices')
def test_the_plain_row_computes_what_ours_does():
    from plain_row import PlainModel

    random = np.random.RandomState(0)
    tokens, slopes = random.randint(0, 27, [3, 9]), random.standard_normal([3, 9, 27]).astype(np.float32)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        plain = PlainModel(ModelHParams(n_vocab=27, n_ctx=12, n_embd=16, n_head=2, n_layer=2), 'model', 'value')
        first, cache = plain(tf.constant(tokens[:, :5]))
        rest, _ = plain(tf.constant(tokens[:, 5:]), cache)
        hidden = [tf.concat([first, rest], axis=1), plain.model(tf.constant(tokens, tf.int32)).hidden]
        logits = [plain.logits(hidden[0]), plain.model.logits(hidden[1])]
        variables = [variable for name, variable in plain.variables.items() if not name.startswith('heads/')]
        gradients = [tf.gradients(tf.reduce_sum(each * slopes), variables) for each in logits]
        gradients = [[tf.convert_to_tensor(gradient) for gradient in each] for each in gradients]
        session.run(tf.global_variables_initializer())
        hidden, gradients = session.run([hidden, gradients])
    np.testing.assert_allclose(*hidden, rtol=1e-4, atol=1e-5)
    assert np.abs(hidden[1]).max() > 1
    for variable, theirs, ours in zip(variables, *gradients):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4, err_msg=variable.name)
        assert np.abs(ours).max() > 1e-3


def test_the_plain_row_goes_through_a_step():
    figures = json.loads(printed('plain_row.py').splitlines()[-1])
    assert sorted(figures['phases']) == ['reference', 'sample', 'score', 'train']
    assert figures['step'] == pytest.approx(sum(figures['phases'].values()), rel=1e-6)
