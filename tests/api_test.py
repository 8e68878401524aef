"""Trained models from Python: what they compute, the input they take, and the memory they free."""

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import warnings
import weakref

import numpy as np
import pytest
from repository import ROOT
from small_models import save_model

import lm_human_preferences
from lm_human_preferences import load_policy, load_reward_model
from lm_human_preferences.evaluation.policies import held_out_queries, respond_and_score
from lm_human_preferences.language.run_models import find_policies, run_policy, run_reward_model
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.runs.run_folder import RunFolder
from lm_human_preferences.utils.errors import UserError

PROMPTS = ['ab', 'c', 'xyz.']
MODELS = 20


@pytest.fixture(scope='module')
def policy(tiny_run):
    with load_policy(tiny_run.folder, batch_size=4) as model:
        yield model


@pytest.fixture(scope='module')
def reward_model(tiny_run):
    with load_reward_model(tiny_run.folder, batch_size=4) as model:
        yield model


def test_importing_the_package_loads_neither_tensorflow_nor_numpy():
    code = 'import sys, lm_human_preferences; print([m for m in ("tensorflow", "numpy") if m in sys.modules])'
    printed = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    assert printed == b'[]\n'
    assert {'load_policy', 'load_reward_model', '__version__'} <= set(dir(lm_human_preferences))
    with pytest.raises(AttributeError, match='has no attribute .load_polic.'):
        lm_human_preferences.load_polic  # noqa: B018


def test_responses_and_scores_are_those_of_sample(tiny_run, policy, reward_model, tmp_path, capsys):
    prompts = tmp_path / 'prompts.jsonl'
    prompts.write_text(''.join(json.dumps(prompt) + '\n' for prompt in PROMPTS))
    flags = [f'--save_dir={tiny_run.folder}', f'--prompt_file={prompts}', '--seed=5', '--nsamples=6', '--mpi=1']
    capsys.readouterr()
    main(['sample', *flags, '--temperature=1.5', '--top_k=20', '--top_p=0.9', '--scores', '--jsonl'])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with pytest.warns(UserWarning, match='1 of 3 queries are cut to their last 2 tokens: the longest has 4'):
        responses = policy.respond(PROMPTS, num_samples=2, seed=5, temperature=1.5, top_k=20, top_p=0.9)
    assert responses.queries == ['ab', 'ab', 'c', 'c', 'xyz.', 'xyz.']
    assert responses.texts == [rows[i]['response'] for i in (0, 3, 1, 4, 2, 5)]
    assert len(set(responses.texts)) > 3
    scores = reward_model.score(['ab', 'ab', 'c', 'c', 'z.', 'z.'], responses.tokens)
    np.testing.assert_allclose(scores, [rows[i]['score'] for i in (0, 3, 1, 4, 2, 5)], atol=1e-4)


def test_responses_logprobs_and_scores_are_those_of_evaluate(tiny_run, policy, reward_model):
    run = RunFolder(tiny_run.folder)
    task = Task(run.task, policy.encoding)
    held_out = held_out_queries(task, 'test', 6, seed=3)
    models = run_policy(run, 'ref_policy'), run_reward_model(run)
    (found,) = respond_and_score(find_policies([tiny_run.folder], run), *models, task, held_out, 4, 3, {}).values()
    responses = policy.respond(held_out.queries, seed=3)
    np.testing.assert_array_equal(responses.tokens, found.responses)
    np.testing.assert_array_equal(responses.logprobs, found.logprobs)
    assert responses.queries == held_out.texts
    np.testing.assert_array_equal(reward_model.score(held_out.queries, responses.tokens), found.scores['score'])
    with load_policy(tiny_run.folder, savescope='ref_policy') as initial:
        logprobs = initial.logprobs(held_out.queries, responses.tokens)
    np.testing.assert_allclose(logprobs, found.ref_logprobs, atol=1e-5)
    assert np.abs(logprobs - responses.logprobs).max() > 0.01


def test_logprobs_of_sampled_tokens_are_those_of_sampling(policy):
    responses = policy.respond(['ab', 'c'], num_samples=3, seed=1, temperature=2.0)
    np.testing.assert_allclose(
        policy.logprobs(responses.queries, responses.tokens, temperature=2.0), responses.logprobs, atol=1e-5
    )
    assert np.abs(policy.logprobs(responses.queries, responses.texts) - responses.logprobs).max() > 0.01


