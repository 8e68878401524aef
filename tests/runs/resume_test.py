"""Runs that are killed at random moments and resumed have the same outcome as runs that are not.

RESUME_KILLS sets how often the run of both steps is killed.
"""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from launching import Launched, launch
from refusals import refusal
from repository import TESTS
from resumed_runs import assert_same_run, curve, samples, variables, write_experiment

from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.reporting.event_files import read_curves
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.checkpoints import latest_checkpoint
from lm_human_preferences.runs.run_folder import RunFolder

KILLS = int(os.environ.get('RESUME_KILLS', 5))
NUM_STEPS = 20 + 16 * KILLS


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp('experiment'), NUM_STEPS)


def run_with_kills(kills, tmp_path, name, *arguments):
    """Do a run that is killed `kills` times; return what its processes printed."""
    output = str(tmp_path / f'{name}.txt')
    script = os.path.join(TESTS, 'support', 'killed_run.py')
    command = [sys.executable, script, str(kills), output, *map(str, arguments)]
    done = subprocess.run([*command, f'--save_dir={tmp_path / name}', '--threads=1', '--mpi=1'], stderr=subprocess.PIPE)
    with open(output) as file:
        printed = file.read()
    assert done.returncode == 0, done.stderr.decode() + printed[-2000:]
    return printed


@pytest.mark.slow
def test_both_steps_killed_at_random_moments_end_as_if_undisturbed(experiment, tmp_path):
    whole = run_with_kills(0, tmp_path, 'whole', 'train_policy', experiment, 'run')
    killed = run_with_kills(KILLS, tmp_path, 'killed', 'train_policy', experiment, 'run')
    first, second = str(tmp_path / 'whole' / 'run'), str(tmp_path / 'killed' / 'run')
    assert_same_run(first, second, ['reward_model', 'policy'], ['reward_model', 'ppo'])
    assert samples(whole) == samples(killed) and len(samples(whole)) == 2
    assert killed.count('resuming after step') >= KILLS // 3
    assert sorted(os.listdir(second)) == sorted(os.listdir(first))
    steps = [step for tag, step, _ in curve(os.path.join(second, 'tb', 'ppo')) if tag == 'objective/kl']
    assert steps == list(range(NUM_STEPS))
    check_tensorboard(os.path.join(second, 'tb', 'ppo'), steps)


