"""The benchmarks, on a tiny model: what they hold times against, several ranks, and another checkout."""

import argparse
import ast
import glob
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import ragged
from demo_frontier import best_of
from measuring import SHARE_COLUMNS
from repository import ROOT

from lm_human_preferences.evaluation.policies import PolicyResponses
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams


def printed(script, *arguments):
    command = [sys.executable, os.path.join(ROOT, 'benchmarks', script), '--model=tiny', '--repeats=1', *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()


def checksum_of_episodes(real):
    return ragged.episodes(argparse.Namespace(real=real, query=64, response=24), 8, 512).checksum()


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


SCRIPTS = sorted(glob.glob(os.path.join(ROOT, 'benchmarks', '*.py')) + glob.glob(os.path.join(ROOT, 'tools', '*.py')))


@pytest.mark.parametrize('path', SCRIPTS, ids=os.path.basename)
def test_a_script_finds_the_package_of_its_checkout(path):
    with open(path, encoding='utf-8') as f:
        statements = ast.parse(f.read()).body
    is_script = any('__name__' in ast.dump(statement.test) for statement in statements if isinstance(statement, ast.If))
    imports = [s.module for s in statements if isinstance(s, ast.ImportFrom) and s.module.startswith('lm_human_')]
    if is_script and imports:
        lines = [ast.dump(statement) for statement in statements]
        package = next(i for i, line in enumerate(lines) if repr(imports[0]) in line)
        assert any("'measuring'" in line or "attr='insert'" in line for line in lines[:package])


@pytest.mark.slow
def test_the_loss_per_word_of_the_demo_model(tmp_path):
    command = [sys.executable, os.path.join(ROOT, 'benchmarks', 'loss_per_word.py'), 'demo', 'nothing']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    loss, *words = done.stdout.decode().split()
    assert float(loss) == pytest.approx(6.6821, abs=2e-4) and words == ['nats', 'a', 'word', 'demo']
    assert done.returncode == 2 and 'error: nothing: no model at nothing' in done.stderr.decode()


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


@pytest.mark.slow
def test_ranks_are_compared_with_one_rank_on_one_core():
    lines = printed('scaling.py', '--ranks', '2', '--batch=4').splitlines()[1:]
    columns, _, alone, *shared = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    alone, shared = dict(zip(columns, alone)), [dict(zip(columns, row)) for row in shared]
    assert (alone['ranks'], alone['cores'], alone['times one core']) == ('1', '1', '1')
    assert float(alone['MB sent per rank']) == 0
    assert shared and all(row['ranks'] == '2' for row in shared)  # by mpi4py, and by Horovod where it is installed
    for row in shared:
        faster = float(alone['step s']) / float(row['step s'])
        assert float(row['times one core']) == pytest.approx(faster, rel=0.02)
        assert float(row['MB sent per rank']) == pytest.approx(0.565, rel=0.02)  # the model of 140 thousand parameters


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


@pytest.mark.slow
def test_the_memory_of_train_lm_is_measured_on_a_text_and_on_a_longer_one():
    command = [sys.executable, os.path.join(ROOT, 'benchmarks', 'lm_memory.py'), '--tokens=320000', '--json']
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode().splitlines()[-1])
    for times, row in figures.items():
        assert row['tokens'] == pytest.approx(320000 * int(times), rel=0.01) and row['tokens'] == pytest.approx(
            249 * row['texts'], rel=0.01
        )
        assert 50 < row['own, MB'] < row['peak, MB'] and row['token files, MB'] == 0  # small texts have no files
    assert sorted(figures) == ['1', '4']


def test_an_episode_has_the_share_of_real_tokens_and_its_arithmetic():
    figures = json.loads(printed('ppo_step.py', '--real=0.6', '--phases', 'score', 'train', '--json').splitlines()[-1])
    assert figures['batch_checksum'] == checksum_of_episodes(0.6)
    assert figures['real']['train'] == pytest.approx(0.6, abs=1 / (8 * 88))
    # 24 of 88 tokens are the response: the rest of the share is in the query.
    assert figures['real']['prefill'] == pytest.approx((0.6 * 88 - 24) / 64, abs=1 / (8 * 64))
    # Responses are scored up to an end that comes after 5/6 of them on average.
    assert figures['real']['score'] == pytest.approx(figures['real']['train'] - 4 / 88, abs=1 / (8 * 88))
    full = 8 * (2 * 87 * (24 * 64**2 + 4 * 64 * 44) + 24 * 2 * 64 * 512)
    arithmetic = figures['limits']['train'] * figures['gflops'] * 1e9 / (4 * 3)
    assert 0.58 < arithmetic / full < 0.66  # logits are at all tokens of the responses


