"""Tables of bad input: arguments and files for the command line, and the one line of error that it should print."""

import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Sequence

import pytest

from lm_human_preferences.launcher import command_line

# An experiment on built-in names. Its labels are in a file, so that a case can replace them.
EXPERIMENT = """
run: {seed: 1, log_interval: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels: {type: best_of_4, source: DIR/labels.json, num_train: 8}
  batch_size: 8
train_policy:
  ppo: {batch_size: 16, total_episodes: 48}
train_lm:
  dataset: text:DIR/texts.txt
  model: {n_vocab: 260, n_ctx: 12, n_embd: 8, n_head: 2, n_layer: 1}
  sequence_length: 4
  batch_size: 2
"""
FOLDER = object()  # given as the content of a file, it makes a folder instead


class Case(NamedTuple):
    """Bad input. In all texts, DIR is the folder of the test. In `expected`, … stands for the wording of a library."""

    name: str
    expected: str
    files: Dict[str, Any] = {}  # name → text, bytes, FOLDER or content to be written as JSON
    flags: Sequence[str] = ()
    command: str = 'train_reward'


def table(*cases: Case):
    """Parametrize a test by `case`."""
    return pytest.mark.parametrize('case', cases, ids=[case.name for case in cases])


def good_labels(**answers) -> List[Dict[str, Any]]:
    """Return eight labels that fit EXPERIMENT. `answers` replace the field `best`."""
    samples = {f'sample{k}': [k, 1, 26] for k in range(4)}
    return [dict(samples, sample=[1, 2, 27], query=[i, 27], **(answers or {'best': i % 4})) for i in range(8)]


def labels_with(entry: int = 5, without: str = '', **fields) -> List[Dict[str, Any]]:
    """Return labels; the one at `entry` has the given fields, and lacks the field `without`."""
    labels = good_labels()
    labels[entry].update(fields)
    labels[entry].pop(without, None)
    return labels


def write_files(folder: str, files: Dict[str, Any]) -> None:
    """Write the files of a case into a folder."""
    for name, content in files.items():
        path = os.path.join(folder, name)
        os.makedirs(path if content is FOLDER else os.path.dirname(path), exist_ok=True)
        if content is not FOLDER:
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            with open(path, 'wb') as file:
                file.write(text.replace('DIR', folder).encode('utf-8') if isinstance(text, str) else text)


def arguments(case: Case, folder: str) -> List[str]:
    """Return the arguments of a case whose files are in `folder`."""
    flags = [flag.replace('DIR', folder) for flag in case.flags]
    return [case.command, f'{folder}/tiny.yaml', 'run', f'--save_dir={folder}/save', '--mpi=1', *flags]


def refusal(capsys, argv: Sequence[str]) -> str:
    """Run the command line in this process, and return the one line with which it refuses its arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        command_line.main(list(argv))
    out, err = capsys.readouterr()
    assert end.value.code == 2, (end.value.code, err)
    assert err.startswith('error: ') and err.endswith('\n'), err
    assert len(err.splitlines()) == 1 and 'Traceback' not in out + err, err
    assert len(err) < 2000, len(err)
    return err[len('error: ') : -1]


def assert_line(line: str, expected: str, folder: str = '') -> None:
    """Compare a line with the expected one. In the expected line, … stands for any text."""
    expected = re.sub(r'(?<![\w=])DIR\b', lambda _: folder, expected)  # not in SAVE_DIR, nor in --flag=DIR
    pattern = '.*'.join(map(re.escape, expected.split('…')))
    assert re.match(pattern + r'\Z', line), f'\nexpected: {expected}\n but got: {line}'


def check(case: Case, tmp_path, capsys) -> None:
    """Run a case in this process, and compare the line that the command line prints."""
    folder = str(tmp_path)
    write_files(folder, {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels(), **case.files})
    assert_line(refusal(capsys, arguments(case, folder)), case.expected, folder)
    run = os.path.join(folder, 'save', 'run')
    saved = [name for _, _, names in os.walk(run) for name in names if '.ckpt' in name]
    assert not saved, f'{saved} were saved'
