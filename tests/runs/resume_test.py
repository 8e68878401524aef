"""Runs go on exactly where they were: killed at random moments they end as if nothing had happened.

RESUME_KILLS sets how often the run of both steps is killed.
"""

import glob
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from refusals import refusal
from repository import TESTS
from runs_test import launch

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.reporting.event_files import read_curves
from lm_human_preferences.runs.checkpoints import latest_checkpoint

KILLS = int(os.environ.get('RESUME_KILLS', 5))

DEFINITION = """
description: tiny runs on the built-in names
run: {seed: 1, log_interval: 1, save_interval: 2}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels: {type: best_of_4, source: LABELS, num_train: 800}
  batch_size: 8
  lr: 1e-2
  normalize_samples: 64
  normalize_before: true
  normalize_after: true
train_policy:
  rewards: {adaptive_kl: {target: 1.0, horizon: 1000}}
  ppo: {batch_size: 16, nminibatches: 2, noptepochs: 2, total_episodes: EPISODES, lr: 1e-3}
train_lm:
  dataset: text:TEXT
  model: {n_vocab: 262, n_ctx: 12, n_embd: 8, n_head: 2, n_layer: 1}
  sequence_length: 10
  batch_size: 8
  epochs: 3
  dropout: 0.1
  lr: 1e-2
"""


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp('experiment'))


def write_experiment(folder):
    """An experiment of tiny steps, and the files it needs; its path."""
    random = np.random.RandomState(0)
    labels = []
    for _ in range(800):
        label = {f'sample{i}': random.randint(0, 27, 3).tolist() for i in range(4)}
        labels.append(dict(label, query=random.randint(0, 27, 2).tolist(), best=int(random.randint(4))))
    (folder / 'labels.json').write_text(json.dumps(labels))
    (folder / 'lines.txt').write_text('we saw a cat.\na cat saw us.\nwe are here.\n' * 200)
    text = DEFINITION.replace('LABELS', str(folder / 'labels.json')).replace('TEXT', str(folder / 'lines.txt'))
    path = folder / 'tiny.yaml'
    path.write_text(text.replace('EPISODES', str(16 * (20 + 16 * KILLS))))
    return path


def run_with_kills(kills, tmp_path, name, *arguments):
    """Do a run that is killed so often; what its processes printed."""
    output = str(tmp_path / f'{name}.txt')
    script = os.path.join(TESTS, 'support', 'killed_run.py')
    command = [sys.executable, script, str(kills), output, *map(str, arguments)]
    done = subprocess.run([*command, f'--save_dir={tmp_path / name}', '--threads=1', '--mpi=1'], stderr=subprocess.PIPE)
    with open(output) as file:
        printed = file.read()
    assert done.returncode == 0, done.stderr.decode() + printed[-2000:]
    return printed


def variables(folder):
    """All of the last checkpoint in a model folder: parameters and the optimizer's."""
    reader = tf.train.load_checkpoint(latest_checkpoint(folder))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def state(folder):
    """What is beside the last checkpoint, but for what time and place of the run say."""
    with open(os.path.join(folder, 'checkpoints', f'state-{latest_checkpoint(folder).split("-")[-1]}.json')) as file:
        content = json.load(file)
    assert content.pop('seconds', 1) > 0
    hparams = content.get('hparams', {})
    for group in (hparams, (hparams.get('rewards') or {}).get('train_new_model')):
        if group:
            group['run'].pop('save_dir')
    return content


def curve(folder):
    """[(tag, step, what is recorded)] in the event files of a folder, without the time and what a restart discards."""
    found = []
    for name in sorted(os.listdir(folder)):
        try:
            for event in tf.train.summary_iterator(os.path.join(folder, name)):
                if event.session_log.status == tf.SessionLog.START:
                    found = [entry for entry in found if entry[1] < event.step]
                found += [(value.tag, event.step, value.SerializeToString()) for value in event.summary.value]
        except tf.errors.DataLossError:  # the process was killed while it wrote
            continue
    return [entry for entry in found if entry[0] not in ('elapsed/time', 'elapsed/fps')]


