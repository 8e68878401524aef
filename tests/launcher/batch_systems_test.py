"""Ranks start where the command line says, and not where a batch system would start them."""

import importlib.util
import platform
import subprocess
import sys

import pytest

from lm_human_preferences.launcher import mpiexec

pytestmark = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')


@pytest.mark.parametrize('system', ['slurm', 'pbs', 'lsf', 'sge', 'default_hostfile'])
def test_ranks_without_hosts_are_on_this_machine_whatever_a_batch_system_says(system, monkeypatch, tmp_path):
    hostfile = tmp_path / 'hosts'
    hostfile.write_text('none-1.invalid\nnone-2.invalid\n')
    variables = {
        'slurm': dict(
            SLURM_JOBID='7',
            SLURM_JOB_ID='7',
            SLURM_NODELIST='none-[1-2]',
            SLURM_JOB_NODELIST='none-[1-2]',
            SLURM_NNODES='2',
            SLURM_TASKS_PER_NODE='1(x2)',
            SLURM_JOB_CPUS_PER_NODE='1(x2)',
        ),
        'pbs': dict(PBS_ENVIRONMENT='PBS_BATCH', PBS_JOBID='7', PBS_NODEFILE=str(hostfile)),
        'lsf': dict(LSB_JOBID='7', LSB_HOSTS='none-1 none-2', LSB_MCPU_HOSTS='none-1 1 none-2 1'),
        'sge': dict(SGE_ROOT='/', ARC_ROOT='/', JOB_ID='7', PE_HOSTFILE=str(hostfile)),
        'default_hostfile': dict(
            PRTE_MCA_prte_default_hostfile=str(hostfile),
            OMPI_MCA_orte_default_hostfile=str(hostfile),
            HYDRA_HOST_FILE=str(hostfile),
        ),
    }[system]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = 'import os, platform; print(platform.node(), sorted(v for v in os.environ if v[:5] in ("SLURM", "PBS_J")))'
    with mpiexec.session() as environment:
        done = subprocess.run([*mpiexec.ranks_of(2), sys.executable, '-c', code], env=environment, capture_output=True)
    assert (done.returncode, done.stdout.decode().splitlines()) == (0, [f'{platform.node()} []'] * 2), done.stderr
