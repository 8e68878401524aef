"""`sample`: prompts, several policies, scores, and text that does not depend on the batch."""

import importlib.util
import io
import json
import math
import shutil

import numpy as np
import pytest
from launching import launch
from refusals import assert_line, refusal
from small_models import save_model

from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.language.run_models import run_reward_model
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.method.inference import Responder, Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.seeds import uniforms_of_samples
from lm_human_preferences.runs.run_folder import RunFolder, short_names
from lm_human_preferences.utils.errors import UserError


@pytest.fixture
def sample(tiny_run, capsys):
    """Return a function that runs `sample` and returns its standard output and standard error."""

    def run(*flags):
        capsys.readouterr()
        main(['sample', '--save_dir', tiny_run.folder, '--mpi=1', '--seed=5', *flags])
        return capsys.readouterr()

    return run


def test_the_same_seed_gives_the_same_text_at_any_batch_size(sample):
    texts = [sample('--nsamples=7', f'--batch_size={size}').out for size in (1, 3, 7, 64)]
    assert len(set(texts)) == 1 and texts[0].count('▸') == 7
    assert sample('--nsamples=4').out == ''.join(texts[0].splitlines(keepends=True)[:8])
    assert sample('--nsamples=7', '--seed=6').out != texts[0]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='needs mpi4py')
def test_two_ranks_share_the_samples_of_one(tiny_run, sample):
    one = sample('--nsamples=5').out
    flags = [f'--save_dir={tiny_run.folder}', '--seed=5', '--nsamples=5', '--mpi=2']
    status, two, errors = launch('sample', *flags)
    assert (status, errors) == (0, '')
    assert sorted(two.splitlines()) == sorted(one.splitlines())


def test_random_numbers_belong_to_the_sample():
    whole = uniforms_of_samples(3, range(6), 4)
    assert whole.dtype == np.float32 and whole.shape == (6, 4) and 0 <= whole.min() < whole.max() < 1
    np.testing.assert_array_equal(uniforms_of_samples(3, [5, 2], 4), whole[[5, 2]])
    assert len(np.unique(whole)) == whole.size


def test_a_prompt_is_answered_once_or_as_often_as_asked(sample):
    for flags, count in (([], 1), (['--nsamples=3'], 3)):
        lines = sample('--prompt', 'ab', *flags).out.splitlines()
        assert len(lines) == 2 * count and set(lines[::2]) == {'ab'}


def test_a_long_prompt_keeps_its_end_and_says_so(sample):
    printed = sample('--prompt=xyzab')
    assert printed.out.startswith('ab\n')
    assert printed.err == 'note: a prompt of 5 tokens is cut to its last 2, the query_length of the task\n'
    assert sample('--prompt=ab').err == ''
    assert sample('--prompt=a').out.startswith('a\n')  # a short one is padded


def test_prompts_from_standard_input_and_files(sample, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'cd\n')))
    assert sample('--prompt', '-').out.startswith('cd\n')
    (tmp_path / 'one.txt').write_text('ef\n')
    assert sample('--prompt_file', str(tmp_path / 'one.txt')).out.startswith('ef\n')
    (tmp_path / 'some.jsonl').write_text('"gh"\n{"text": "ij"}\n')
    queries = sample('--prompt_file', str(tmp_path / 'some.jsonl'), '--nsamples=3').out.splitlines()[::2]
    assert queries == ['gh', 'ij', 'gh']
    for name, content in (('bad.jsonl', '"gh"\n\n{}\n'), ('empty.txt', '\n'), ('empty.jsonl', '"gh"\n""\n')):
        (tmp_path / name).write_text(content)
        with pytest.raises(SystemExit):
            sample('--prompt_file', str(tmp_path / name))


@pytest.mark.parametrize('name', ['bad.txt', 'bad.jsonl', '-'])
def test_prompts_that_are_not_utf_8(name, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'"ab\xff"\n')))
    path = str(tmp_path / name)
    with open(path, 'wb') as file:
        file.write(b'"ab\xff"\n')
    flags = ['--prompt', '-'] if name == '-' else ['--prompt_file', path]
    with pytest.raises(SystemExit) as exit:
        main(['sample', '--save_dir', tiny_run.folder, '--mpi=1', *flags])
    place = {
        'bad.txt': f'{path}: not UTF-8 text: byte 3 of the file',
        'bad.jsonl': f'{path}: line 1: not UTF-8 text: byte 3 of the line',
        '-': 'standard input: not UTF-8 text: byte 3 of the file',
    }[name]
    assert (exit.value.code, capsys.readouterr().err) == (2, f'error: {place}\n')


def test_policies_side_by_side_with_scores(tiny_run, sample):
    flags = ['--policies', tiny_run.folder, 'initial', '--scores', '--nsamples=6']
    rows = [json.loads(line) for line in sample(*flags, '--jsonl').out.splitlines()]
    assert [row['policy'] for row in rows] == ['tiny', 'initial'] * 6
    assert [row['index'] for row in rows] == sorted(list(range(6)) * 2)
    assert any(a['response'] != b['response'] for a, b in zip(rows[::2], rows[1::2]))
    run = RunFolder(tiny_run.folder)
    queries, responses = ([letters().encode(row[key]) for row in rows] for key in ('query', 'response'))
    with Scorer(run_reward_model(run), Task(run.task, letters()), 5) as scorer:
        scores = scorer.scores(np.array(queries, np.int32), np.array(responses, np.int32))
    np.testing.assert_allclose([row['score'] for row in rows], scores, atol=1e-3)
    lines = sample(*flags).out.splitlines()
    assert lines[0] == rows[0]['query']
    assert lines[1] == f'  tiny    ▸ {rows[0]["response"]}   [score {rows[0]["score"]:.2f}]'
    assert lines[2].startswith('  initial ▸ ')


