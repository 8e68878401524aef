"""README.md and the pages of docs/: their links, their commands and their experiment files are real."""

import glob
import os
import re
import shlex

import pytest
from repository import ROOT

from lm_human_preferences import experiments
from lm_human_preferences.launcher import command_line

PAGES = [os.path.join(ROOT, name) for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'benchmarks/README.md')]
PAGES += sorted(glob.glob(os.path.join(ROOT, 'docs', '*.md')))
FENCED = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)
PLACEHOLDERS = {'EXPERIMENT': 'demo', 'NAME': 'run-1', '$experiment': 'descriptiveness'}
README_LINES = 180


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def name_of(path):
    return os.path.relpath(path, ROOT)


def anchors(path):
    """The anchors of a page's headings, as GitHub and mkdocs both make them."""
    headings = re.findall(r'^#+ (.*)$', FENCED.sub('', read(path)), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).strip().replace(' ', '-') for heading in headings}


def links(path):
    text = FENCED.sub('', read(path))
    found = re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'\b(?:src|srcset|href)="([^"]+)"', text)
    return [link for link in found if not re.match(r'https?:', link)]


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition('#')
        path = os.path.normpath(os.path.join(os.path.dirname(page), target)) if target else page
        assert os.path.exists(path), f'{name_of(page)}: {link}'
        assert not anchor or anchor in anchors(path), f'{name_of(page)}: {link}'


def test_readme_is_short():
    assert len(read(PAGES[0]).splitlines()) <= README_LINES


def test_every_page_is_in_the_navigation():
    named = re.findall(r'([\w-]+\.md)', read(os.path.join(ROOT, 'mkdocs.yml')))
    assert sorted(named) == sorted(os.path.basename(page) for page in glob.glob(os.path.join(ROOT, 'docs', '*.md')))


def test_architecture_has_the_layers_of_the_contract():
    contract = re.search(r'^layers = \[\n(.*?)^\]', read(os.path.join(ROOT, 'pyproject.toml')), re.M | re.S).group(1)
    layers = [
        (re.split(r'\s*[:|]\s*', names), what)
        for names, what in re.findall(r'^\s*"([^"]+)",\s+# (.*)$', contract, re.MULTILINE)
    ]
    assert len(layers) == len(contract.splitlines())
    page = read(os.path.join(ROOT, 'docs', 'architecture.md'))
    table = re.search(r'\| layer \|.*?\n\n', page, re.DOTALL).group(0)
    rows = re.findall(r'^\| (`.*`) \| (.*) \|$', table, re.MULTILINE)
    assert [(re.findall(r'`(\w+)`', names), what) for names, what in rows] == layers


def test_files_of_the_architecture_exist():
    package = os.path.join(ROOT, 'lm_human_preferences')
    for name in re.findall(
        r'`([\w/*.]+(?:\.(?:py|yaml|toml)|/))`', read(os.path.join(ROOT, 'docs', 'architecture.md'))
    ):
        assert any(glob.glob(os.path.join(folder, name)) for folder in (package, ROOT)), name


def commands():
    """Every command line of launch.py on the pages: page, words after launch.py."""
    for page in PAGES:
        text = read(page)
        blocks = [block for _, block in FENCED.findall(text)] + re.findall(r'`([^`\n]*launch\.py [^`\n]*)`', text)
        for block in blocks:
            for line in block.replace('\\\n', ' ').splitlines():
                match = re.search(r'launch\.py ([^;|]*)', re.sub(r'\$\([^)]*\)', '1911190400', line))
                words = shlex.split(match.group(1), comments=True) if match else []
                if words and words[0] in command_line.COMMANDS:
                    yield name_of(page), words


COMMANDS = list(commands())


def test_commands_are_found():
    assert {words[0] for _, words in COMMANDS} == set(command_line.COMMANDS)


@pytest.mark.parametrize('page, words', COMMANDS, ids=[f'{page}: {" ".join(words)}' for page, words in COMMANDS])
def test_flags_of_commands_exist(page, words, capsys):
    command_line.main([words[0], '--help'])
    known = set(re.findall(r'^\s+--([\w.]+)', capsys.readouterr().out, re.MULTILINE)) | {'help'}
    given = {word[2:].partition('=')[0] for word in words if word.startswith('--')}
    assert given <= known, given - known


TRAINING = [(page, words) for page, words in COMMANDS if words[0].startswith('train_') and '--help' not in words]


@pytest.mark.parametrize('page, words', TRAINING, ids=[f'{page}: {" ".join(words)}' for page, words in TRAINING])
def test_training_commands_can_run(page, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    (tmp_path / 'hosts.txt').write_text('host1:8\nhost2 slots=8\n')
    (tmp_path / 'mine.yaml').write_text(next(text for _, text in experiment_files() if '# mine.yaml' in text))
    given = [re.sub(r'\$\w+', 'name-1', PLACEHOLDERS.get(word, word)) for word in words]
    command_line.main([*given, '--dry_run'])
    assert capsys.readouterr().out.startswith('trial 1 of ')


def experiment_files():
    """The experiment files shown on the pages: page, content."""
    return [(name_of(page), text) for page in PAGES for kind, text in FENCED.findall(read(page)) if kind == 'yaml']


@pytest.mark.parametrize('page, text', experiment_files(), ids=[page for page, _ in experiment_files()])
def test_experiment_files_load(page, text, tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    experiment = experiments.load(str(path))
    if 'train_policy:' in text:
        for trial in experiment.trials('train_policy', {}):
            trial.hparams.validate()
