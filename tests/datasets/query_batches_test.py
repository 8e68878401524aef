"""Batches of queries that a thread makes ahead: they, the position, the notes and the errors come as without it."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from repository import ROOT

from lm_human_preferences.datasets import query_stream
from lm_human_preferences.datasets.missing_texts import MissingText
from lm_human_preferences.datasets.query_batches import QueryBatches
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.utils.errors import user_message


class Texts:
    """Twelve texts of letters, of which some are missing. It counts how many were read."""

    def __init__(self, missing=()):
        self.missing = missing
        self.num_read = 0

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.num_read += 1
        if index in self.missing:
            raise MissingText(f'no {index}')
        return 'abcdefghijkl'[index] * 2


@pytest.fixture
def streams(monkeypatch):
    """Return a function that gives (texts, stream) with some texts missing."""

    def make(missing=(), **options):
        texts = Texts(missing)
        monkeypatch.setattr(query_stream, 'get_texts', lambda dataset, split: texts)
        return texts, QueryStream('mine', 'train', letters(), 2, seed=5, **options)

    return make


def wait_for_the_thread():
    """Wait until the batch that is being made is ready."""
    while any(thread.name == 'queries' for thread in threading.enumerate()):
        time.sleep(0.001)


def test_batches_and_positions_are_those_of_the_stream(streams):
    _, plain = streams(missing={3, 8})
    texts, stream = streams(missing={3, 8})
    batches = QueryBatches(stream, 4, 5)
    assert batches.position == 0 and texts.num_read == 0  # nothing was asked for
    for left in (4, 3, 2, 1, 0):
        batch = next(batches)
        wait_for_the_thread()
        assert (batch == plain.next_batch(4)).all()
        assert batches.position == plain.position
        assert (texts.num_read > plain.position) == (left > 0)  # the next one is made, but none after the last
        _, resumed = streams(missing={3, 8}, position=batches.position)
        ahead = QueryBatches(resumed, 3, 1)
        _, other = streams(missing={3, 8}, position=plain.position)
        assert (next(ahead) == other.next_batch(3)).all()
    assert list(batches) == [] and stream.position == batches.position


def test_the_notes_of_a_batch_are_said_with_it(streams, capsys):
    _, plain = streams()
    order = [plain.next_query()[0] for _ in range(12)]
    _, stream = streams(missing={order[5]})
    batches = QueryBatches(stream, 4, 3)
    next(batches)
    wait_for_the_thread()
    assert capsys.readouterr() == ('', '')  # the second batch is made, and not given
    next(batches)
    assert capsys.readouterr().err == (
        f"note: passed over 1 of 6 texts of the data set 'mine'. The last one: no {order[5]}\n"
    )


def test_an_error_is_raised_by_the_batch_that_meets_it(streams):
    """After the first two batches, no text has a query, and the third batch says so."""
    texts, stream = streams()
    batches = QueryBatches(stream, 6, 3)
    next(batches)
    wait_for_the_thread()
    texts.missing = range(12)
    assert batches.position == 6
    next(batches)  # was made before
    wait_for_the_thread()
    assert batches.position == 12
    with pytest.raises(ValueError) as found:
        next(batches)
    assert user_message(found.value).startswith("11 of 23 texts of the data set 'mine' cannot be read: too many. ")


ENDING = """
import os, signal, sys, threading, time
sys.path.insert(0, {root!r})
from lm_human_preferences.datasets import query_stream
from lm_human_preferences.datasets.query_batches import QueryBatches
from lm_human_preferences.language.encodings import test_encoding

reading = threading.Event()

class Texts:
    num_read = 0

    def __len__(self):
        return 9

    def __getitem__(self, index):
        self.num_read += 1
        if self.num_read > 2:
            reading.set()
            time.sleep(600)
        return 'ab'

query_stream.get_texts = lambda dataset, split: Texts()
batches = QueryBatches(query_stream.QueryStream('mine', 'train', test_encoding(), 2), 2, 3)
next(batches)
reading.wait()
{end}
"""
CTRL_C = 'threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start(); next(batches)'


@pytest.mark.parametrize(
    'end, status', [('pass', 0), ('raise ValueError', 1), ('sys.exit(75)', 75), (CTRL_C, -signal.SIGINT)]
)
def test_a_thread_that_reads_for_ever_keeps_no_process_alive(end, status):
    """Neither at its end, nor after an error, nor at Ctrl-C while the process waits for the batch."""
    script = ENDING.format(root=ROOT, end=end)
    done = subprocess.run([sys.executable, '-c', script], stderr=subprocess.PIPE, timeout=300)
    errors = done.stderr.decode()
    assert done.returncode == (status if sys.version_info >= (3, 8) or status >= 0 else 1), errors
    assert ('KeyboardInterrupt' in errors) == (end == CTRL_C)