def test_a_shorter_response_has_the_probabilities_of_its_own_tokens(policy):
    whole, part, none = policy.logprobs('ab', ['abc', 'ab', ''])
    np.testing.assert_allclose(part[:2], whole[:2], atol=1e-6)
    assert part[2] == 0 and (whole < 0).all() and not none.any()
    shares = np.exp(policy.logprobs('ab', [chr(ord('a') + i) for i in range(26)] + ['.'])[:, 0])
    assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_one_text_is_a_list_of_one(policy, reward_model):
    one, several = policy.respond('ab', seed=1), policy.respond(['ab', 'c'], seed=1)
    assert one.queries == ['ab'] and len(one.texts) == 1 and one.tokens.shape == one.logprobs.shape == (1, 3)
    assert one.texts[0] == several.texts[0]
    assert policy.respond(('ab', 'c'), seed=1).texts == policy.respond(np.array(['ab', 'c']), seed=1).texts
    np.testing.assert_array_equal(reward_model.score('ab', 'abc'), reward_model.score(['ab'], ['abc']))
    assert reward_model.score('ab', ['abc', 'xyz']).shape == (2,)


def test_the_text_does_not_depend_on_the_batch_or_on_the_settings_before(tiny_run, policy):
    expected = policy.respond(['ab', 'c'], num_samples=5, seed=2).texts
    assert policy.respond(['ab', 'c'], num_samples=5, seed=3).texts != expected
    assert policy.respond(['ab', 'c'], seed=2).texts == expected[::5]
    greedy = policy.respond(['ab', 'c'], num_samples=5, temperature=0)
    assert len(set(greedy.texts)) <= 2 and not greedy.logprobs.any()
    assert policy.respond(['ab', 'c'], num_samples=5, seed=2).texts == expected
    texts = {tuple(policy.respond('ab', num_samples=4).texts) for _ in range(3)}
    assert len(texts) == 3  # without a seed
    with load_policy(tiny_run.folder, batch_size=3) as other:
        assert other.respond(['ab', 'c'], num_samples=5, seed=np.int64(2)).texts == expected


def test_a_response_is_scored_up_to_its_end(tiny_run):
    with load_reward_model(tiny_run.folder, truncate_token=26, truncate_after=1) as model:
        scores = model.score('ab', ['.a.', '.a', 'a.b', 'a.c', 'a.'])
    assert scores[2] == pytest.approx(scores[3]) == pytest.approx(scores[4])
    assert scores[0] != pytest.approx(scores[1])


def test_a_model_without_a_run_needs_the_length_of_a_response(tmp_path):
    save_model(str(tmp_path / 'lm'))
    with pytest.raises(UserError, match='lm is a model without a task: give response_length'):
        load_policy(str(tmp_path / 'lm'))
    with load_policy(str(tmp_path / 'lm'), response_length=2, query_suffix='b', temperature=0.5) as policy:
        assert (policy.task.query_length, policy.task.policy.temperature) == (8 - 2 - 1, 0.5)
        assert policy.respond('abc').tokens.shape == (1, 2)
    with load_policy('demo', response_length=5) as policy:
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)
            responses = policy.respond(['Ünïcödé 電影 🎬', 'It was'], seed=1)
        assert responses.queries[0] == 'Ünïcödé 電影 🎬' and policy.task.query_length == 64
        assert all(isinstance(text, str) and text for text in responses.texts)
    with load_reward_model('test', query_length=2, response_length=3) as model:
        assert model.score('ab', 'abc').shape == (1,)


BAD = [
    (lambda policy, _: policy.respond([]), 'give a list with one query or more, not'),
    (lambda policy, _: policy.respond(None), 'give a list with one query or more, not None'),
    (lambda policy, _: policy.respond(b'ab'), "give a list with one query or more, not b'ab'"),
    (lambda policy, _: policy.respond(['ab', '']), 'query 1: it is empty: a query needs a text'),
    (lambda policy, _: policy.respond(['ab', None]), 'query 1: it must be a text or a row of token ids, not None'),
    (lambda policy, _: policy.respond([1, 2]), 'query 0: it must be a text or a row of token ids, not 1'),
    (lambda policy, _: policy.respond(['É']), "query 0: the vocabulary 'test' cannot encode 'É'"),
    (lambda policy, _: policy.respond([[3, 99]]), 'query 0: 99 is no token of the vocabulary of 27'),
    (lambda policy, _: policy.respond([[1, 2, 3]]), 'query 0 has 3 tokens, and the query_length of the task is 2'),
    (lambda policy, _: policy.respond('ab', num_samples=0), 'num_samples must be 1 or more, not 0'),
    (lambda policy, _: policy.respond('ab', num_samples=2.5), 'num_samples should be'),
    (lambda policy, _: policy.respond('ab', top_p=0), 'top_p must be above 0 and at most 1'),
    (lambda policy, _: policy.respond('ab', top_k=-1), 'top_k must be 0 or above'),
    (lambda policy, _: policy.respond('ab', temperature=-1), 'temperature must be 0 or between'),
    (lambda policy, _: policy.respond('ab', seed='x'), 'seed should be'),
    (lambda policy, _: policy.logprobs('ab', 'abc', temperature=0), 'temperature must be between'),
    (lambda policy, _: policy.logprobs(['ab', 'c'], ['a']), 'there are 2 queries and 1 responses: give one query'),
    (lambda _, model: model.score(['ab'], ['abc', 'abc']), 'there are 1 queries and 2 responses: give one query'),
    (lambda _, model: model.score('ab', ['abc', 'abcd']), 'response 1 has 4 tokens, and the response_length of'),
    (lambda _, model: model.score('ab', []), 'give a list with one response or more'),
    (lambda _, model: model.score('', 'abc'), 'query 0: it is empty'),
    (lambda _, model: model.score('ab', [[27, 1]]), 'response 0: 27 is no token'),
]


