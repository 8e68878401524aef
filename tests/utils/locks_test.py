"""A process that waits for a lock says so, and names who holds it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from repository import ROOT

from lm_human_preferences.launcher import rank
from lm_human_preferences.utils import locks
from lm_human_preferences.utils.errors import UserError

HOLD = """
import sys, time
from lm_human_preferences.utils.locks import locked
with locked(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that holds the lock of tmp_path/writer."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path / 'writer')], stdout=subprocess.PIPE, env={'PYTHONPATH': ROOT}
    )
    assert process.stdout.readline() == b'held\n'
    yield process
    process.kill()
    process.communicate()


def test_a_stopped_owner_is_said_and_named(owner, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, '_SAID_AFTER_SECONDS', 0.2)
    monkeypatch.setattr(rank, 'WRITER_PATIENCE_SECONDS', 0.6)
    owner.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    start = time.monotonic()
    with pytest.raises(UserError) as error, rank._only_writer(str(tmp_path)):
        raise AssertionError
    assert 0.6 <= time.monotonic() - start < 10
    who = f' (process {owner.pid}, which is stopped)'
    assert str(error.value) == (
        f'{tmp_path}: a process of an earlier start still writes this run{who}: '
        'end it with kill -9, and give the same command again'
    )
    assert capsys.readouterr().out == f'waiting for another process{who}, which has locked {tmp_path}/writer\n'
    owner.kill()
    with rank._only_writer(str(tmp_path)):
        assert locks.holder(str(tmp_path / 'writer')) == f' (process {os.getpid()})'
    assert not os.listdir(str(tmp_path))


def test_a_short_wait_is_not_said(owner, tmp_path, capsys):
    owner.kill()
    with locks.locked(str(tmp_path / 'writer')):
        assert capsys.readouterr().out == ''


@pytest.mark.parametrize('text', ['', 'x', '\xff', '12 another-host\n', '0' * 1000])
def test_any_text_in_a_lock_file(tmp_path, text):
    (tmp_path / '.run.lock').write_bytes(text.encode('latin-1'))
    expected = ' (process 12 on another-host)' if 'host' in text else ''
    assert locks.holder(str(tmp_path / 'run')).startswith(expected)
    with locks.locked(str(tmp_path / 'run')):
        assert locks.holder(str(tmp_path / 'run')) == f' (process {os.getpid()})'


def test_the_lock_of_another_process_in_a_new_folder_stays(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    with locks.locked(str(folder / 'run')):
        os.rename(str(folder), str(tmp_path / 'moved'))
        folder.mkdir()
        (folder / '.run.lock').write_text('12 another-host\n')
    assert os.path.exists(str(folder / '.run.lock'))
