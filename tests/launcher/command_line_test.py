"""The command line as a process: what it prints, and how it refuses bad input."""

import importlib.util
import os
import subprocess
import sys

import launching
import pytest
from repository import LAUNCH

from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.launcher import hosts
from lm_human_preferences.launcher.flags import COMMANDS, launch_flags

EXPERIMENTS = ('sentiment', 'descriptiveness', 'cnndm', 'tldr', 'demo')


def launch(*argv, **variables):
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    environment.update({'CUDA_VISIBLE_DEVICES': '', **variables})
    return launching.launch(*argv, folder='/', environment=environment)


def printed(*argv, **variables):
    status, out, err = launch(*argv, **variables)
    assert (status, err) == (0, '')
    return out.splitlines()


def refused(*argv, **variables):
    status, out, err = launch(*argv, **variables)
    assert (status, out) == (2, ''), (out, err)
    assert err.startswith('error: ') and err.count('\n') == 1, err
    return err


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_dry_run(name, tmp_path):
    lines = printed('train_policy', name, 'test-1911190400', '--dry_run', '--save_dir', str(tmp_path / 'save'))
    assert lines[0] == f'trial 1 of 1: train_policy in {tmp_path}/save/test-1911190400 on 1 rank(s)'
    assert f"  run.save_dir = '{tmp_path}/save/test-1911190400'" in lines
    assert not (tmp_path / 'save').exists()


@pytest.mark.parametrize('command', ['train_reward', 'train_lm'])
def test_dry_run_of_other_commands(command):
    assert printed(command, 'demo', '1234', '--dry_run')[0].split()[:7] == [
        *('trial', '1', 'of', '1:', command, 'in', f'/tmp/save/{command}/1234')
    ]


def test_flags_reach_the_tree_with_and_without_equals():
    lines = printed(
        *('train_policy', 'sentiment', 'group/name', '--dry_run=true', '--mpi', '2'),
        *('--rewards.trained_model', '/some/model', '--rewards.train_new_model', 'off', '--ppo.lr=1e-3'),
        *(
            '--task.penalty_reward_value',
            '-3',
            '--task.query_suffix=-x',
            '--task.policy.initial_model',
            '774M',
        ),
    )
    assert lines[0].endswith('/tmp/save/train_policy/group/name on 2 rank(s)')
    for line in (
        "rewards.trained_model = '/some/model'",
        'rewards.train_new_model = off',
        'ppo.lr = 0.001',
        'task.penalty_reward_value = -3',
        "task.query_suffix = '-x'",
        "task.policy.initial_model = '774M'",
    ):
        assert '  ' + line in lines


def test_a_bare_flag_that_begins_with_no():
    assert '  normalize_before = True' in printed('train_reward', 'demo', 'x', '--normalize_before', '--dry_run')


