"""The bar of a whole run: what it says is left, on terminals of any width and without one."""

import os
import re
import subprocess
import sys

import pytest
from repository import ROOT
from terminals import on_a_terminal

from lm_human_preferences.utils import progress
from lm_human_preferences.utils.progress import duration, part_of_run, whole_run


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, 'time', clock)
    return clock


def loop(clock, description, steps, seconds, done=0):
    """Do the steps from `done` on, of `seconds` each; return what is left before each of them, and at the end."""
    left = []
    for _ in progress.progress(range(done, steps), description, True, steps, done):
        left.append(progress._run.left(clock.now))
        clock.now += seconds
    return [*left, progress._run.left(clock.now)]


def test_the_time_left_corrects_itself(clock, capsys):
    with whole_run({'a': 100.0, 'b': 300.0, 'c': 100.0}):
        clock.now += 10  # until the first part begins
        left = loop(clock, 'a', 10, 20.0)
        assert left[1] == pytest.approx(180 + 600 + 200 + 20)  # one pace for all, and 10 s before each part
        assert left[-1] == pytest.approx(600 + 200 + 20)
        # The second part is three times as fast as the first promised. Its own pace is what counts for it.
        left = loop(clock, 'b', 10, 20.0)
        assert left[4] == pytest.approx(6 * 20 + 100 * (280 / 220))
        assert left[-1] == pytest.approx(100 * (400 / 400))
        loop(clock, 'c', 2, 1.0)
    lines = capsys.readouterr().out.splitlines()
    shares = [
        int(re.fullmatch(r'(\d+)% of the run is done, about \d+ (?:s|min) left', line).group(1)) for line in lines
    ]
    assert 3 <= len(lines) <= 10 and shares == sorted(set(shares))


def test_what_an_earlier_process_did_takes_no_time(clock):
    with whole_run({'a': 100.0, 'b': 100.0}):
        left = loop(clock, 'b', 10, 30.0, done=5)
    assert left[0] is None and left[1:] == pytest.approx([120, 90, 60, 30, 0])


def test_nothing_is_promised_before_anything_is_known(clock, capsys):
    with whole_run({'a': 1000.0}):
        left = loop(clock, 'a', 1000, 0.1)
    assert left[5] is None and left[100] == pytest.approx(90)


def test_loops_of_a_part_and_loops_that_belong_to_none(clock, capsys):
    with whole_run({'a': 10.0, 'measure': 10.0}):
        loop(clock, 'before', 3, 100.0)
        loop(clock, 'a', 2, 20.0)
        with part_of_run('measure', num_loops=4):
            loop(clock, 'first', 5, 2.0)
            assert progress._run.left(clock.now) == pytest.approx(3 * 10)
            loop(clock, 'second', 1, 10.0)
            loop(clock, 'a', 1, 0.0)  # a name of an earlier part
            assert progress._run.left(clock.now) == pytest.approx(20 / 3)
    assert progress._run is None
    with part_of_run('measure'):
        assert list(progress.progress([1, 2], 'alone')) == [1, 2]


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 99, 100, 5000, 12000)] == [
        '0 s',
        '99 s',
        '2 min',
        '83 min',
        '3 h 20 min',
    ]


SCRIPT = """
import time
from lm_human_preferences.utils import progress
progress.FIRST_SHARE = 0.3
with progress.whole_run({'reward model': 1, 'ppo': 1}):
    for description in ('reward model', 'ppo'):
        bar = progress.progress(range(3), description)
        for step in bar:
            time.sleep(progress.REFRESH_SECONDS)
            bar.set_postfix_str('score 0.123 kl 4.567 entropy 89.01')
            progress.say(f'{description} line {step}')
"""


@pytest.mark.parametrize('columns', [20, 45, 100])
def test_the_bar_fits_a_terminal_of_any_width(columns):
    status, output, shown = on_a_terminal(columns, [sys.executable, '-c', SCRIPT], NO_COLOR='1')
    assert status == 0 and output.count(' line ') == 6
    pictures = [picture for picture in re.split('[\r\n]', shown) if '%|' in picture]
    assert len(pictures) >= 4 and max(map(len, pictures)) <= columns
    assert '\x1b' not in shown  # one line, without colours
    assert any(re.search(r'\| \d s left', picture) for picture in pictures)
    assert any('ppo 2/3' in picture for picture in pictures) == (columns > 20)
    assert any('score 0.123' in picture for picture in pictures) == (columns == 100)
    shares = [int(picture.strip().split('%')[0]) for picture in pictures]
    assert shares == sorted(shares) and shares[-1] > 40


def test_without_a_terminal_a_short_run_shows_no_line():
    done = subprocess.run([sys.executable, '-c', SCRIPT], env=dict(os.environ, PYTHONPATH=ROOT), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b'') and done.stdout.count(b'\n') == 6