@pytest.mark.parametrize('call, message', BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_clear_error(policy, reward_model, call, message):
    with pytest.raises(UserError) as error:
        call(policy, reward_model)
    assert str(error.value).startswith(message) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'load, error, message',
    [
        (lambda run: load_policy(run + '-none'), FileNotFoundError, 'no model at'),
        (lambda run: load_policy(None), UserError, 'name must be a text, not None'),
        (lambda run: load_policy(run, batch_size=0), UserError, 'batch_size must be a whole number of 1 or more'),
        (lambda run: load_policy(run, lenght=3), UserError, 'no hyperparameter lenght: did you mean'),
        (lambda run: load_policy(run, response_length='x'), UserError, 'response_length should be'),
        (lambda run: load_policy(run, response_length=9), ValueError, 'are 11, but the model of'),
        (lambda run: load_policy(run, temperature=0.0), UserError, 'temperature must be above 0'),
        (lambda run: load_policy(run, savescope='x'), ValueError, 'no model under x/'),
        (lambda run: load_reward_model('demo', response_length=3), UserError, 'not a reward model: give a run of'),
        (lambda run: load_reward_model(run + '/reward_model'), UserError, 'is a model without a task'),
        (lambda run: load_reward_model(run + '-none'), FileNotFoundError, 'no model at'),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_error(tiny_run, load, error, message):
    with pytest.raises(error, match=message) as raised:
        load(tiny_run.folder)
    assert '\n' not in str(raised.value)


def test_a_closed_model_says_so(tiny_run):
    policy = load_policy(tiny_run.folder)
    policy.close()
    policy.close()
    with pytest.raises(UserError, match='tiny is closed: load it again'):
        policy.respond('ab')


def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


@pytest.mark.slow
def test_models_that_are_dropped_free_their_memory(tiny_run):
    graphs, sizes = [], []
    for number in range(MODELS):
        policy = load_policy(tiny_run.folder, batch_size=2)
        reward_model = load_reward_model(tiny_run.folder, batch_size=2)
        responses = policy.respond(['ab', 'c'], seed=1, top_p=0.9)
        policy.logprobs(responses.queries, responses.tokens)
        reward_model.score(responses.queries, responses.tokens)
        graphs += [weakref.ref(model._in_use._graph) for model in (policy, reward_model)]
        if number % 2:  # the others are only dropped
            policy.close()
            reward_model.close()
        del policy, reward_model
        gc.collect()
        sizes.append(resident())
    assert not [graph for graph in graphs if graph() is not None]
    assert sizes[-1] - sizes[4] < 15, sizes  # the graphs of one turn take several MB


def hparams_of(tiny_run, folder, command):
    from lm_human_preferences.hyperparameters import TREES

    with open(os.path.join(tiny_run.folder, f'{command}_hparams.json')) as file:
        hparams = TREES[command]()
        hparams.override_from_nested_dict(json.load(file))
    hparams.run.save_dir = str(folder)
    return hparams


@pytest.mark.parametrize('command', ['train_reward', 'train_policy'])
def test_training_returns_what_it_did_and_says_the_same_again(tiny_run, tmp_path, command):
    train = getattr(__import__(f'lm_human_preferences.{command}'), command).train
    hparams = hparams_of(tiny_run, tmp_path / 'run', command)
    if command == 'train_policy':
        hparams.ppo.total_episodes = 16
        hparams.rewards.train_new_model, hparams.rewards.trained_model = None, tiny_run.folder
    with contextlib.redirect_stdout(io.StringIO()):
        first, again = train(hparams), train(hparams)
    steps = 4 if command == 'train_reward' else 1
    assert (first.folder, first.steps) == (str(tmp_path / 'run'), steps)
    assert ('loss' if command == 'train_reward' else 'objective/score') in first.statistics
    assert again == first
    load = load_reward_model if command == 'train_reward' else load_policy
    with load(first.folder) as model:
        assert model.task.response_length == 3
    hparams.run.save_dir = None
    with contextlib.redirect_stdout(io.StringIO()):
        unsaved = train(hparams)
    assert unsaved.folder is None and unsaved.steps == steps and set(unsaved.statistics) == set(first.statistics)