def sample_lines(run):
    with open(os.path.join(run, 'samples.jsonl')) as file:
        return file.readlines()


def samples(printed):
    """The blocks of samples that were printed: {title: texts}."""
    blocks = {}
    for title, block in re.findall(r'^(Samples (?:before|after) fine-tuning:)\n(.*?)\n\n', printed, re.DOTALL | re.M):
        blocks.setdefault(title, set()).add(block)
    return blocks


def assert_same_run(first, second, models, curves):
    """Two runs are the same to the last bit: variables, state, curves, samples."""
    if 'policy' in models:
        one, two = (sample_lines(run) for run in (first, second))
        assert one == two and len(one) > 0
    for model in models:
        one, two = (variables(os.path.join(run, model)) for run in (first, second))
        assert set(one) == set(two)
        assert any('Adam' in name for name in one) or model == 'model'
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], name)
        assert state(os.path.join(first, model)) == state(os.path.join(second, model))
    for name in curves:
        one, two = (curve(os.path.join(run, 'tb', name)) for run in (first, second))
        assert one == two
        assert len({entry[:2] for entry in one}) == len(one) > 0  # no step is there twice


def test_both_steps_killed_at_random_moments_end_as_if_undisturbed(experiment, tmp_path):
    whole = run_with_kills(0, tmp_path, 'whole', 'train_policy', experiment, 'run')
    killed = run_with_kills(KILLS, tmp_path, 'killed', 'train_policy', experiment, 'run')
    first, second = str(tmp_path / 'whole' / 'run'), str(tmp_path / 'killed' / 'run')
    assert_same_run(first, second, ['reward_model', 'policy'], ['reward_model', 'ppo'])
    assert samples(whole) == samples(killed) and len(samples(whole)) == 2
    assert killed.count('going on after step') >= KILLS // 3
    assert sorted(os.listdir(second)) == sorted(os.listdir(first))
    steps = [step for tag, step, _ in curve(os.path.join(second, 'tb', 'ppo')) if tag == 'objective/kl']
    assert steps == list(range(20 + 16 * KILLS))
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


def test_a_language_model_in_training_is_killed_too(experiment, tmp_path):
    run_with_kills(0, tmp_path, 'whole', 'train_lm', experiment, 'run')
    run_with_kills(2, tmp_path, 'killed', 'train_lm', experiment, 'run')
    first, second = str(tmp_path / 'whole' / 'run'), str(tmp_path / 'killed' / 'run')
    assert_same_run(first, second, ['training', 'model'], ['lm'])


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

    # Fewer episodes than it had: nothing is written but a report that is missing.
    os.unlink(os.path.join(run, 'report.html'))
    status, output, errors = launch(*common, '--ppo.total_episodes=16')
    assert (status, output, errors) == (0, f'{run}: this run is finished\nreport: {run}/report.html\n', '')
    assert {path: os.stat(path).st_mtime_ns for path in before} == before

    # More episodes: it goes on, also in the curve, and also if it was killed before it saved a step.
    with open(saved) as file:
        longer = json.load(file)
    longer['ppo']['total_episodes'] = 64
    with open(saved, 'w') as file:
        json.dump(longer, file)
    status, output, errors = launch(*common, '--ppo.total_episodes=64', '--run.save_interval=3')
    assert (status, errors) == (0, '')
    assert 'going on after step 2' in output and 'step 3/4' in output and 'step 2/' not in output
    steps = [step for tag, step, _ in curve(os.path.join(run, 'tb', 'ppo')) if tag == 'objective/kl']
    assert steps == [0, 1, 2, 3]

    # Anew, beside it or in its place.
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
def test_a_folder_is_of_one_run(tiny_run, capsys, resume):
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


def test_a_damaged_checkpoint_is_named(experiment, tmp_path, capsys):
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
    line = refusal(capsys, longer)
    assert line.startswith(f'{last}: damaged, or of another model: ') and 'Checksum does not match: ' in line
    assert f'without its files ({last}.*) the same command goes on from the checkpoint before it' in line
    for path in glob.glob(f'{last}.*'):
        os.unlink(path)
    main(longer)
    assert 'going on after step 1' in capsys.readouterr().out


