"""Each rank computes on one GPU, and still sees those of the other ranks."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from repository import ROOT

from lm_human_preferences.graph import gpus
from lm_human_preferences.graph.tf_versions import new_session, session_config, tf
from lm_human_preferences.launcher import hosts, mpiexec
from lm_human_preferences.utils.errors import UserError

# What a rank does before its work, and then the settings of its sessions.
RANK = """
import json, os
from lm_human_preferences.launcher.hosts import take_gpu
from lm_human_preferences.mpi.ranks import Ranks

ranks = Ranks()
take_gpu(ranks.local_rank, ranks.local_size)
from lm_human_preferences.graph.tf_versions import new_session, tf

with new_session(tf.Graph()) as session:
    shown = os.environ.get('CUDA_VISIBLE_DEVICES')
    print(json.dumps([ranks.rank, shown, session._config.gpu_options.visible_device_list]), flush=True)
"""


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    """No GPU is chosen yet, and no variable names any."""
    monkeypatch.setattr(gpus, '_chosen', None)
    for name in ('VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER'):
        monkeypatch.setenv(name, '')  # so that it is restored at the end
        monkeypatch.delenv(name)


@pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='needs mpi4py')
@pytest.mark.parametrize(
    'variables, shown',
    [
        ({'VISIBLE_DEVICES': '4,7', 'CUDA_VISIBLE_DEVICES': '0'}, '4,7'),
        ({'CUDA_VISIBLE_DEVICES': 'GPU-a,GPU-b,GPU-c'}, 'GPU-a,GPU-b,GPU-c'),
    ],
)
def test_two_ranks_use_one_gpu_each_and_see_all(variables, shown):
    with mpiexec.session() as environment:
        said = subprocess.run(
            [*mpiexec.ranks_of(2), sys.executable, '-c', RANK],
            env=dict(environment, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        ).stdout.decode()
    assert sorted(map(json.loads, said.splitlines())) == [[0, shown, '0'], [1, shown, '1']]


@pytest.mark.parametrize(
    'variables, shown, used',
    [
        ({'VISIBLE_DEVICES': '3'}, '3', '0'),
        ({'VISIBLE_DEVICES': ' 3 ,5'}, '3,5', '0'),
        ({'VISIBLE_DEVICES': '3,-1,5'}, '3', '0'),
        ({'VISIBLE_DEVICES': ''}, '', ''),
        ({'VISIBLE_DEVICES': '', 'CUDA_VISIBLE_DEVICES': '2'}, '', ''),
        ({'CUDA_VISIBLE_DEVICES': '2,6'}, '2,6', '0'),
        ({'CUDA_VISIBLE_DEVICES': '-1'}, '-1', ''),
    ],
)
def test_the_variables_choose_among_gpus(variables, shown, used, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # a second call, as after a run on several ranks, changes nothing
        hosts.take_gpu()
        assert os.environ['CUDA_VISIBLE_DEVICES'] == shown
        assert session_config().gpu_options.visible_device_list == used


def test_more_ranks_than_gpus(monkeypatch):
    monkeypatch.setenv('VISIBLE_DEVICES', '3')
    with pytest.raises(UserError, match='2 ranks need as many GPUs'):
        hosts.take_gpu(1, 2)


def test_the_gpus_of_nvidia_smi_stay_visible(tmp_path, monkeypatch):
    """Without variables, all GPUs of the host are used, in the order of nvidia-smi."""
    program = tmp_path / 'nvidia-smi'
    program.write_text('#!/bin/sh\necho "GPU 0: NVIDIA A (UUID: GPU-1)"\necho "GPU 1: NVIDIA A (UUID: GPU-2)"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    assert hosts.num_ranks(None, []) == 2
    hosts.take_gpu(1, 2)
    assert 'CUDA_VISIBLE_DEVICES' not in os.environ
    assert os.environ['CUDA_DEVICE_ORDER'] == 'PCI_BUS_ID'
    assert session_config().gpu_options.visible_device_list == '1'


def test_all_sessions_of_a_process_use_the_same_gpu():
    """TensorFlow refuses a session with another list of GPUs; one without GPUs takes no part in this."""
    sessions = {}
    for folder, _, files in os.walk(os.path.join(ROOT, 'lm_human_preferences')):
        for name in files:
            if name.endswith('.py'):
                with open(os.path.join(folder, name), encoding='utf-8') as file:
                    lines = [line.strip() for line in file if 'tf.Session(' in line]
                sessions.update({name: lines} if lines else {})
    assert sessions.pop('tf_versions.py') == ['return tf.Session(graph=graph, config=session_config(threads))']
    assert list(sessions) == ['summaries.py']
    assert ["device_count={'GPU': 0}" in line for line in sessions['summaries.py']] == [True]
    gpus.choose_gpu(0)
    with new_session(tf.Graph()) as session:
        assert session._config.gpu_options.visible_device_list == '0'