def test_a_sweep_of_the_users_own(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('train_lm: {dataset: test, sweep: {lr: [1, 2]}}\n')
    lines = printed('train_lm', str(path), 'x', '--dry_run', '--save_dir=/save')
    assert [line for line in lines if line.startswith('trial')] == [
        'trial 1 of 2: train_lm in /save/x/lr1 on 1 rank(s)',
        'trial 2 of 2: train_lm in /save/x/lr2 on 1 rank(s)',
    ]


@pytest.mark.parametrize(
    'argv, message',
    [
        ((), 'give a command first'),
        (('--mpi', '2'), 'give a command first'),
        (('train_rewrd',), 'did you mean train_reward?'),
        (('train_reward',), 'EXPERIMENT and NAME are missing: launch.py train_reward EXPERIMENT NAME'),
        (('train_reward', 'sentiment'), 'NAME is missing: launch.py train_reward EXPERIMENT NAME'),
        (
            ('train_reward', 'sentimental', 'x'),
            'give one of cnndm, demo, demo_online, descriptiveness, sentiment, tldr',
        ),
        (('train_reward', '/none.yaml', 'x'), '/none.yaml: No such file or directory'),
        (('train_reward', 'sentiment', 'x', 'y'), "unexpected argument 'y'"),
        (('train_reward', 'sentiment', 'x', '-', 'y'), "unexpected argument '-'"),
        (('train_policy', 'sentiment', 'x', '--ppo.lrr', '1'), 'no flag --ppo.lrr: did you mean --ppo.lr?'),
        (('train_policy', 'sentiment', 'x', '--mpii', '1'), 'no flag --mpii: did you mean --mpi?'),
        (
            ('train_reward', 'sentiment', 'x', '--rewards.train_new_model=on'),
            'no flag --rewards.train_new_model',
        ),
        (('train_policy', 'sentiment', 'x', '--ppo.lr', 'fast'), "ppo.lr should be float, not 'fast'"),
        (('train_policy', 'sentiment', 'x', '--ppo.lr'), '--ppo.lr needs a value'),
        (
            ('train_policy', 'sentiment', 'x', '--rewards.trained_model', '--dry_run'),
            '--rewards.trained_model needs',
        ),
        (
            ('train_policy', 'sentiment', 'x', '--rewards.trained_model', 'd'),
            'add --rewards.train_new_model off',
        ),
        (('train_policy', 'sentiment', 'x', '--ppo.nminibatches', '3'), 'must be a multiple of'),
        (('train_policy', 'sentiment', 'x', '--mpi', '3'), 'must be a multiple of'),
        (('train_policy', 'sentiment', 'x', '--mpi', '0'), 'mpi must be 1 or more'),
        (('train_policy', 'sentiment', 'x', '--mpi', 'many'), 'mpi should be int'),
        (('train_reward', 'demo', 'x', '--labeler', 'a:b'), '--labeler is for train_policy'),
        (('train_policy', 'demo', 'x', '--labeler', 'a:b'), 'labels.schedule.num_initial is not set'),
        (('train_policy', 'demo_online', 'x', '--labeler', 'a.b'), 'labeler must be page or MODULE:FUNCTION'),
        (('train_policy', 'sentiment', 'x', '--mode', 'cloud'), 'mode must be local'),
        (('train_policy', 'sentiment', 'x', '--dry_run', 'maybe'), 'dry_run should be bool'),
        (('train_policy', 'sentiment', 'x', '--save_dir', 's3://bucket'), 'save_dir must be a local folder'),
        (('train_policy', 'sentiment', 'x', '--run.save_dir', 'd'), 'give --save_dir and NAME'),
        (('sample',), 'save_dir is not set'),
        (('sample', '--save_dir', 'd', 'e'), "unexpected argument 'e'"),
        (('sample', '--save_dir', 'd', '--temperature', '-1'), 'temperature must be 0 or between 0.000001 and'),
        (('sample', '--save_dir', 'd', '--nsample', '0'), 'did you mean --nsamples?'),
    ],
)
def test_bad_input(argv, message):
    assert message in refused(*argv)


@pytest.mark.parametrize('name', ['../x', '/x', 'a//b', 'a/../../b', 'a/', '..', 'a b', 'a\n', 'é', ''])
def test_names_stay_inside_save_dir(name, tmp_path):
    assert 'NAME' in refused('train_reward', 'demo', name, '--save_dir', str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    message = refused('train_reward', 'demo', 'x', '--save_dir', str(tmp_path / 'file'))
    assert f'cannot write to {tmp_path}/file/x: Not a directory' in message


def test_a_bad_trial_stops_the_sweep_before_it_starts(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('train_lm: {dataset: test, sweep: {lr: [1, -2]}}\n')
    assert 'lr must be 0 or above' in refused('train_lm', str(path), 'x', '--save_dir', str(tmp_path / 'save'))
    assert not (tmp_path / 'save').exists()


def test_traceback_is_shown_on_request():
    status, out, err = launch('train_reward', 'sentimental', 'x', '--traceback')
    assert (status, out) == (2, '') and 'Traceback' in err and err.splitlines()[-1].startswith('error: ')


def test_help():
    text = '\n'.join(printed('--help'))
    for word in ('train_reward', 'train_policy', 'train_lm', 'sample', *EXPERIMENTS):
        assert word in text
    lines = printed('train_policy', '--help')
    assert '  --ppo.lr: float = 5e-06' in lines and '  --rewards.train_new_model: on or off' in lines
    assert "  --save_dir: str = '/tmp/save/train_policy'" in lines
    assert '  --rewards.adaptive_kl.horizon: int = 10000' in lines
    assert (
        lines[lines.index('  --ppo.lr: float = 5e-06') + 1].strip()
        == TREES['train_policy'].tree()['ppo.lr'].description
    )


@pytest.mark.parametrize('command', sorted(COMMANDS))
def test_every_flag_has_a_one_line_description(command):
    for name, flag in launch_flags(command).tree().items():
        assert flag.description.endswith('.') and len(flag.description) <= 112, name


@pytest.mark.parametrize(
    'module', ['launcher.command_line', 'launcher.rank', 'launcher.mpiexec', 'labeling.collection']
)
def test_tensorflow_is_not_loaded_before_it_is_needed(module):
    code = f'import sys, lm_human_preferences.{module}; print("tensorflow" in sys.modules)'
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(LAUNCH))
    assert subprocess.check_output([sys.executable, '-c', code], env=environment).split() == [b'False']


@pytest.mark.parametrize(
    'devices, ranks', [('', 1), ('0', 1), ('0,1,2', 3), ('0,-1,2', 1), ('-1', 1), ('GPU-a,GPU-b', 2)]
)
def test_a_rank_for_each_visible_gpu(devices, ranks, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', devices)
    assert hosts.num_ranks(None, []) == ranks


@pytest.mark.skipif(importlib.util.find_spec('mpi4py') is not None, reason='mpi4py is installed')
def test_ranks_without_mpi4py(tmp_path):
    assert 'a run of several ranks needs mpi4py' in refused(
        *('train_reward', 'demo', 'x', '--mpi', '2', '--save_dir', str(tmp_path))
    )


@pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='needs mpi4py')
def test_an_error_of_the_ranks_is_one_line(tmp_path):
    lines = [
        'import sys',
        'from lm_human_preferences import hyperparameters',
        'from lm_human_preferences.launcher import mpiexec',
        'try:',
        '    mpiexec.start("sample", hyperparameters.SampleHParams(save_dir=sys.argv[1]), 2)',
        'except mpiexec.UserError as error:',
        '    print(error)',
    ]
    process = subprocess.Popen(
        [sys.executable, '-c', '\n'.join(lines), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=os.path.dirname(LAUNCH),
    )
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err.decode()) == (0, '')
    assert (
        out.decode()
        == f'{tmp_path}: not the folder of a run: there is no train_policy_hparams.json or train_reward_hparams.json\n'
    )
