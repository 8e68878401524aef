"""Trackers get every step of a run, once; their failures change nothing. The real packages run, offline."""

import glob
import importlib.util
import json
import os
import sqlite3
import sys

import pytest
from launching import launch
from resumed_runs import variables
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences.hyperparameters import TrainLmHParams
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.mpi.ranks import THREADS_VARIABLE
from lm_human_preferences.runs import trackers
from lm_human_preferences.runs.summaries import SummaryWriter

NEEDS_WANDB, NEEDS_TRACKIO = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f'{name} is not installed')
    for name in ('wandb', 'trackio')
]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The environment of a machine without network, whose trackers write below tmp_path."""
    values = {
        'WANDB_MODE': 'offline',
        'WANDB_DIR': str(tmp_path),
        'WANDB_CACHE_DIR': str(tmp_path / 'cache'),
        'WANDB_CONFIG_DIR': str(tmp_path / 'config'),
        'WANDB_DATA_DIR': str(tmp_path / 'data'),
        'WANDB_SILENT': 'true',
        'TRACKIO_DIR': str(tmp_path / 'trackio'),
        trackers.TRACK_VARIABLE: '',
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def command(folder, *flags):
    definition = folder / 'tiny.yaml'
    definition.write_text(TINY_EXPERIMENT)
    return ['train_policy', definition, 'run', f'--save_dir={folder}', '--mpi=1', *flags]


def lines(folder, events):
    with open(str(folder / 'run' / 'tb' / events / 'statistics.jsonl')) as file:
        return [json.loads(line) for line in file]


def wandb_rows(folder):
    """Return {name of a wandb run: [(step, statistics)]} from the files of the offline runs below a folder."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal import datastore

    found = {}
    for path in sorted(glob.glob(str(folder / 'wandb' / 'offline-run-*' / '*.wandb'))):
        store, name, rows = datastore.DataStore(), None, []
        store.open_for_scan(path)
        for data in iter(store.scan_data, None):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField('run'):
                name = record.run.display_name
            if record.HasField('history'):
                items = {
                    item.key or '/'.join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                rows.append({key: value for key, value in items.items() if key not in ('_runtime', '_timestamp')})
        found.setdefault(name, []).extend(rows)
    return found


@NEEDS_WANDB
def test_wandb_gets_every_step(offline):
    status, printed, errors = launch(*command(offline, '--track=wandb'))
    assert status == 0 and 'note:' not in errors, errors
    found = wandb_rows(offline)
    assert set(found) == {'run/reward_model', 'run/ppo'}
    for events in ('reward_model', 'ppo'):
        rows = [dict(row, step=row.pop('_step')) for row in found[f'run/{events}']]
        assert rows == lines(offline, events) and len(rows) == 2
    assert 'objective/kl' in rows[0]


def trackio_rows(folder):
    """Return {name of a trackio run: [statistics with step]} from trackio's own database."""
    found = {}
    for path in glob.glob(str(folder / 'trackio' / '*.db')):
        with sqlite3.connect(path) as database:
            for name, step, metrics in database.execute('SELECT run_name, step, metrics FROM metrics ORDER BY id'):
                found.setdefault(name, []).append(dict(json.loads(metrics), step=step))
    return found


@NEEDS_TRACKIO
def test_trackio_gets_every_step_once_also_where_a_run_is_resumed(offline):
    # The second start repeats the steps after the last checkpoint, as after a kill.
    flags = ['--track=trackio', '--run.save_interval=1', '--threads=1', '--ppo.total_episodes=96']
    flags += ['--rewards.train_new_model=off', '--rewards.trained_model=test']
    for _ in range(2):
        status, _, errors = launch(*command(offline, *flags))
        assert status == 0 and 'note:' not in errors, errors
        for step in (5, 6):
            for path in glob.glob(str(offline / 'run' / 'policy' / 'checkpoints' / f'*-{step}[._]*')):
                os.remove(path)
    ((name, rows),) = trackio_rows(offline).items()
    assert name.startswith('run/ppo-')
    own = lines(offline, 'ppo')
    assert [row['step'] for row in rows] == [line['step'] for line in own] == list(range(6))
    for row, line in zip(rows, own):
        timed = ('elapsed/time', 'elapsed/fps')
        assert {tag: value for tag, value in row.items() if tag not in timed} == {
            tag: value for tag, value in line.items() if tag not in timed
        }


FAKE = """
import json, os, time

class Run:
    step = NEXT_STEP
    def log(self, stats, step):
        if 'BREAKS':
            raise ConnectionError('no network to https://user:secret@host/x')
        self.say([step, stats])
    def finish(self, exit_code):
        self.say(exit_code)
    def say(self, entry):
        with open(os.environ['KEPT'], 'a') as file:
            file.write(json.dumps(entry) + '\\n')

def init(**settings):
    START
    return Run()
"""
WITHOUT = 'note: wandb failed, and the run goes on without it:'


@pytest.fixture
def fake_wandb(offline, monkeypatch):
    """Return a function that installs a package wandb of our own, and returns the file in which that keeps all."""

    def install(next_step=0, start='', breaks=''):
        code = FAKE.replace('NEXT_STEP', str(next_step)).replace('START', start or 'pass').replace('BREAKS', breaks)
        (offline / 'packages').mkdir()
        (offline / 'packages' / 'wandb.py').write_text(code)
        monkeypatch.setenv('PYTHONPATH', str(offline / 'packages'))
        monkeypatch.setenv('KEPT', str(offline / 'kept'))
        monkeypatch.setenv(trackers.TRACK_VARIABLE, 'wandb')
        monkeypatch.syspath_prepend(str(offline / 'packages'))
        return offline / 'kept'

    return install


@pytest.mark.parametrize(
    'fault, note',
    [
        (dict(start="raise TimeoutError('no answer\\nfor 30 s')"), f'{WITHOUT} no answer for 30 s'),
        (dict(start='os._exit(5)'), 'note: wandb ended with status 5, and the run went on without it'),
        (dict(breaks='x'), f'{WITHOUT} no network to https://host/x'),
        (dict(start='time.sleep(1e6)'), 'note: wandb took more than 3 s to send the rest: the run ends without it'),
        # Its own clock may end it a moment before the run stops waiting.
        (dict(start='os._exit(75)'), 'note: wandb took more than 60 s to send the rest: the run ends without it'),
    ],
)
def test_a_failing_tracker_changes_nothing(fault, note, offline, fake_wandb, monkeypatch, capfd):
    monkeypatch.setenv(THREADS_VARIABLE, '1')
    flags = ['--threads=1', '--rewards.train_new_model=off', '--rewards.trained_model=test']
    main(list(map(str, command(offline, *flags))))
    plain = variables(str(offline / 'run' / 'policy'))
    fake_wandb(**fault)
    if 'sleep' in fault.get('start', ''):
        monkeypatch.setattr(trackers, 'PATIENCE_SECONDS', 3.0)
    capfd.readouterr()
    main([*map(str, command(offline, *flags)), '--resume=overwrite'])
    assert capfd.readouterr().err == f'{note}\n'
    after = variables(str(offline / 'run' / 'policy'))
    assert set(after) == set(plain) and all((after[name] == plain[name]).all() for name in plain)


@pytest.mark.parametrize('next_step, steps', [(0, [0, 1, 2, 3, 4, 5]), (2, [2, 3, 4, 5]), (5, [5])])
def test_a_tracker_gets_the_steps_that_it_lacks(next_step, steps, offline, fake_wandb):
    kept = fake_wandb(next_step=next_step)
    folder = str(offline / 'run' / 'tb' / 'lm')
    writer = SummaryWriter(folder)
    for step in range(5):  # two of them after the last checkpoint
        writer.write({'loss': -1.0 if step > 2 else float(step)}, step)
    writer.close()
    with trackers.tracked(folder, TrainLmHParams(), first_step=3) as on_step:
        writer = SummaryWriter(folder, 3, on_step)
        for step in (3, 4, 5):
            writer.write({'loss': float(step)}, step)
        writer.write({'held_out_loss': 7.0}, 5)
        writer.close()
    rows = [[step, {'loss': float(step)}] for step in steps[:-1]]
    sent = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sent == [*rows, [5, {'loss': 5.0, 'held_out_loss': 7.0}], 0]
    with pytest.raises(ZeroDivisionError), trackers.tracked(folder, TrainLmHParams(), first_step=6):
        raise ZeroDivisionError
    assert json.loads(kept.read_text().splitlines()[-1]) == 1  # it failed


def test_offline_a_resumed_run_goes_on_where_it_stopped(offline, fake_wandb):
    """wandb then does not know what it has: that process sent the earlier steps."""
    kept = fake_wandb()
    folder = str(offline / 'run' / 'tb' / 'lm')
    for first_step in (0, 3):
        with trackers.tracked(folder, TrainLmHParams(), first_step) as on_step:
            writer = SummaryWriter(folder, first_step, on_step)
            for step in range(first_step, 4):
                writer.write({'loss': 1.0}, step)
            writer.close()
    sent = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [entry[0] for entry in sent if isinstance(entry, list)] == [0, 1, 2, 3, 3]


def test_bad_input_is_one_line(offline, monkeypatch, capsys):
    def refusal(*flags):
        with pytest.raises(SystemExit) as exit:
            main(list(map(str, command(offline, *flags))))
        printed = capsys.readouterr().err
        assert exit.value.code == 2 and printed.count('\n') == 1
        return printed

    assert refusal('--track=tensorboard') == "error: --track must be wandb or trackio, not 'tensorboard'\n"
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert refusal('--track=wandb') == (
        'error: --track wandb needs the Python package wandb: install it: pip install wandb\n'
    )
    python = '' if sys.version_info >= (3, 10) else ' with Python 3.10 or newer'
    assert refusal('--track=trackio') == (
        f'error: --track trackio needs the Python package trackio: install it{python}: pip install trackio\n'
    )
    assert not (offline / 'run').exists()
    monkeypatch.setenv(trackers.TRACK_VARIABLE, 'nothing')
    assert refusal() == f"error: {trackers.TRACK_VARIABLE} must be wandb or trackio, not 'nothing'\n"
    assert not (offline / 'run').exists()
