"""All processes of a run on several ranks end, whatever ends the run."""

import importlib.util
import os
import re
import signal

import pytest
from running import Running

from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.checkpoint_files import latest_checkpoint

pytestmark = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')
NO_HOROVOD = pytest.mark.skipif(importlib.util.find_spec('horovod') is None, reason='Horovod is not installed')


@pytest.fixture
def start(tmp_path):
    started = []

    def start_run(backend='mpi4py'):
        started.append(Running(str(tmp_path), '--mpi=2', env=dict(os.environ, LM_HUMAN_PREFERENCES_GRADIENTS=backend)))
        return started[0]

    yield start_run
    for run in started:
        run.kill()


@pytest.mark.parametrize('backend', ['mpi4py', pytest.param('horovod', marks=[NO_HOROVOD, pytest.mark.slow])])
def test_a_rank_is_killed(start, backend):
    run = start(backend)
    os.kill(run.rank(1), signal.SIGKILL)
    status, _, errors = run.end()
    assert status == 1
    assert re.match(r'error: rank 1 of 2 on \S+ was killed by SIGKILL$', errors.splitlines()[-1])


@pytest.mark.slow
def test_a_rank_raises(start):
    run = start()
    os.kill(run.rank(1), signal.SIGINT)  # Python raises KeyboardInterrupt in this rank only
    status, _, errors = run.end()
    lines = errors.splitlines()
    assert status == 1
    assert lines[0] == 'Traceback (most recent call last):'
    # One rank's traceback. The signal may come while Python or numpy handles another exception, which is shown, too.
    assert errors.count('Traceback') == 1 + errors.count('During handling of the above exception')
    assert lines[-2:] == ['KeyboardInterrupt', 'error: rank 1 of 2 failed with the error above']


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_ends_all_ranks_in_good_order(start, tmp_path, number):
    run = start()
    run.launcher.send_signal(number)
    status, output, errors = run.end()
    assert (status, errors) == (75, '')
    step = re.search(rf'saved after step (\d+) because of {number.name}', output).group(1)
    assert latest_checkpoint(str(tmp_path / 'run' / 'policy')).endswith(f'-{step}')


@pytest.mark.slow
@pytest.mark.parametrize('times', [1, 2])
def test_ctrl_c_saves_and_a_second_one_ends_all_ranks_at_once(start, tmp_path, times):
    run = start()
    if times == 2:
        os.kill(run.rank(1), signal.SIGSTOP)  # so that it does not finish its step
    run.launcher.send_signal(signal.SIGINT)
    if times == 2:
        assert run.launcher.stderr.readline().decode() == preemption.NOTICE
        run.launcher.send_signal(signal.SIGINT)
    status, output, errors = run.end()
    assert (status, errors) == (130, preemption.NOTICE if times == 1 else '')
    step = re.search(r'saved after step (\d+) because of Ctrl-C', output)
    assert (step is not None) == (times == 1)
    if step:
        assert latest_checkpoint(str(tmp_path / 'run' / 'policy')).endswith(f'-{step.group(1)}')


@pytest.mark.slow
@pytest.mark.parametrize('which', ['launcher', 'mpiexec'])
def test_what_started_the_ranks_is_killed(start, which):
    run = start()
    os.kill(run.launcher.pid if which == 'launcher' else run.mpiexec(), signal.SIGKILL)
    if which == 'launcher':
        run.launcher.wait()
        run.wait_until_nothing_is_left()
    else:
        status, _, errors = run.end()
        assert (status, errors.splitlines()[-1]) == (1, 'error: a rank failed: mpiexec ended with status -9')
