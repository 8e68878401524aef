"""launch.py as the ranks of a launcher: mpiexec or srun around it. The mpiexec is real, and so are the ranks."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from repository import LAUNCH
from resumed_runs import variables
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences.launcher import given_ranks, mpiexec
from lm_human_preferences.launcher.flags import TrainFlags
from lm_human_preferences.utils.errors import UserError

pytestmark = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')


def around(*flags, ranks=2, **more):
    """Run mpiexec around launch.py; return exit status, output and errors."""
    with mpiexec.session() as environment:
        words = [*mpiexec.ranks_of(ranks), sys.executable, LAUNCH, *map(str, flags)]
        done = subprocess.run(words, env={**environment, **more}, capture_output=True, timeout=100)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('given')
    (path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    return path


def flags_of(folder, name):
    return ['train_policy', folder / 'tiny.yaml', name, f'--save_dir={folder}', '--threads=1']


@pytest.mark.slow
def test_the_processes_of_mpiexec_are_the_ranks(folder):
    status, printed, errors = around(*flags_of(folder, 'given'))
    assert status == 0, errors
    assert printed.count('2 ranks, gradients averaged by') == 1
    assert printed.count('\nstep 2/2 ') == 1 and printed.count('report: ') == 1
    own = subprocess.run([sys.executable, LAUNCH, *map(str, flags_of(folder, 'own')), '--mpi=2'], capture_output=True)
    assert own.returncode == 0, own.stderr
    one, two = (variables(str(folder / name / 'policy')) for name in ('given', 'own'))
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], name)
    # Both count as a run of two ranks: the other kind of start finds it finished.
    status, printed, _ = around(*flags_of(folder, 'own'), '--mpi=2')
    assert status == 0 and printed.count('this run is finished') == 1
    status, printed, errors = around(*flags_of(folder, 'own'), '--dry_run')
    assert (status, printed.count('on 2 rank(s)')) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    'flags, message',
    [
        (['--mpi=3'], '--mpi=3, but 2 processes of launch.py were started by mpiexec or srun: leave out --mpi, or '),
        (['--hosts=a:2'], 'mpiexec or srun has started the ranks on their hosts: leave out --hosts and --hostfile'),
        (['--ppo.lr=x'], "ppo.lr should be float, not 'x'"),
        (['--task.policy.initial_model=none-there'], 'no model at none-there'),
    ],
)
def test_an_error_is_one_line_and_ends_all_ranks(folder, flags, message):
    status, _, errors = around(*flags_of(folder, 'bad'), *flags)
    lines = [line for line in errors.splitlines() if line.startswith('error:')]
    assert status == 2 and len(lines) == 1 and message in lines[0], errors
    assert 'Traceback' not in errors


@pytest.mark.slow
def test_a_rank_that_fails_ends_all(folder, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(
        "import os\nif os.environ.get('OMPI_COMM_WORLD_RANK') == '1':\n"
        "    os.environ['LM_HUMAN_PREFERENCES_GRADIENTS'] = 'nonsense'\n"
    )
    with mpiexec.session() as environment:
        path = os.pathsep.join([str(tmp_path), environment['PYTHONPATH']])
    status, _, errors = around(*flags_of(folder, 'fails'), PYTHONPATH=path)
    assert status == 2 and 'error: rank 1 of 2: LM_HUMAN_PREFERENCES_GRADIENTS must be horovod or mpi4py' in errors


@pytest.mark.slow
def test_a_signal_to_all_ranks_saves_and_the_run_resumes(folder):
    flags = [*flags_of(folder, 'stopped'), '--run.save_interval=1000000', '--ppo.total_episodes=16000000']
    with mpiexec.session() as environment:
        words = [*mpiexec.ranks_of(2), sys.executable, LAUNCH, *map(str, flags)]
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in process.stdout:
            if line.startswith(b'step 3/'):
                break
        for pid in ranks_in(folder / 'stopped'):
            os.kill(pid, signal.SIGTERM)
        printed = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 75
    step = int(re.search(r'saved after step (\d+) because of SIGTERM', printed).group(1))
    status, printed, errors = around(*flags[:-1], f'--ppo.total_episodes={16 * (step + 1)}')
    assert status == 0 and f'resuming after step {step}' in printed, errors


def ranks_in(run):
    """Return the process ids of the ranks that train the run in a folder."""
    found = []
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/cmdline', 'rb') as file:
                words = file.read().split(b'\0')
        except OSError:
            continue
        if run.name.encode() in words and os.path.basename(words[0]).startswith(b'python'):
            found.append(int(name))
    return found


@pytest.mark.slow
def test_evaluation_over_ranks_gives_what_one_rank_gives(tiny_run, tmp_path):
    flags = ['evaluate', tiny_run.folder, f'--labels={tiny_run.labels}', '--policies', 'initial', tiny_run.folder]
    flags += ['--num_queries=21', '--batch_size=4']
    results = {}
    for name, start in (('one', []), ('two', ['--mpi=2']), ('given', None)):
        out = f'--out={tmp_path / name}'
        os.environ['LM_HUMAN_PREFERENCES_THREADS'] = '1'
        try:
            if start is None:
                status, printed, errors = around(*flags, out)
            else:
                done = subprocess.run([sys.executable, LAUNCH, *flags, out, *start], capture_output=True)
                status, printed, errors = done.returncode, done.stdout.decode(), done.stderr.decode()
        finally:
            del os.environ['LM_HUMAN_PREFERENCES_THREADS']
        assert status == 0, errors
        assert printed.count('Policies on 21 held-out queries') == printed.count('Reward model on ') == 1
        files = [tmp_path / name / file for file in ('evaluation.json', 'evaluation_samples.jsonl')]
        results[name] = [file.read_text() for file in files]
    assert json.loads(results['one'][0])['policies']['queries'] == 21
    assert results['one'] == results['two'] == results['given']


def clear(monkeypatch):
    for names in given_ranks._VARIABLES:
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    'variables, expected',
    [
        (dict(OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_RANK='3'), (4, 3)),
        (dict(PMI_SIZE='2', PMI_RANK='0'), (2, 0)),
        (dict(SLURM_STEP_NUM_TASKS='8', SLURM_PROCID='7'), (8, 7)),
        (dict(SLURM_STEP_NUM_TASKS='1', SLURM_PROCID='0'), None),
        (dict(SLURM_NTASKS='8', SLURM_PROCID='0'), None),  # in the script of a job, outside of srun
        (dict(OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_RANK='0'), None),
        (dict(PMI_SIZE='2'), None),
        ({}, None),
    ],
)
def test_what_launchers_tell(variables, expected, monkeypatch):
    clear(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert given_ranks.given() == expected
    flags = TrainFlags(mpi=2 if expected is None else None)
    assert flags.placement() == (2, [], False) if expected is None else (expected[0], [], True)
    if expected:
        with pytest.raises(UserError, match=f'--mpi=9, but {expected[0]} processes of launch.py were started'):
            TrainFlags(mpi=9).placement()


@pytest.mark.slow
def test_processes_that_see_no_other_say_so(folder):
    """srun without its plugin for MPI starts processes that are alone, each for itself."""
    environment = dict(os.environ, SLURM_STEP_NUM_TASKS='2')
    words = [sys.executable, LAUNCH, *map(str, flags_of(folder, 'alone'))]
    for number, expected in ((0, 1), (1, 0)):
        done = subprocess.run(words, env=dict(environment, SLURM_PROCID=str(number)), capture_output=True, timeout=120)
        assert done.returncode == 2
        assert done.stderr.decode().count('error: 2 processes of launch.py were started, and mpi4py sees 1') == expected