@pytest.mark.parametrize('script, phases', [('ppo_step.py', 4), ('reward_batch.py', 1)])
def test_time_by_share_is_compared_with_full_rows(script, phases):
    head, _, *lines = printed(script, '--shares', '0.5', '0.75').splitlines()[:-1]
    columns, *rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in [head, *lines]]
    assert columns == SHARE_COLUMNS
    assert len(rows) == 3 * phases
    for i in range(0, len(rows), 3):
        *parts, full = [list(map(float, row[1:])) for row in rows[i : i + 3]]
        assert full[0] == 1 and full[3:6] == [1, 1, 1]
        for real, wall, processor, of_full, processor_of_full, arithmetic, aim in parts:
            assert wall > 0 and processor > 0 and of_full > 0 and processor_of_full > 0
            assert arithmetic < 0.9 and aim == pytest.approx(real + 0.06, abs=2e-3)
    whole = [float(row[1]) for row in rows[-3:]]  # of training, or of the reward step
    assert whole == pytest.approx([0.5, 0.75, 1], abs=2e-3)


@pytest.mark.filterwarnings('ignore:Converting sparse IndexedSlices')
def test_the_plain_row_computes_what_ours_does():
    from plain_row import PlainModel

    random = np.random.RandomState(0)
    tokens, slopes = random.randint(0, 27, [3, 9]), random.standard_normal([3, 9, 27]).astype(np.float32)
    real = np.ones([3, 9], bool)
    real[1, :3] = real[2, 3:6] = real[2, 8:] = False
    tokens[~real], slopes[~real] = 29, 0
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        plain = PlainModel(ModelHParams(n_vocab=27, n_ctx=12, n_embd=16, n_head=2, n_layer=2), 'model', 'value')
        first, cache = plain(tf.constant(tokens[:, :5], tf.int32), tf.constant(real[:, :5]))
        rest, _ = plain(tf.constant(tokens[:, 5:], tf.int32), tf.constant(real), cache)
        hidden = [tf.concat([first, rest], axis=1), plain.model(tf.constant(tokens, tf.int32), 29).hidden]
        logits = [plain.logits(hidden[0]), plain.model.logits(hidden[1])]
        variables = [variable for name, variable in plain.variables.items() if not name.startswith('heads/')]
        gradients = [tf.gradients(tf.reduce_sum(each * slopes), variables) for each in logits]
        gradients = [[tf.convert_to_tensor(gradient) for gradient in each] for each in gradients]
        session.run(tf.global_variables_initializer())
        hidden, gradients = session.run([hidden, gradients])
    theirs, ours = (array[real] for array in hidden)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
    assert np.abs(ours).max() > 1
    for variable, theirs, ours in zip(variables, *gradients):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4, err_msg=variable.name)
        assert np.abs(ours).max() > 1e-3


def test_the_plain_row_goes_through_a_step_on_the_same_episodes_as_ours():
    figures = json.loads(printed('plain_row.py', '--real=0.6').splitlines()[-1])
    for clock in ('seconds', 'processor'):
        *phases, step = figures[clock].values()
        assert list(figures[clock]) == ['sample', 'reference', 'score', 'train', 'step']
        assert step == pytest.approx(sum(phases), rel=1e-6)
    assert figures['batch_checksum'] == checksum_of_episodes(0.6)


@pytest.mark.slow
def test_the_stages_of_a_run_and_their_saves():
    figures = json.loads(printed('stages.py', '--steps=4', '--labels=8', '--json').splitlines()[-1])
    assert list(figures) == ['policy', 'reward model']
    for stage, models in (('reward model', 3), ('policy', 5)):
        row = figures[stage]
        assert (row['steps'], row['saves']) == (4, 4) and row['s a step'] > 0 and row['s a save'] > 0
        bytes_of_a_model = 4 * (512 * 64 + 128 * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64)
        # The parameters in training and Adam's two moments; the policy's reference and the reward model.
        assert row['last GB'] * 2**30 == pytest.approx(models * bytes_of_a_model, rel=0.03)
        assert row['peak GB'] >= row['GB at its end'] > 0.1


def test_the_best_of_the_first_responses_to_each_query():
    scores = np.array([0.1, 0.9, 2.0, -0.5, 5.0, -0.2, 0.3, 0.4])  # of two queries, four responses each
    rows = np.arange(8)
    many = PolicyResponses(
        texts=[f'text {row}' for row in rows],
        responses=rows[:, np.newaxis],
        truncated=rows[:, np.newaxis],
        valid=np.array([True, True, True, True, False, True, True, True]),
        logprobs=-rows[:, np.newaxis],
        ref_logprobs=-rows[:, np.newaxis],
        scores={'score': scores, 'VADER': -scores},
    )
    chosen = best_of(2, many, 4, -1)
    assert chosen.texts == ['text 1', 'text 5']  # text 4 does not end in time: its score is the penalty
    assert chosen.scores['VADER'].tolist() == [-0.9, 0.2] and chosen.logprobs[:, 0].tolist() == [-1, -5]
    assert best_of(4, many, 4, -1).texts == ['text 2', 'text 7']
