"""Event files: a run that is killed and resumed has each step once, in TensorBoard and in our report."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from repository import ROOT
from resumed_runs import event_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.reporting.event_files import read_curves
from lm_human_preferences.runs.summaries import SummaryWriter
from lm_human_preferences.utils.errors import UserError

WRITE_AND_DIE = """
import os, signal, sys
from lm_human_preferences.runs.summaries import SummaryWriter
writer = SummaryWriter(sys.argv[1], int(sys.argv[2]))
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    writer.write({'score': 10.0 * int(sys.argv[2]) + step}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def accumulator(folder):
    return EventAccumulator(str(folder), size_guidance={'scalars': 0}, purge_orphaned_data=True)


def write(folder, first_step, steps, value=0.0):
    writer = SummaryWriter(str(folder), first_step)
    for step in steps:
        writer.write({'score': value + step}, step)
    writer.close()


def assert_one_curve(folder, values, *accumulators):
    """Every reader finds these scores at steps 0, 1, …; so do `accumulators`, which were open before."""
    curve = read_curves(str(folder))['score']
    assert (curve.steps.tolist(), curve.values.tolist()) == (list(range(len(values))), values)
    multiplexer = EventMultiplexer(size_guidance={'scalars': 0}, purge_orphaned_data=True)
    multiplexer.AddRunsFromDirectory(str(folder.parent))
    multiplexer.Reload()
    found = [multiplexer.Scalars(folder.name, 'score')]
    for reader in (accumulator(folder), *accumulators):
        reader.Reload()
        found.append(reader.Scalars('score'))
    for events in found:
        assert [(event.step, event.value) for event in events] == list(enumerate(values))


def test_a_killed_process_loses_nothing_and_the_next_one_repeats_nothing(tmp_path):
    folder = tmp_path / 'ppo'
    folder.mkdir()
    open_before = accumulator(folder)
    values = []
    for first_step, end in ((0, 7), (4, 9), (4, 5), (5, 12)):
        command = [sys.executable, '-c', WRITE_AND_DIE, str(folder), str(first_step), str(end)]
        assert subprocess.call(command, env=dict(os.environ, PYTHONPATH=ROOT)) == -signal.SIGKILL
        values[first_step:] = [10.0 * first_step + step for step in range(first_step, end)]
        assert_one_curve(folder, values, open_before)
    assert len(os.listdir(str(folder))) == 4 + 1  # with statistics.jsonl


def test_half_a_record_at_the_end_of_an_older_file_hides_nothing(tmp_path):
    folder = tmp_path / 'ppo'
    write(folder, 0, range(5))
    (name,) = event_files(folder)
    with open(str(folder / name), 'r+b') as file:
        file.truncate(os.path.getsize(file.name) - 5)
    assert_one_curve(folder, [0, 1, 2, 3])
    write(folder, 4, range(4, 7), value=10)
    assert_one_curve(folder, [0, 1, 2, 3, 14, 15, 16])


def flip(path, place):
    with open(str(path), 'r+b') as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def test_a_flipped_bit_hides_one_step_or_the_rest_of_its_file_and_no_other_file(tmp_path):
    folder = tmp_path / 'ppo'
    write(folder, 0, range(5))
    (name,) = event_files(folder)
    starts = []  # of the records
    with open(str(folder / name), 'rb') as file:
        while True:
            starts.append(file.tell())
            length = int.from_bytes(file.read(8), 'little')
            if not length:
                break
            file.seek(length + 8, os.SEEK_CUR)
    third_score = starts[4]  # after the version and the session log
    flip(folder / name, third_score + 12 + 3)
    assert read_curves(str(folder))['score'].steps.tolist() == [0, 1, 3, 4]
    write(folder, 4, range(4, 7), value=10)
    curve = read_curves(str(folder))['score']
    assert curve.steps.tolist() == [0, 1, 3, 4, 5, 6] and curve.values.tolist() == [0, 1, 3, 14, 15, 16]
    name = sorted(event_files(folder))[0]
    flip(folder / name, third_score + 1)  # the length: nothing says where the next record begins
    assert read_curves(str(folder))['score'].steps.tolist() == [0, 1, 4, 5, 6]
    assert [event.step for event in scalars(folder)] == [0, 1, 4, 5, 6]  # TensorBoard's reader


def scalars(folder):
    reader = accumulator(folder)
    reader.Reload()
    return reader.Scalars('score')


def test_starts_within_one_second_have_files_of_their_own_in_order(tmp_path):
    folder = tmp_path / 'ppo'
    folder.mkdir()
    open_before = accumulator(folder)
    values = []
    for start in range(4):
        write(folder, start, range(start, start + 3), value=10 * start)
        values[start:] = [11 * start, 11 * start + 1, 11 * start + 2]
        open_before.Reload()
        assert [event.value for event in open_before.Scalars('score')] == values
    assert len(os.listdir(str(folder))) == 4 + 1  # with statistics.jsonl
    assert_one_curve(folder, values, open_before)


def test_files_named_by_a_clock_ahead_of_ours_come_before_a_new_one(tmp_path):
    folder = tmp_path / 'ppo'
    for start, host in ((0, 'b'), (2, 'a')):
        write(folder, start, range(start, start + 3), value=10 * start)
        newest = sorted(event_files(folder))[-1]
        name = f'events.out.tfevents.{int(time.time()) + 3600 + start}.{host}'
        os.rename(str(folder / newest), str(folder / name))
    write(folder, 3, range(3, 5), value=30)
    assert_one_curve(folder, [0, 1, 22, 33, 34])


def test_event_files_of_earlier_versions_are_read(tmp_path):
    """They hold all steps in one file, which begins with a session log of step 0."""
    folder = tmp_path / 'ppo'
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / 'events.out.tfevents.1700000000.host')) as file:
        file.write(tf.Event(file_version='brain.Event:2').SerializeToString())
        file.write(tf.Event(session_log=tf.SessionLog(status=tf.SessionLog.START)).SerializeToString())
        for step in range(6):
            summary = tf.Summary(value=[tf.Summary.Value(tag='score', simple_value=step)])
            file.write(tf.Event(step=step, summary=summary).SerializeToString())
    assert_one_curve(folder, [0, 1, 2, 3, 4, 5])
    write(folder, 4, range(4, 6), value=10)
    assert_one_curve(folder, [0, 1, 2, 3, 14, 15])


def test_a_full_disk_is_one_error_and_keeps_what_was_written(small_disk, capfd):
    disk, enlarge = small_disk
    folder = os.path.join(disk, 'ppo')
    writer = SummaryWriter(folder)
    steps = 0
    with pytest.raises(UserError, match=f'cannot write statistics to {folder}: No space left on device; free'):
        for step in range(100000):
            writer.write({f'tag {number}': 1.0 for number in range(100)}, step)
            steps += 1
    with pytest.raises(UserError, match='No space left on device'):
        SummaryWriter(folder, steps)
    assert capfd.readouterr() == ('', '')
    assert len(read_curves(folder)['tag 99'].steps) >= steps > 10
    enlarge()
    writer = SummaryWriter(folder, steps)
    writer.write({'tag 99': 2.0}, steps)
    writer.close()
    curve = read_curves(folder)['tag 99']
    assert curve.steps.tolist() == list(range(steps + 1)) and curve.values[-1] == 2
    with open(os.path.join(folder, 'statistics.jsonl')) as file:
        lines = [json.loads(line) for line in file]
    assert [line['step'] for line in lines] == list(range(steps + 1)) and lines[-1]['tag 99'] == 2
