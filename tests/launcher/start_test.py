"""The ways to start the command line, and what it says where it cannot start."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from refusals import assert_line, refusal
from repository import LAUNCH, ROOT

import lm_human_preferences
from lm_human_preferences.launcher import command_line
from lm_human_preferences.utils import errors

needs_mpi = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')
# Hides packages from a Python: Python runs a module of this name when it starts.
SITECUSTOMIZE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {0}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Hidden())
"""


def output(capsys, *argv):
    command_line.main(list(argv))
    return capsys.readouterr().out


def test_version(capsys):
    with open(os.path.join(ROOT, 'pyproject.toml'), encoding='utf-8') as file:
        version = re.search(r'^version = "(.*)"', file.read(), re.MULTILINE).group(1)
    assert output(capsys, '--version') == output(capsys, 'version') == f'lm-human-preferences {version}\n'
    assert lm_human_preferences.__version__ == version


def test_help(capsys):
    general = output(capsys, '--help')
    assert output(capsys, 'help') == general and 'EXPERIMENT' in general
    assert output(capsys, 'help', 'sample') == output(capsys, 'sample', '--help') != general


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, '-m', 'lm_human_preferences', '--version'], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b'') and done.stdout.startswith(b'lm-human-preferences ')


@pytest.mark.parametrize(
    'hidden, words',
    [
        ('fire', ['--help']),
        ('ruamel', ['--version']),
        pytest.param('tensorflow', ['train_lm', 'demo', 'x', '--mpi=1'], marks=pytest.mark.slow),
        pytest.param('tensorflow', ['train_lm', 'demo', 'x', '--mpi=2'], marks=[pytest.mark.slow, needs_mpi]),
    ],
)
def test_without_the_environment_there_is_one_line(hidden, words, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(SITECUSTOMIZE.format([hidden]))
    flags = [f'--save_dir={tmp_path}/save'] if len(words) > 1 else []
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    done = subprocess.run([sys.executable, LAUNCH, *words, *flags], env=environment, capture_output=True)
    assert done.returncode == 2
    assert_line(
        done.stderr.decode(),
        f'error: the Python package {hidden}… is missing: run "make environment" and then .venv/bin/python launch.py, '
        'or "pipenv sync…" and then pipenv run ./launch.py\n',
    )


@pytest.mark.parametrize(
    'version, expected', [((3, 7), ' --categories py37'), ((3, 11), ''), ((3, 12), ' --categories py312')]
)
def test_a_missing_package_names_the_category_of_this_python(version, expected, monkeypatch):
    monkeypatch.setattr(errors, '_PYTHON', version)
    line = errors.user_message(ModuleNotFoundError('x', name='no_such_package.part'))
    assert f'"pipenv sync{expected}"' in line and 'package no_such_package.part is' in line
    assert errors.user_message(ModuleNotFoundError('x', name='lm_human_preferences.none')) is None


@pytest.mark.parametrize('word', ['--=3', '-=3', '-', '--'])
def test_a_flag_without_a_name(word, capsys):
    """fire would take no notice of it, and the run would start."""
    line = refusal(capsys, ['train_policy', 'sentiment', 'x', '--dry_run=on', word])
    assert_line(line, f'unexpected argument {word!r}…')


@pytest.mark.parametrize(
    'flag, near',
    [
        ('learning_rate', 'ppo.lr'),
        ('num_epochs', 'ppo.noptepochs'),
        ('discount', 'ppo.gamma'),
        ('total_steps', 'ppo.total_episodes'),
        ('reward_model', 'rewards.trained_model'),
        ('seed', 'run.seed'),
        ('batchsize', 'ppo.batch_size'),
        ('ppo.lrr', 'ppo.lr'),
        ('clip_range', 'ppo.cliprange'),
    ],
)
def test_the_nearest_flag_by_letters_or_by_words(flag, near, capsys):
    line = refusal(capsys, ['train_policy', 'sentiment', 'x', f'--{flag}=1'])
    assert line == f'no flag --{flag}: did you mean --{near}?'