def test_top_k_of_one_is_the_likeliest_token(sample):
    lines = [sample('--prompt=ab', '--nsamples=4', f'--seed={seed}', '--top_k=1').out for seed in (1, 2)]
    assert lines[0] == lines[1] and len(set(lines[0].splitlines())) == 2
    assert len(set(sample('--prompt=ab', '--nsamples=8', '--temperature=3').out.splitlines())) > 3
    one = sample('--prompt=ab', '--nsamples=4', '--top_p=0.001').out
    assert one == lines[0]


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--prompt=', '--nsamples=-1'], 'nsamples must be 0 or above'),  # an empty prompt is none
        (['--prompt=a', '--prompt_file=b'], 'prompt and prompt_file are both set'),
        (['--prompt_file=/none'], '/none: No such file or directory'),
        (['--prompt=É'], "cannot encode 'É'"),
        (['--top_p=0'], 'top_p must be above 0 and at most 1'),
        (['--top_k=-1'], 'top_k must be 0 or above'),
        (
            ['--policies', 'initial', 'demo'],
            'the policy demo reads another vocabulary than the policy initial: use models',
        ),
        (['--policies', 'demo', '--scores'], 'reads another vocabulary than the policy demo: use models of the same'),
        (
            ['--policies', 'demo', 'initial', '--scores'],
            'the policy initial reads another vocabulary than the policy demo',
        ),
        (['--temperature=-1'], 'temperature must be 0 or between'),
        (['--policies'], '--policies needs a value'),
        (['--savescope=nobody'], 'no model under nobody/'),
    ],
)
def test_bad_input_is_one_line(tiny_run, flags, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(['sample', '--save_dir', tiny_run.folder, '--mpi=1', *flags])
    errors = capsys.readouterr().err
    assert exit.value.code == 2 and message in errors and errors.count('\n') == 1


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--save_dir=demo'], 'demo is a language model without a task: give --save_dir=RUN, a run whose task is used'),
        (
            ['--save_dir=DIR/lm'],
            'DIR/lm is a language model without a task: give --save_dir=RUN, a run whose task is used',
        ),
        (['--save_dir=DIR/run'], 'DIR/run is a language model without a task: give --save_dir=RUN, a run whose …'),
        (['--policies', 'DIR/lm', 'demo'], 'DIR/lm is a language model without a task: give --save_dir=RUN, a run …'),
        (['--policies', 'initial'], 'initial is the initial policy of a run: give --save_dir=RUN, that run'),
        (['--save_dir=DIR/none'], 'DIR/none: not the folder of a run: there is no …'),
    ],
)
def test_a_language_model_has_no_task(flags, message, tmp_path, capsys):
    save_model(str(tmp_path / 'lm'))
    save_model(str(tmp_path / 'run' / 'model'))  # a run of train_lm
    line = refusal(capsys, ['sample', '--mpi=1', *(flag.replace('DIR', str(tmp_path)) for flag in flags)])
    assert_line(line, message, str(tmp_path))


def test_a_truncate_token_belongs_to_the_vocabulary_of_its_run(tiny_run, tmp_path, capsys):
    run = tmp_path / 'run'
    shutil.copytree(tiny_run.folder, str(run))
    path = run / 'train_policy_hparams.json'
    hparams = json.loads(path.read_text())
    for task in (hparams['task'], hparams['rewards']['train_new_model']['task']):
        task['truncate_token'] = 5
    path.write_text(json.dumps(hparams))
    flags = ['--mpi=1', f'--save_dir={run}', '--nsamples=1', '--seed=1']
    line = refusal(capsys, ['sample', *flags, '--policies', 'demo'])
    whose = f'{run}, whose task.truncate_token is 5'
    assert line == f'the policy demo reads another vocabulary than {whose}: use models of the same vocabulary'
    line = refusal(capsys, ['evaluate', str(run), '--policies', 'demo', '--num_queries=4'])
    assert line == f'the policy demo reads another vocabulary than {whose}: use models of the same vocabulary'
    main(['sample', *flags, '--policies', 'test', 'initial'])  # of the same letters


def test_a_task_refuses_a_model_of_another_vocabulary(tiny_run):
    task = Task(RunFolder(tiny_run.folder).task, letters())
    for model in (Responder, Scorer):
        with pytest.raises(UserError, match='the model .*demo reads another vocabulary than the task'):
            model(find_model('demo'), task, 2)


def test_temperature_0_is_the_likeliest_token(sample):
    greedy = [sample('--prompt=ab', '--nsamples=4', f'--seed={seed}', '--temperature=0').out for seed in (1, 2)]
    assert greedy[0] == greedy[1] == sample('--prompt=ab', '--nsamples=4', '--top_k=1').out
    assert sample('--prompt=ab', '--nsamples=4', '--temperature=0', '--top_k=3', '--top_p=0.5').out == greedy[0]
    scored = sample('--prompt=ab', '--temperature=0', '--scores', '--jsonl').out
    assert math.isfinite(json.loads(scored)['score'])


@pytest.mark.parametrize(
    'paths, names',
    [
        (['/a/x', 'initial'], ['x', 'initial']),
        (['/a/x', '/b/x/'], ['a/x', 'b/x']),
        (['x'], ['x']),
        (['x', 'x'], ['x', 'x']),
    ],
)
def test_the_shortest_names_that_tell_runs_apart(paths, names):
    assert short_names(paths) == names
