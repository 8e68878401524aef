"""Where the system lacks what only Linux has: the calls are hidden from the processes of a run."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import pytest
from repository import ROOT
from running import Running, command

from lm_human_preferences.launcher import mpiexec
from lm_human_preferences.runs.checkpoint_files import latest_checkpoint

# Python runs a module of this name when it starts. The processes of a run inherit PYTHONPATH, and so this module.
SITECUSTOMIZE = """
import builtins, ctypes, os, sys

for name in ('sched_getaffinity', 'sched_setaffinity'):
    if hasattr(os, name):
        delattr(os, name)

class WithoutPrctl(ctypes.CDLL):
    def __getattr__(self, name):
        if name == 'prctl':
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = WithoutPrctl
opened = builtins.open

def without_proc(file, *arguments, **named):
    if str(file).startswith('/proc/'):
        raise FileNotFoundError(2, 'No such file or directory', file)
    return opened(file, *arguments, **named)

builtins.open = without_proc
"""

needs_mpi = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')
needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='the test finds processes in /proc')


@pytest.fixture
def environment(tmp_path):
    """The environment of processes that lack what only Linux has."""
    (tmp_path / 'hidden').mkdir()
    (tmp_path / 'hidden' / 'sitecustomize.py').write_text(SITECUSTOMIZE)
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path / 'hidden'), ROOT]))


def printed(environment, code, *arguments):
    done = subprocess.run(
        [sys.executable, '-c', code, *arguments], env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    return done.stdout.decode().strip()


def test_all_cores_are_shared_where_no_process_has_cores_of_its_own(environment):
    code = 'from lm_human_preferences.mpi import ranks; print(ranks.usable_cores())'
    assert printed(environment, code) == str(os.cpu_count())


def test_no_process_is_told_to_end_with_its_parent(environment):
    code = 'from lm_human_preferences.launcher import mpiexec; print(mpiexec._prctl)'
    assert printed(environment, code) == 'None'


@pytest.mark.skipif(shutil.which('ps') is None, reason='there is no ps')
def test_a_stopped_process_is_known_without_proc(environment):
    code = 'import sys; from lm_human_preferences.utils import locks; print(locks._is_stopped(sys.argv[1]))'
    wait = [sys.executable, '-c', 'print("ready", flush=True); input()']
    process = subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b'ready\n'
        assert printed(environment, code, str(process.pid)) == 'False'
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert printed(environment, code, str(process.pid)) == 'True'
    finally:
        process.kill()
        process.communicate()
    assert printed(environment, code, str(process.pid)) == 'False'


def test_nothing_is_known_of_a_process_without_proc_and_ps(environment):
    code = 'from lm_human_preferences.utils import locks; print(locks._is_stopped("1"))'
    assert printed(dict(environment, PATH=''), code) == 'False'


def test_the_drive_is_asked_to_write_its_cache_where_it_can(tmp_path):
    """fcntl.F_FULLFSYNC is a call of macOS; F_GETFD stands for it here, and then a number that no system has."""
    code = """
import fcntl, os, sys
from lm_human_preferences.utils import files
called = []
fsync, os.fsync = os.fsync, lambda descriptor: (called.append('fsync'), fsync(descriptor))
for fcntl.F_FULLFSYNC in (fcntl.F_GETFD, 99999):
    with files.written_whole(sys.argv[1], 'wb') as file:
        file.write(b'x')
    print(called)
"""
    path = str(tmp_path / 'file')
    lines = printed(dict(os.environ, PYTHONPATH=ROOT), code, path).splitlines()
    assert lines == ['[]', "['fsync', 'fsync']"]
    with open(path, 'rb') as file:
        assert file.read() == b'x'


@pytest.mark.parametrize('number, name', [(9, 'SIGKILL'), (40, 'signal 40'), (1000, 'signal 1000')])
def test_a_signal_without_a_name_has_its_number(number, name):
    assert mpiexec._signal_name(number) == name


@needs_mpi
@pytest.mark.slow
def test_two_ranks_train(environment, tmp_path):
    flags = ['--rewards.train_new_model=off', '--rewards.trained_model=test', '--mpi=2']
    words = command(str(tmp_path), *flags, episodes=32)
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    assert latest_checkpoint(str(tmp_path / 'run' / 'policy')).endswith('-2')


@needs_mpi
@needs_proc
@pytest.mark.slow
def test_ranks_end_with_a_launcher_that_is_killed(environment, tmp_path):
    run = Running(str(tmp_path), '--mpi=2', env=environment)
    try:
        run.launcher.kill()
        run.launcher.wait()
        run.wait_until_nothing_is_left()
    finally:
        run.kill()