def check_tensorboard(folder, steps):
    """TensorBoard and our report show one curve, with each step once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(folder, size_guidance={'scalars': 0}, purge_orphaned_data=True)
    accumulator.Reload()
    assert read_curves(folder)['objective/score'].steps.tolist() == steps
    for tag in ('objective/score', 'elapsed/time'):
        assert [event.step for event in accumulator.Scalars(tag)] == steps
    times = [event.value for event in accumulator.Scalars('elapsed/time')]
    assert times == sorted(times)


@pytest.mark.slow
def test_a_language_model_in_training_is_killed_too(experiment, tmp_path):
    run_with_kills(0, tmp_path, 'whole', 'train_lm', experiment, 'run')
    run_with_kills(2, tmp_path, 'killed', 'train_lm', experiment, 'run')
    first, second = str(tmp_path / 'whole' / 'run'), str(tmp_path / 'killed' / 'run')
    assert_same_run(first, second, ['training', 'model'], ['lm'])


@pytest.mark.slow
def test_a_run_that_needed_too_much_memory_goes_on_with_smaller_steps(experiment, tmp_path):
    common = ['train_policy', experiment, 'run', '--mpi=1', '--threads=1', '--rewards.train_new_model=off']
    common += ['--rewards.trained_model=test', '--ppo.total_episodes=64']
    for name, smaller in (('whole', []), ('smaller', ['--ppo.rollout_batch_size=5', '--ppo.microbatch_size=2'])):
        assert launch(*common, f'--save_dir={tmp_path / name}', '--ppo.total_episodes=32')[0] == 0
        status, output, errors = launch(*common, f'--save_dir={tmp_path / name}', *smaller)
        assert (status, errors) == (0, '') and 'resuming after step 2\n' in output
    one, two = (variables(str(tmp_path / name / 'run' / 'policy')) for name in ('whole', 'smaller'))
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-5, err_msg=name)
    other = [*common, f'--save_dir={tmp_path / "whole"}', '--ppo.nminibatches=1']
    assert 'holds a run with other values of ppo.nminibatches: ' in launch(*other)[2]


def test_hyperparameters_and_states_that_are_lost(tiny_run, tmp_path, capsys):
    """The same command writes the hyperparameters again, and resumes from a checkpoint that has its state."""
    folder = str(tmp_path / 'save')
    shutil.copytree(os.path.dirname(tiny_run.folder), folder)
    run = os.path.join(folder, 'tiny')
    saved = os.path.join(run, 'train_policy_hparams.json')
    command = ['train_policy', f'{folder}/tiny.yaml', 'tiny', f'--save_dir={folder}', '--mpi=1']
    before = variables(os.path.join(run, 'policy'))
    os.unlink(saved)
    with pytest.raises(FileNotFoundError, match=f'{saved} is missing: the command of this run writes it again'):
        RunFolder(run)
    line = refusal(capsys, ['train_reward', *command[1:]])
    assert line == f'{run} holds a run of train_policy: give another NAME'
    os.unlink(os.path.join(run, 'policy', 'checkpoints', 'state-3.json'))
    os.unlink(os.path.join(run, 'policy', 'checkpoints', 'checkpoint'))
    main(command)
    output = capsys.readouterr().out
    assert 'model.ckpt-2 is used, and newer ones are passed over: model.ckpt-3 (state-3.json is missing)' in output
    assert 'resuming after step 2' in output and RunFolder(run).has_policy
    after = variables(os.path.join(run, 'policy'))
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-5, err_msg=name)
    with open(saved) as file:  # of a run that is finished
        content = file.read()
    for damaged in (content[:-100], '', '{"ppo": 3}'):
        with open(saved, 'w') as file:
            file.write(damaged)
        line = refusal(capsys, command)
        assert line.startswith(f'{saved}: ') and line.endswith(
            ': mend this file, or remove it and give the command of this run again, which writes it'
        )
    os.unlink(saved)
    main(command)
    with open(saved) as file:
        assert file.read() == content


def test_what_a_run_may_change_and_what_not(experiment, tmp_path):
    common = ['train_policy', experiment, 'run', f'--save_dir={tmp_path}', '--mpi=1']
    common += ['--rewards.train_new_model=off', '--rewards.trained_model=test']
    assert launch(*common, '--ppo.total_episodes=32')[0] == 0
    run = str(tmp_path / 'run')
    saved = os.path.join(run, 'train_policy_hparams.json')
    before = {path: os.stat(path).st_mtime_ns for path in (saved, os.path.join(run, 'policy', 'checkpoints'))}

    status, output, errors = launch(*common, '--ppo.total_episodes=32', '--run.log_interval=5')
    assert (status, output, errors) == (0, f'{run}: this run is finished\n', '')

    status, output, errors = launch(*common, '--ppo.lr=2e-3', '--rewards.kl_coef=0.3', '--run.save_interval=7')
    assert status == 2 and output == ''
    assert 'other values of ppo.lr, rewards.kl_coef:' in errors and len(errors.splitlines()) == 1
    assert {path: os.stat(path).st_mtime_ns for path in before} == before

    # Fewer episodes than the run has: nothing is written, except the missing report.
    os.unlink(os.path.join(run, 'report.html'))
    status, output, errors = launch(*common, '--ppo.total_episodes=16')
    assert (status, output, errors) == (0, f'{run}: this run is finished\nreport: {run}/report.html\n', '')
    assert {path: os.stat(path).st_mtime_ns for path in before} == before

    # More episodes: the run resumes, and so does its curve, even if it was killed before it saved a step.
    with open(saved) as file:
        longer = json.load(file)
    longer['ppo']['total_episodes'] = 64
    with open(saved, 'w') as file:
        json.dump(longer, file)
    status, output, errors = launch(*common, '--ppo.total_episodes=64', '--run.save_interval=3')
    assert (status, errors) == (0, '')
    assert 'resuming after step 2' in output and 'step 3/4' in output and 'step 2/' not in output
    steps = [step for tag, step, _ in curve(os.path.join(run, 'tb', 'ppo')) if tag == 'objective/kl']
    assert steps == [0, 1, 2, 3]

    # A new run, beside the old one or in its place.
    status, output, errors = launch(*common, '--ppo.total_episodes=16', '--resume=off', '--ppo.lr=2e-3')
    assert (status, errors) == (0, '') and f'{run}-2' in output
    assert latest_checkpoint(os.path.join(run, 'policy')).endswith('-4')
    assert latest_checkpoint(os.path.join(f'{run}-2', 'policy')).endswith('-1')
    with open(os.path.join(run, 'notes.txt'), 'w') as file:
        file.write('mine')
    status, output, errors = launch(*common, '--ppo.total_episodes=16', '--resume=overwrite', '--ppo.lr=2e-3')
    assert (status, errors) == (0, '')
    assert latest_checkpoint(os.path.join(run, 'policy')).endswith('-1')
    assert sorted(set(os.listdir(run)) - set(os.listdir(f'{run}-2'))) == ['notes.txt']


@pytest.mark.parametrize('resume', ['on', 'overwrite'])
def test_each_folder_belongs_to_one_run(tiny_run, capsys, resume):
    folder, files = os.path.dirname(tiny_run.folder), sorted(os.listdir(tiny_run.folder))
    run = tiny_run.folder
    for command, name, message in (
        ('train_reward', 'tiny', f'{run} holds a run of train_policy: give another NAME'),
        ('train_policy', 'tiny/tb', f'{run}/tb lies within the run {run}: give another NAME or --save_dir'),
        ('train_policy', 'tiny/new/run', f'{run}/new/run lies within the run {run}: '),
    ):
        flags = [f'--save_dir={folder}', '--mpi=1', f'--resume={resume}']
        assert refusal(capsys, [command, f'{folder}/tiny.yaml', name, *flags]).startswith(message)
        assert sorted(os.listdir(tiny_run.folder)) == files


def without_checksums(folder, step):
    """Make a manifest what it was in the version before."""
    path = os.path.join(folder, 'checkpoints', f'state-{step}.json')
    with open(path) as file:
        manifest = json.load(file)
    del manifest['checksum']
    manifest['files'] = {name: entry['size'] for name, entry in manifest['files'].items()}
    with open(path, 'w') as file:
        json.dump(manifest, file)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_or_named(experiment, tmp_path, capsys):
    common = ['train_policy', str(experiment), 'run', f'--save_dir={tmp_path}', '--mpi=1', '--run.save_interval=1']
    common += ['--rewards.train_new_model=off', '--rewards.trained_model=test']
    main([*common, '--ppo.total_episodes=32'])
    last = tmp_path / 'run' / 'policy' / 'checkpoints' / 'model.ckpt-2'
    data = str(last) + '.data-00000-of-00001'
    with open(data, 'r+b') as file:
        file.seek(8)
        file.write(b'\xff\x00\xff\x00')
    capsys.readouterr()
    longer = [*common, '--ppo.total_episodes=64']
    shutil.copytree(str(tmp_path / 'run'), str(tmp_path / 'copy'))
    main([*longer[:2], 'copy', *longer[3:]])
    output = capsys.readouterr().out
    assert f'model.ckpt-1 is used, and newer ones are passed over: model.ckpt-2 ({last.name}.data-00000' in output
    assert 'resuming after step 1' in output and 'step 2/4' in output
    without_checksums(str(tmp_path / 'run' / 'policy'), 2)
    line = refusal(capsys, longer)
    assert line.startswith(f'{last}: damaged, or from another model: ') and 'Checksum does not match: ' in line
    assert f'remove its files ({last}.*), and the same command resumes from the previous checkpoint, if any' in line
    for path in glob.glob(f'{last}.*'):
        os.unlink(path)
    main(longer)
    assert 'resuming after step 1' in capsys.readouterr().out


@pytest.fixture
def long_run(experiment, tmp_path):
    """A function that starts a run of hours, and waits for its first steps."""
    processes = []

    def start(*flags):
        arguments = ['train_policy', experiment, 'long', f'--save_dir={tmp_path}', '--rewards.train_new_model=off']
        arguments += ['--rewards.trained_model=test', '--ppo.total_episodes=1600000', '--run.save_interval=1000000']
        process = Launched(*arguments, *flags)
        processes.append(process)
        for line in process.stdout:
            if line.startswith(b'step '):
                return process
        raise AssertionError(process.stderr.read().decode())

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_signal_saves_the_step_and_ends_with_its_own_status(long_run, tmp_path):
    last = 0
    for number, name, status, said in (
        (signal.SIGTERM, 'SIGTERM', 75, ''),
        (signal.SIGHUP, 'SIGHUP', 75, ''),
        (signal.SIGINT, 'Ctrl-C', 130, preemption.NOTICE),
    ):
        process = long_run('--mpi=1')
        process.send_signal(number)
        output, errors = process.communicate()
        assert (process.returncode, errors.decode()) == (status, said)
        step = int(re.search(rf'saved after step (\d+) because of {name}\n', output.decode()).group(1))
        assert step > last
        assert latest_checkpoint(str(tmp_path / 'long' / 'policy')).endswith(f'-{step}')
        assert not os.path.exists(str(tmp_path / 'long' / '.run.lock'))
        last = step
    steps = [at for tag, at, _ in curve(str(tmp_path / 'long' / 'tb' / 'ppo')) if tag == 'objective/kl']
    assert steps == list(range(last))


HEEDING = """
import time
from lm_human_preferences.runs import preemption
with preemption.heeded(ctrl_c=True):
    print('working', flush=True)
    while not preemption.requested():
        time.sleep(0.01)
    print('saving', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def heeding():
    """A function that starts a process that heeds signals, after a `prefix` of its command line."""
    processes = []

    def start(*prefix):
        command = [*prefix, sys.executable, '-c', HEEDING]
        streams = dict.fromkeys(('stdout', 'stderr', 'stdin'), subprocess.PIPE)
        processes.append(subprocess.Popen(command, **streams, cwd=os.path.dirname(TESTS)))
        assert processes[-1].stdout.readline() == b'working\n'
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('first', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize('second', [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(heeding, first, second):
    process = heeding()
    process.send_signal(first)
    assert process.stdout.readline() == b'saving\n'
    process.send_signal(signal.SIGHUP)  # one closed terminal may send several
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(second)
    assert process.wait() == -second
    assert process.stderr.read().decode() == (preemption.NOTICE if first == signal.SIGINT else '')


def test_under_nohup_a_closed_terminal_is_ignored(heeding):
    process = heeding('nohup')
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b'saving\n'


def test_a_run_has_one_owner_whose_lock_ends_with_it(long_run, experiment, tmp_path):
    process = long_run('--mpi=1')
    flags = ['train_policy', experiment, 'long', f'--save_dir={tmp_path}', '--rewards.train_new_model=off']
    flags += ['--rewards.trained_model=test', '--ppo.total_episodes=1600000', '--mpi=1']
    for resume in ('on', 'overwrite'):
        status, output, errors = launch(*flags, f'--resume={resume}')
        assert (status, output) == (2, '')
        assert f'in progress in another process (process {process.pid}): ' in errors and len(errors.splitlines()) == 1
    assert process.poll() is None
    process.kill()
    process.wait()
    long_run('--mpi=1')


@pytest.mark.parametrize('how', ['moved', 'removed', 'replaced'])
def test_a_folder_that_is_moved_or_removed_ends_its_run(long_run, tmp_path, how):
    process = long_run('--mpi=1')
    run, moved = tmp_path / 'long', tmp_path / 'moved'
    next(line for line in process.stdout if line.startswith(b'step 3/'))  # the first step writes more files
    if how == 'removed':
        shutil.rmtree(str(run))
    else:
        os.rename(str(run), str(moved))
    if how == 'replaced':  # by that of another run
        (run / 'policy' / 'checkpoints').mkdir(parents=True)
        (run / '.run.lock').write_text('1 elsewhere\n')
    output, errors = process.communicate()
    place = run / 'policy' / 'checkpoints'
    assert errors.decode() == (
        f'error: {place}: this folder was moved or removed while the run wrote to it; nothing more is saved: '
        'move it back, and the same command resumes from its last checkpoint\n'
    )
    assert process.returncode == 2 and b'saved' not in output
    left = sorted(path.name for path in tmp_path.glob('long/**/*') if path.is_file())
    assert left == (['.run.lock'] if how == 'replaced' else [])


@pytest.mark.slow
def test_a_full_disk_loses_neither_the_last_checkpoint_nor_the_run(experiment, small_disk, tmp_path):
    disk, enlarge = small_disk
    common = ['train_policy', experiment, 'run', '--mpi=1', '--threads=1', '--rewards.train_new_model=off']
    common += ['--rewards.trained_model=test', '--ppo.total_episodes=192', '--run.save_interval=1']
    for _ in range(2):  # the disk is still full the second time
        status, _, errors = launch(*common, f'--save_dir={disk}')
        assert status == 2 and len(errors.splitlines()) == 1, errors
        assert errors.startswith('error: ') and 'No space left on device' in errors
    last = latest_checkpoint(os.path.join(disk, 'run', 'policy'))
    step = int(last.split('-')[-1])
    assert 1 <= step < 12
    assert 'policy/model/wte' in variables(os.path.join(disk, 'run', 'policy'))
    enlarge()
    status, output, errors = launch(*common, f'--save_dir={disk}')
    assert (status, errors) == (0, '') and f'resuming after step {step}\n' in output
    assert launch(*common, f'--save_dir={tmp_path}')[0] == 0
    assert_same_run(str(tmp_path / 'run'), os.path.join(disk, 'run'), ['policy'], ['ppo'])
