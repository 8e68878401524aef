"""Whatever the terminal can show and whoever reads it, a run ends as it should."""

import codecs
import encodings.aliases
import importlib.util
import io
import os
import re
import subprocess
import sys

import pytest
from refusals import EXPERIMENT, good_labels, write_files
from repository import LAUNCH
from terminals import on_a_terminal

from lm_human_preferences import experiments
from lm_human_preferences.launcher import run_parts
from lm_human_preferences.utils import progress

needs_mpi = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')
TWO_RANKS = pytest.param('2', marks=[needs_mpi, pytest.mark.slow])
SIGNS = '⏎−▸…–×·→'


def text_encodings():
    names = sorted(set(encodings.aliases.aliases.values()) | {'koi8_t', 'cp720', 'cp1252', 'cp037'})
    for name in names:
        try:
            if codecs.lookup(name)._is_text_encoding:
                yield name
        except LookupError:
            continue  # of another system


@pytest.mark.parametrize('encoding', text_encodings())
def test_every_encoding_can_show_every_text(encoding):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors=progress.PLAIN_SIGNS, newline='\n')
    for text in [SIGNS, 'ab 1', 'é漢字😀', '\udcff\ud800', ''.join(map(chr, range(256)))]:
        stream.write(text)
    stream.write('end\n')
    stream.flush()
    assert len(written.getvalue()) > len(SIGNS)
    assert codecs.decode(written.getvalue(), encoding, 'replace').endswith('end\n')


def test_signs_of_a_plain_terminal():
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding='ascii', errors=progress.PLAIN_SIGNS)
    stream.write('a⏎b ▸ −1 … 3–5 é 😀')
    stream.flush()
    assert written.getvalue() == b'a\\nb > -1 ... 3-5 \\xe9 \\U0001f600'


@pytest.fixture
def command(tmp_path):
    """A training command, and the folder of its run."""
    write_files(str(tmp_path), {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels()})
    folder = tmp_path / 'save' / 'run'
    arguments = ['train_policy', f'{tmp_path}/tiny.yaml', 'run', f'--save_dir={tmp_path}/save']
    return [sys.executable, LAUNCH, *arguments], str(folder)


def has_finished(folder):
    return os.path.exists(os.path.join(folder, 'policy', 'checkpoints', 'model.ckpt-3.index'))


@pytest.mark.parametrize('ranks', ['1', TWO_RANKS])
@pytest.mark.parametrize('encoding', ['ascii', pytest.param('cp1252', marks=pytest.mark.slow)])
def test_training_on_a_terminal_that_is_not_utf_8(command, encoding, ranks):
    words, folder = command
    environment = dict(os.environ, PYTHONIOENCODING=encoding)
    done = subprocess.run([*words, f'--mpi={ranks}'], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b'')
    output = done.stdout.decode(encoding)
    assert ' > ' in output and '▸' not in output and has_finished(folder)
    assert output.count('  ppo.total_episodes = 48\n') == 1  # the hyperparameters, once


@pytest.mark.parametrize('ranks', ['1', TWO_RANKS])
@pytest.mark.parametrize(
    'ending',
    ['| head -1', *(pytest.param(e, marks=pytest.mark.slow) for e in ('>&-', '>/dev/full', '2>/dev/full', '2>&- >&-'))],
)
def test_training_goes_on_without_a_reader(command, ending, ranks):
    if ending == '2>/dev/full' and ranks == '2':
        pytest.skip('the same as on one rank: the launcher relays it')
    words, folder = command
    shell = ['bash', '-o', 'pipefail', '-c', f'"$@" {ending}', 'bash', *words, f'--mpi={ranks}']
    done = subprocess.run(shell, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b'')
    assert done.stdout.count(b'\n') == (
        1 if 'head' in ending else 0 if ending.startswith('>') else done.stdout.count(b'\n')
    )
    assert has_finished(folder)


@pytest.mark.parametrize(
    'words, ending, status, errors',
    [
        (['--help'], '| head -1', 1, b''),
        (['train_policy', 'sentiment', 'x', '--dry_run'], '| head -1', 0, b''),
        (['--help'], '>/dev/full', 2, b'error: standard output: No space left on device\n'),
        (['--help'], '>&-', 0, b''),
        (['sample'], '2>/dev/full', 2, b''),
        (['sample'], '2>&-', 2, b''),
    ],
)
def test_commands_without_a_reader(words, ending, status, errors):
    if 'head' in ending:
        ending = '| (exec <&-; sleep 0.1)'  # the reader has left before anything is printed
    shell = ['bash', '-o', 'pipefail', '-c', f'"$@" {ending}', 'bash', sys.executable, LAUNCH, *words]
    done = subprocess.run(shell, capture_output=True)
    assert (done.returncode, done.stderr) == (status, errors)


def test_one_bar_for_the_whole_run(command):
    """Every part that the launcher expects begins under its name, in this order."""
    words, folder = command
    experiment = words[words.index('train_policy') + 1]
    with open(experiment, 'a') as file:
        file.write('evaluate: {num_queries: 16}\n')
    reward = '--rewards.train_new_model.'
    flags = [f'{reward}normalize_{when}=true' for when in ('before', 'after')] + [f'{reward}normalize_samples=8']
    status, output, shown = on_a_terminal(90, [*words, *flags, '--mpi=1'])
    assert status == 0 and has_finished(folder) and 'better than initial' in output
    pictures = [picture for picture in shown.split('\r') if '%|' in picture]
    begun = [re.sub(r'.*(left|yet)  ', '', picture).rstrip() for picture in pictures]
    parts = ['normalize before', 'reward model', 'normalize after', 'ppo', 'evaluation', 'report']
    assert [name for name in dict.fromkeys(begun) if name in parts] == parts
    assert all(len(picture) <= 90 for picture in pictures)


def test_the_parts_of_the_demo_run():
    (trial,) = experiments.load('demo').trials('train_policy', {})
    trial.hparams.run.save_dir = '/tmp/x'
    parts = run_parts.parts_of(trial.hparams, experiments.load('demo').evaluation('/tmp/x'))
    assert list(parts) == ['normalize before', 'reward model', 'normalize after', 'ppo', 'evaluation', 'report']
    # 5 120 labels of 152 tokens, forward and backward; 10 240 episodes of 56 tokens, one epoch.
    assert parts['reward model'] == 5120 * 152 * 3 and parts['ppo'] == 10240 * 56 * 8
    trial.hparams.override_from_dict({'rewards.train_new_model': 'off', 'rewards.trained_model': 'x'})
    assert list(run_parts.parts_of(trial.hparams, None)) == ['ppo', 'report']
