"""statistics.jsonl: a run that is killed and resumed has each step on one line."""

import json
import os
import signal
import subprocess
import sys

import pytest
from repository import ROOT

from lm_human_preferences.reporting.event_files import read_curves
from lm_human_preferences.runs.statistics import StatisticsFile, StatisticsReader, last_statistics
from lm_human_preferences.runs.summaries import SummaryWriter

WRITE_AND_DIE = """
import os, signal, sys
from lm_human_preferences.runs.statistics import StatisticsFile
file = StatisticsFile(sys.argv[1], int(sys.argv[2]))
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    file.write({'score': 10.0 * int(sys.argv[2]) + step, 'loss': 0.1}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def lines(folder):
    return [json.loads(line) for line in (folder / 'statistics.jsonl').read_text().splitlines()]


def scores(folder):
    found = lines(folder)
    assert [line['step'] for line in found] == list(range(len(found)))
    return [line['score'] for line in found]


def test_a_killed_process_loses_nothing_and_the_next_one_repeats_nothing(tmp_path):
    values = []
    for first_step, end in ((0, 7), (4, 9), (4, 5), (5, 12)):
        command = [sys.executable, '-c', WRITE_AND_DIE, str(tmp_path), str(first_step), str(end)]
        assert subprocess.call(command, env=dict(os.environ, PYTHONPATH=ROOT)) == -signal.SIGKILL
        values[first_step:] = [10.0 * first_step + step for step in range(first_step, end)]
        assert scores(tmp_path) == values
    assert last_statistics(str(tmp_path)) == {'score': values[-1], 'loss': 0.1}


@pytest.mark.parametrize('kept', range(1, 30))
def test_half_a_line_at_a_kill_is_removed(tmp_path, kept):
    file = StatisticsFile(str(tmp_path))
    for step in range(3):
        file.write({'score': float(step)}, step)
    file.close()
    path = tmp_path / 'statistics.jsonl'
    whole = path.read_bytes()
    length = len(whole) // 3
    path.write_bytes(whole[: 2 * length + kept % length])
    assert last_statistics(str(tmp_path)) == {'score': 1.0}
    file = StatisticsFile(str(tmp_path), 2)
    file.write({'score': 12.0}, 2)
    file.close()
    assert scores(tmp_path) == [0.0, 1.0, 12.0]


def test_a_damaged_line_and_a_line_of_others_stay(tmp_path):
    path = tmp_path / 'statistics.jsonl'
    damaged = '{"step": 0, "score": 0.0}\n{"step": 1, "sc\n[]\n\n{"step": 2, "score": 2.0}\n'
    path.write_text(damaged + '{"step": 3, "score": 3.0}\n{"step": 4, "score"')
    file = StatisticsFile(str(tmp_path), 3)
    file.write({'score': 13.0}, 3)
    file.close()
    assert path.read_text() == damaged + '{"score": 13.0, "step": 3}\n'


def test_statistics_of_one_step_are_one_line(tmp_path):
    writer = SummaryWriter(str(tmp_path))
    writer.write({'loss': 1.0}, 0)
    writer.write({'held_out_loss': 2.0}, 0)
    writer.write({'loss': 0.5}, 1)
    assert writer.last == {'loss': 0.5}
    writer.close()
    assert lines(tmp_path) == [{'step': 0, 'loss': 1.0, 'held_out_loss': 2.0}, {'step': 1, 'loss': 0.5}]


def test_a_run_has_in_lines_what_its_event_files_have(tiny_run):
    for events in ('reward_model', 'ppo'):
        folder = os.path.join(tiny_run.folder, 'tb', events)
        curves = read_curves(folder)
        with open(os.path.join(folder, 'statistics.jsonl')) as file:
            found = [json.loads(line) for line in file]
        assert [line['step'] for line in found] == list(range(len(found))) and len(found) > 2
        assert set(found[0]) == {'step', *curves}
        for tag, curve in curves.items():
            assert curve.values.tolist() == pytest.approx([line[tag] for line in found], rel=1e-5), tag


@pytest.mark.parametrize('more', [{'held_out_loss': 7.0}, {'a' * 9000: 7.0}])
@pytest.mark.parametrize('read_before', range(5))
def test_a_line_that_grows_while_it_is_read_is_read_whole_later(tmp_path, more, read_before):
    file = StatisticsFile(str(tmp_path))
    for step in range(6):
        file.write({'loss': float(step)}, step)
    reader = StatisticsReader(str(tmp_path))
    looking = reader.new()
    seen = [next(looking) for _ in range(read_before)]
    file.write(more, 5)
    seen += looking
    assert seen == [({'loss': float(step)}, step) for step in range(5)]
    file.write({'loss': 6.0}, 6)
    assert list(reader.new()) == [({'loss': 5.0, **more}, 5)]
    assert list(reader.new(with_last=True)) == [({'loss': 6.0}, 6)]
    file.close()