@pytest.fixture
def long_run(experiment, tmp_path):
    """Starts a run that would last for hours, and waits for its first steps."""
    processes = []

    def start(*flags):
        command = [sys.executable, os.path.join(os.path.dirname(TESTS), 'launch.py'), 'train_policy', str(experiment)]
        command += ['long', f'--save_dir={tmp_path}', '--rewards.train_new_model=off', '--rewards.trained_model=test']
        command += ['--ppo.total_episodes=1600000', '--run.save_interval=1000000', *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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


def test_sigterm_saves_the_step_and_ends_with_a_status_of_its_own(long_run, tmp_path):
    process = long_run('--mpi=1')
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (75, b'')
    step = int(re.search(rb'saved after step (\d+) on being asked to end', output).group(1))
    assert step >= 1
    assert latest_checkpoint(str(tmp_path / 'long' / 'policy')).endswith(f'-{step}')
    again = long_run('--mpi=1')
    again.send_signal(signal.SIGTERM)
    again.communicate()
    steps = [at for tag, at, _ in curve(str(tmp_path / 'long' / 'tb' / 'ppo')) if tag == 'objective/kl']
    assert steps == list(range(len(steps))) and len(steps) > step


HEEDING = """
import time
from lm_human_preferences.runs import preemption
with preemption.heeded():
    print('working', flush=True)
    while not preemption.requested():
        time.sleep(0.01)
    print('saving', flush=True)
    time.sleep(600)
"""


def test_a_second_sigterm_ends_the_process_at_once():
    process = subprocess.Popen([sys.executable, '-c', HEEDING], stdout=subprocess.PIPE, cwd=os.path.dirname(TESTS))
    for doing in (b'working\n', b'saving\n'):
        assert process.stdout.readline() == doing
        process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    process.stdout.close()


def test_a_run_has_one_owner_whose_lock_ends_with_it(long_run, experiment, tmp_path):
    process = long_run('--mpi=1')
    flags = ['train_policy', experiment, 'long', f'--save_dir={tmp_path}', '--rewards.train_new_model=off']
    flags += ['--rewards.trained_model=test', '--ppo.total_episodes=1600000', '--mpi=1']
    for resume in ('on', 'overwrite'):
        status, output, errors = launch(*flags, f'--resume={resume}')
        assert (status, output) == (2, '')
        assert 'in progress in another process' in errors and len(errors.splitlines()) == 1
    assert process.poll() is None
    process.kill()
    process.wait()
    process = long_run('--mpi=1')
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert not os.path.exists(str(tmp_path / 'long' / '.run.lock'))


def test_a_full_disk_loses_neither_the_last_checkpoint_nor_the_run(experiment, small_disk, tmp_path):
    disk, enlarge = small_disk
    common = ['train_policy', experiment, 'run', '--mpi=1', '--threads=1', '--rewards.train_new_model=off']
    common += ['--rewards.trained_model=test', '--ppo.total_episodes=192', '--run.save_interval=1']
    for _ in range(2):  # it is as full the second time
        status, _, errors = launch(*common, f'--save_dir={disk}')
        assert status == 2 and len(errors.splitlines()) == 1, errors
        assert errors.startswith('error: ') and 'No space left on device' in errors
    last = latest_checkpoint(os.path.join(disk, 'run', 'policy'))
    step = int(last.split('-')[-1])
    assert 1 <= step < 12
    assert 'policy/model/wte' in variables(os.path.join(disk, 'run', 'policy'))
    enlarge()
    status, output, errors = launch(*common, f'--save_dir={disk}')
    assert (status, errors) == (0, '') and f'going on after step {step}\n' in output
    assert launch(*common, f'--save_dir={tmp_path}')[0] == 0
    assert_same_run(str(tmp_path / 'run'), os.path.join(disk, 'run'), ['policy'], ['ppo'])
