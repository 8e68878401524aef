"""`label` on two ranks: both sample, and only the first one serves the page."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from label_page import Person
from repository import LAUNCH

pytest.importorskip('mpi4py')

DEFINITION = """
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward: {labels: {type: best_of_4, source: test, num_train: 8}, batch_size: 8}
"""


@pytest.fixture
def label(tmp_path):
    """Return a function that starts `label` on the built-in model and returns (process, address)."""
    (tmp_path / 'tiny.yaml').write_text(DEFINITION)
    processes = []

    def start(out, *flags):
        words = ['label', 'test', f'--experiment={tmp_path}/tiny.yaml', f'--out={tmp_path / out}', '--batch_size=2']
        environment = dict(os.environ, LM_HUMAN_PREFERENCES_THREADS='1')
        process = subprocess.Popen(
            [sys.executable, LAUNCH, *words, *flags], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        processes.append(process)
        for line in process.stdout:
            if b'http://' in line:
                return process, line.decode().strip()
        raise AssertionError(process.stderr.read().decode())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def questions(journal):
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    return [(entry['query'], entry['samples'], entry['place']) for entry in entries if entry['kind'] == 'question']


def wait_for_questions(journal, count):
    deadline = time.time() + 60
    while not journal.exists() or len(questions(journal)) < count:
        assert time.time() < deadline
        time.sleep(0.1)


def second_rank(folder):
    """Return the process id of the rank that does not serve the page of labels in a folder."""
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/environ', 'rb') as file:
                variables = file.read().split(b'\0')
            with open(f'/proc/{name}/cmdline', 'rb') as file:
                words = file.read()
        except OSError:
            continue
        if b'OMPI_COMM_WORLD_RANK=1' in variables and bytes(folder) in words:
            return int(name)
    raise AssertionError('there is no second rank')


def processor_seconds(pid):
    with open(f'/proc/{pid}/stat') as file:
        return sum(map(int, file.read().rpartition(')')[2].split()[11:13])) / os.sysconf('SC_CLK_TCK')


@pytest.mark.slow
def test_two_ranks_ask_the_questions_of_one_and_the_second_sleeps(label, tmp_path):
    for name, flags in (('one.json', []), ('two.json', ['--mpi=2'])):
        process, address = label(name, '--num_questions=9', *flags)
        journal = tmp_path / name.replace('.json', '.journal.jsonl')
        ann = Person(address, 'Ann')
        wait_for_questions(journal, 9)
        if flags:
            idle = second_rank(tmp_path)
            time.sleep(1)  # the model is closed
            used = processor_seconds(idle)
            time.sleep(4)
            assert processor_seconds(idle) - used < 1
        while ann.question is None:
            ann.reload()
        assert ann.answer(1) == 200
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b''), errors.decode()
        assert f'1 labels in {tmp_path / name}' in printed.decode()
        assert len(json.loads((tmp_path / name).read_text())) == 1
    one, two = (questions(tmp_path / f'{name}.journal.jsonl') for name in ('one', 'two'))
    assert len(one) == 9 and one == two


@pytest.mark.slow
@pytest.mark.parametrize('end', ['SIGTERM', 'killed'])
def test_answers_are_kept_when_ranks_end(label, tmp_path, end):
    process, address = label('labels.json', '--num_questions=100000', '--mpi=2')  # they sample to the end
    wait_for_questions(tmp_path / 'labels.journal.jsonl', 8)
    ann = Person(address, 'Ann')
    while ann.question is None:
        ann.reload()
    assert ann.answer(0) == 200 and ann.answer(2) == 200
    if end == 'SIGTERM':
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(second_rank(tmp_path), signal.SIGKILL)
    printed, errors = process.communicate(timeout=60)
    if end == 'SIGTERM':
        assert (process.returncode, errors) == (128 + signal.SIGTERM, b''), errors.decode()
        assert len(json.loads((tmp_path / 'labels.json').read_text())) == 2
    else:
        assert process.returncode == 1
        assert re.search(r'error: rank 1 of 2 on \S+ was killed by SIGKILL$', errors.decode().strip())
    process, address = label('labels.json', '--num_questions=100000')
    assert '2 of 100000' in Person(address, 'Bob').page


@pytest.mark.slow
def test_an_error_of_the_first_rank_is_one_line(tmp_path):
    (tmp_path / 'tiny.yaml').write_text(DEFINITION)
    (tmp_path / 'labels.journal.jsonl').write_text('no journal\n')
    words = ['label', 'test', f'--experiment={tmp_path}/tiny.yaml', f'--out={tmp_path}/labels.json', '--mpi=2']
    done = subprocess.run([sys.executable, LAUNCH, *words], capture_output=True)
    errors = done.stderr.decode()
    assert done.returncode == 2 and errors.count('\n') == 1
    assert errors.startswith(f'error: {tmp_path}/labels.journal.jsonl')
