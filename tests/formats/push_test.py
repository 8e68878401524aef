"""`convert --push`: models with a model card, uploaded to a server of the hub's protocol."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from convert_test import SAVED, transformers_python
from refusals import refusal
from safetensors.numpy import load

from lm_human_preferences.language.run_models import run_policy
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.method.inference import Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.remote import hub as hub_files
from lm_human_preferences.runs.run_folder import HELD_OUT_SAMPLES_FILE, RunFolder

FILES = ['README.md', 'config.json', 'encoding', 'heads.safetensors', 'model.safetensors', 'tokenizer_config.json']
EVALUATION = {
    'policies': {
        'baseline': 'initial',
        'queries': 64,
        'policies': {
            'initial': dict(kl=0.0, entropy=9.9, length=3, valid=1, judges={'score': {'mean': 0.5}}),
            'tiny': dict(kl=4.25, entropy=9.1, length=3, valid=1, judges={'score': {'mean': 1.5}}),
        },
    },
    'reward_model': dict(labels=64, accuracy=0.75, interval=[0.63, 0.84], loss=1.0, source='/home/me/secret/test.json'),
}
for metrics in EVALUATION['policies']['policies'].values():
    metrics.update(distinct={'1': 1, '2': 1}, copied={'3': 0, 'sentences': 0})
EVALUATION['policies']['policies']['tiny']['wins'] = {'score': dict(share=0.875, interval=[0.77, 0.93], ties=0)}


@pytest.fixture(scope='module')
def evaluated_run(tiny_run, tmp_path_factory):
    """A copy of the tiny run with figures of an evaluation."""
    folder = str(tmp_path_factory.mktemp('evaluated') / 'tiny')
    shutil.copytree(tiny_run.folder, folder, ignore=shutil.ignore_patterns(HELD_OUT_SAMPLES_FILE))
    with open(os.path.join(folder, 'evaluation.json'), 'w') as file:
        json.dump(EVALUATION, file)
    return folder


@pytest.fixture
def writer(hub, monkeypatch):
    """The hub, with a token that may write."""
    monkeypatch.setenv('HF_TOKEN', 'hf_writer')
    return hub


def push(*arguments):
    main(['convert', *map(str, arguments)])


def test_a_policy_and_its_card(writer, evaluated_run, capsys):
    push(evaluated_run, '--push=hf://someone/tiny-policy')
    repository = writer.repos['someone/tiny-policy']
    printed = capsys.readouterr().out
    assert (
        printed.startswith(f'hf://someone/tiny-policy: {writer.url}/someone/tiny-policy/') and printed.count('\n') == 1
    )
    expected = [
        'README.md',
        'config.json',
        'encoding',
        'heads.safetensors',
        'model.safetensors',
        'tokenizer_config.json',
    ]
    assert sorted(repository.files) == expected and repository.messages[-1] == 'Upload tiny'
    assert len(writer.verified) == 2  # the large files
    before, after = run_policy(RunFolder(evaluated_run)).arrays(), find_model('hf://someone/tiny-policy').arrays()
    assert list(before) == list(after) and all(np.array_equal(before[name], after[name]) for name in before)

    card = repository.files['README.md'].decode()
    front, body = re.fullmatch(r'---\n(.*?)\n---\n(.*)', card, re.DOTALL).groups()
    assert (
        'pipeline_tag: "text-generation"' in front and 'tags: ["gpt2", "rlhf", "lm-human-preferences", "ppo"]' in front
    )
    for line in (
        '# tiny-policy',
        '| base model | `test` |',
        '| labels | 64 of type best_of_4: `labels.json` |',
        '| episodes | 48 |',
        'On 64 held-out queries. Intervals are of 95 %.',
        '| KL from the initial policy (nats) | 0.0 | 4.2 |',
        '| better than initial: reward model |  | 87.5% (77–93) |',
        "model = AutoModelForCausalLM.from_pretrained('someone/tiny-policy')",
        '    "total_episodes": 48,',
    ):
        assert f'\n{line}\n' in body, line
    assert body.count('\nquery: ') == 3 and 'fine-tuned (score ' in body
    assert os.path.dirname(evaluated_run) not in card and 'AutoTokenizer' not in card


def test_a_reward_model_and_its_card(writer, evaluated_run):
    push(evaluated_run, '--savescope=reward_model', '--push=hf://someone/tiny-reward', '--private')
    assert writer.repos['someone/tiny-reward'].private
    card = writer.repos['someone/tiny-reward'].files['README.md'].decode()
    assert 'pipeline_tag' not in card and '| agrees with people | 75.0% (63–84) |' in card
    assert 'On `test.json`.' in card and 'secret' not in card and '"normalize_samples": 0' in card
    assert 'KL from the initial policy' not in card and '## Samples' not in card
    queries, responses = np.array([[1, 2], [3, 4]], np.int32), np.array([[5, 6, 7], [7, 6, 5]], np.int32)
    scores = []
    for name in (evaluated_run, 'hf://someone/tiny-reward'):
        trained = find_reward_model(name)
        with Scorer(trained, Task(RunFolder(evaluated_run).task, trained.encoding()), 2) as scorer:
            scores.append(scorer.scores(queries, responses))
    np.testing.assert_array_equal(*scores)


def test_a_model_without_a_run(writer, tmp_path):
    push(SAVED, tmp_path / 'kept', '--push=hf://someone/plain@float32')
    plain = writer.repos['someone/plain']
    assert sorted(os.listdir(str(tmp_path / 'kept'))) == sorted(plain.commits[plain.refs['float32']])
    assert not plain.files and 'vocab.json' in plain.commits[plain.refs['float32']]
    card = (tmp_path / 'kept' / 'README.md').read_text(encoding='utf-8')
    assert '## Training' not in card and "AutoTokenizer.from_pretrained('someone/plain')" in card
    before, after = find_model(SAVED), find_model('hf://someone/plain@float32')
    assert all(np.array_equal(array, after.arrays()[name]) for name, array in before.arrays().items())


def test_base_model_and_data_on_the_hub(writer, evaluated_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(evaluated_run, str(run))
    path = run / 'train_policy_hparams.json'
    hparams = json.loads(path.read_text())
    for task in (hparams['task'], hparams['rewards']['train_new_model']['task']):
        task['policy']['initial_model'] = '124M'
        task['query_dataset'] = 'text:hf://datasets/someone/texts@v1/all.txt'
    hparams['rewards']['train_new_model']['labels']['source'] = 'hf://datasets/someone/labels/train.json'
    path.write_text(json.dumps(hparams))
    push(run, '--push=hf://someone/based')
    front = writer.repos['someone/based'].files['README.md'].decode().split('---')[1]
    assert 'base_model: "openai-community/gpt2"' in front and 'datasets: ["someone/labels", "someone/texts"]' in front


def test_a_second_push_sends_only_what_changed(writer, evaluated_run):
    push(evaluated_run, '--push=hf://someone/tiny')
    sent = len(writer.asked('PUT'))
    push(evaluated_run, '--push=hf://someone/tiny')
    assert sent == 2 and len(writer.asked('PUT')) == 2


def test_an_upload_goes_on_after_a_failure(writer, evaluated_run, quick_hub_retries):
    writer.faults = [('PUT', 503), ('POST .*/commit/', (429, {'Retry-After': '1'})), ('POST .*/batch', 500)]
    push(evaluated_run, '--push=hf://someone/tiny')
    assert 'model.safetensors' in writer.repos['someone/tiny'].files


@pytest.mark.parametrize('token', ['', 'hf_reader', 'hf_other'])
def test_no_permission_to_write(writer, evaluated_run, capsys, monkeypatch, tmp_path, token):
    monkeypatch.setenv('HF_TOKEN', token)
    line = refusal(capsys, ['convert', evaluated_run, str(tmp_path / 'kept'), '--push=hf://someone/tiny'])
    start = r'cannot write hf://someone/tiny: no permission to write to someone/tiny( \(40[134]\))?: log in with the '
    assert re.match(start, line) and line.endswith('set HF_TOKEN to a token that may write there')
    assert not os.path.exists(str(tmp_path / 'kept')) and not writer.repos


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (['RUN', '--push=someone/tiny'], "push must be hf://OWNER/NAME, not 'someone/tiny'"),
        (['RUN', '--push=hf://someone'], 'hf://someone names nothing on the hub: give hf://OWNER/NAME'),
        (['RUN', '--push=hf://someone/tiny/x'], 'is a path in a repository: give hf://someone/tiny'),
        (['RUN'], 'target is not set: give TARGET, a folder or file to write, or --push'),
        (['LABELS', '--push=hf://someone/tiny'], 'is a file: --push uploads a model'),
    ],
)
def test_bad_arguments(writer, tiny_run, capsys, arguments, expected):
    names = {'RUN': tiny_run.folder, 'LABELS': tiny_run.labels}
    assert expected in refusal(capsys, ['convert', *(names.get(argument, argument) for argument in arguments)])
    assert not writer.repos


def test_a_hub_that_is_down_is_one_line(writer, evaluated_run, capsys, quick_hub_retries):
    writer.faults = [('PUT', 500)] * 1000
    line = refusal(capsys, ['convert', evaluated_run, '--push=hf://someone/tiny'])
    assert line.startswith('cannot write hf://someone/tiny: the hub answers 500: try again later')


@pytest.mark.slow
@pytest.mark.skipif(transformers_python() is None, reason='needs transformers and torch: set TRANSFORMERS_PYTHON')
def test_transformers_loads_what_was_pushed(writer, evaluated_run, tmp_path):
    """The code in the card, run as it stands, gives our scores."""
    push(evaluated_run, '--savescope=reward_model', '--push=hf://someone/tiny-reward')
    card = writer.repos['someone/tiny-reward'].files['README.md'].decode()
    code = re.search('```python\n(.*?)```', card, re.DOTALL).group(1)
    tokens = [[1, 2, 5, 6, 7], [3, 4, 7, 6, 5]]
    code += f'\nimport torch\nprint(score(torch.tensor({tokens})).tolist())\n'
    env = dict(os.environ, HF_HOME=str(tmp_path / 'theirs'))
    output = subprocess.check_output([transformers_python(), '-c', code], env=env)
    trained = find_reward_model(evaluated_run)
    with Scorer(trained, Task(RunFolder(evaluated_run).task, trained.encoding()), 2) as scorer:
        ours = scorer.scores(np.array(tokens, np.int32)[:, :2], np.array(tokens, np.int32)[:, 2:])
    theirs = json.loads(output.decode().strip().splitlines()[-1])
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_what_was_pushed_is_found_by_the_next_command(writer, evaluated_run, capsys):
    push(evaluated_run, '--push=hf://someone/tiny')
    assert 'heads.safetensors' in writer.repos['someone/tiny'].files
    heads = load(writer.repos['someone/tiny'].files['heads.safetensors'])
    hub_files.forget()
    arrays = find_model('hf://someone/tiny').arrays()
    assert np.array_equal(arrays['model/heads/value/w'], heads['model/heads/value/w'])
    main(['sample', '--save_dir', evaluated_run, '--policies', 'hf://someone/tiny', '--nsamples=2', '--mpi=1'])
    assert capsys.readouterr().out.count('▸') == 2
