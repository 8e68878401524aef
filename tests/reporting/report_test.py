"""The report: learning curves, charts, and the page in a browser."""

import os
import re
import shutil

import numpy as np
import pytest
from launching import launch
from resumed_runs import event_files

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language.encodings import Encoding, byte_symbols
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.method.sample_rows import sample_rows, token_texts
from lm_human_preferences.reporting.charts import Line, labelled, line_chart, number, ticks
from lm_human_preferences.reporting.event_files import read_curves
from lm_human_preferences.reporting.run_data import find_runs, group_by_seed
from lm_human_preferences.runs.samples import read_samples
from lm_human_preferences.runs.summaries import SummaryWriter


def write_events(folder, values, tag='score', first_step=0):
    """Write one event file with a scalar for each (step, value)."""
    writer = SummaryWriter(str(folder), first_step)
    for step, value in values:
        writer.write({tag: value}, step)
    writer.close()


def test_a_resumed_run_has_one_curve(tmp_path):
    for first_step, points in ((0, [(0, 1.0), (10, 2.0), (20, 3.0), (30, 4.0)]), (15, [(20, 5.0)])):
        write_events(tmp_path, points, first_step=first_step)
    curve = read_curves(str(tmp_path))['score']
    assert curve.steps.tolist() == [0, 10, 20] and curve.values.tolist() == [1.0, 2.0, 5.0]
    write_events(tmp_path, [(5, 0.0)], tag='another', first_step=0)
    assert list(read_curves(str(tmp_path))) == ['another']
    assert read_curves(str(tmp_path / 'nowhere')) == {}


def test_of_several_event_files_without_session_logs_the_later_counts(tmp_path):
    """As another program leaves them that was stopped and resumed, and was stopped again."""
    for name, points in (('1', [(0, 1.0), (10, 2.0), (20, 3.0), (30, 4.0)]), ('2', [(20, 5.0)])):
        with tf.io.TFRecordWriter(str(tmp_path / f'events.out.tfevents.100{name}.host')) as file:
            for step, value in points:
                summary = tf.Summary(value=[tf.Summary.Value(tag='score', simple_value=value)])
                file.write(tf.Event(step=step, summary=summary).SerializeToString())
    curve = read_curves(str(tmp_path))['score']
    assert curve.steps.tolist() == [0, 10, 20] and curve.values.tolist() == [1.0, 2.0, 5.0]


def test_half_an_event_at_the_end_is_left_out(tmp_path):
    write_events(tmp_path, [(0, 1.0), (10, 2.0)])
    (name,) = event_files(str(tmp_path))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-5])
    assert read_curves(str(tmp_path))['score'].values.tolist() == [1.0]


def test_texts_and_histograms_are_summaries(tmp_path):
    writer = SummaryWriter(str(tmp_path))
    writer.write_texts('samples', ['a ▸ b', 'c'], 3)
    writer.write_histogram('scores', np.array([0.0, 1.0, 1.0, np.nan]), 3)
    writer.write_histogram('scores', np.array([np.nan]), 4)
    writer.close()
    (name,) = event_files(str(tmp_path))
    values = [v for event in tf.train.summary_iterator(str(tmp_path / name)) for v in event.summary.value]
    assert [value.tag for value in values] == ['samples', 'scores']
    assert values[0].metadata.plugin_data.plugin_name == 'text'
    assert [text.decode() for text in values[0].tensor.string_val] == ['a ▸ b', 'c']
    assert (values[1].histo.num, values[1].histo.sum, values[1].histo.max) == (3, 2, 1)
    assert sum(values[1].histo.bucket) == 3
    assert read_curves(str(tmp_path)) == {}


def test_a_run_keeps_texts_and_score_histograms(tiny_run):
    folder = os.path.join(tiny_run.folder, 'tb', 'ppo')
    (name,) = event_files(folder)
    tags = [v.tag for event in tf.train.summary_iterator(os.path.join(folder, name)) for v in event.summary.value]
    assert tags.count('objective/scores') == 3  # at each of the three steps that are logged
    assert tags.count('samples') == 2  # at the first and the last


def test_samples_before_and_after(tiny_run):
    rows = read_samples(os.path.join(tiny_run.folder, 'samples.jsonl'))
    before, after = ([row for row in rows if row['policy'] == policy] for policy in ('initial', 'fine-tuned'))
    assert [row['query'] for row in before] == [row['query'] for row in after] and len(before) == 16
    np.testing.assert_allclose([row['logprobs'] for row in before], [row['ref_logprobs'] for row in before], atol=1e-3)
    assert np.abs(np.subtract(after[0]['logprobs'], after[0]['ref_logprobs'])).max() > 0.01
    assert all(len(row['tokens']) == row['scored'] == 3 for row in rows)


def test_tokens_that_spell_one_character_together():
    symbols = [byte_symbols()[byte] for byte in range(256)]
    encoding = Encoding('own', {symbol: token for token, symbol in enumerate(symbols)}, [])
    tokens = encoding.encode('aé€.')
    assert token_texts(encoding, tokens) == ['a', '', 'é', '', '', '€', '.']
    assert token_texts(encoding, tokens[:2]) == ['a', '']
    rollout = dict(
        queries=np.array([[97]]),
        responses=np.array([tokens]),
        truncated=np.array([tokens[:1] + [encoding.padding_token] * (len(tokens) - 1)]),
        scores=np.array([0.123456]),
        logprobs=np.zeros((1, len(tokens))),
        ref_logprobs=np.ones((1, len(tokens))),
    )
    (row,) = sample_rows('initial', rollout, encoding)
    assert (row['query'], row['score'], row['scored']) == ('a', 0.1235, 1)


def test_ticks_are_round_and_inside():
    assert ticks(0, 1, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.07, 0.31, 4) == [0.0, 0.1, 0.2, 0.3]
    assert ticks(3, 2003, 4) == [500, 1000, 1500, 2000]
    assert [number(v) for v in (0, 0.25, -3, 1500, 2e6, 1e-5)] == ['0', '0.25', '−3', '1.5k', '2M', '1e−5']


def test_ticks_of_a_tiny_range_are_inside_and_told_apart():
    assert labelled(ticks(1.053e-12, 1.171e-12, 4)) == [(1.1e-12, '1.1e−12'), (1.15e-12, '1.15e−12')]
    for low, high in (
        (1.053e-12, 1.171e-12),
        (1e-300, 3e-300),
        (100000.1, 100000.4),
        (1e6, 1e6 + 20),
        (0.9991, 0.9994),
    ):
        found = labelled(ticks(low, high, 4))
        assert len({label for _, label in found}) == len(found) >= 2
        assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick, _ in found)


def test_a_line_is_where_its_numbers_are():
    svg = line_chart('x', [Line(2, np.array([0.0, 10.0]), np.array([1.0, 2.0]))])
    (path,) = re.findall(r'class="line c2" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', svg)
    x0, y0, x1, y1 = map(float, path)
    assert (x0, x1) == (40, 332) and y0 > y1  # the larger value is higher up
    band = line_chart('x', [Line(0, *np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0], [2.0, 3.0]]))])
    assert 'class="band c0"' in band
    assert line_chart('x', [Line(0, np.array([]), np.array([]))]) == ''
    with_gap = line_chart('x', [Line(0, np.arange(3.0), np.array([1.0, np.nan, 2.0]))])
    assert 'nan' not in with_gap and with_gap.count('class="line') == 1


def test_a_long_noisy_line_is_averaged_and_short():
    noise = np.random.RandomState(0).randn(5000)
    svg = line_chart('x', [Line(0, np.arange(5000.0), noise)])
    assert svg.count('class="line faint') == 1 and len(svg) < 12000


@pytest.fixture(scope='module')
def runs(tiny_run, tmp_path_factory):
    """Two runs that differ only in the seed, and one with another learning rate; their curves are shifted copies."""
    folder = tmp_path_factory.mktemp('several')
    for name, seed, lr in (('a-1', 1, '0.01'), ('a-2', 2, '0.01'), ('b', 1, '0.02')):
        shutil.copytree(tiny_run.folder, str(folder / name))
        path = folder / name / 'train_policy_hparams.json'
        text = re.sub(r'"seed": \d+', f'"seed": {seed}', path.read_text())
        path.write_text(re.sub(r'("ppo": \{[^}]*"lr": )[\d.]+', rf'\g<1>{lr}', text))
        shutil.rmtree(str(folder / name / 'tb' / 'ppo'))
        write_events(folder / name / 'tb' / 'ppo', [(0, seed), (5, seed + 2.0)], 'objective/score')
    return folder


def test_seeds_are_one_line_with_a_band(runs):
    groups = group_by_seed(find_runs([str(runs / name) for name in ('a-1', 'a-2', 'b')]))
    assert [(group.name, len(group.runs)) for group in groups] == [('a (2 seeds)', 2), ('b', 1)]
    (line,) = groups[0].line('ppo', 'objective/score')
    assert line.y.tolist() == [1.5, 3.5] and line.low.tolist() == [1, 3] and line.high.tolist() == [2, 4]
    (line,) = groups[1].line('ppo', 'objective/score')
    assert line.y.tolist() == [1, 3] and line.low is None
    assert groups[1].line('ppo', 'no/such/tag') == []
    assert [run.name for run in find_runs([str(runs)])] == ['a-1', 'a-2', 'b']  # the folder of a sweep


def test_a_run_ends_with_its_report(tiny_run):
    with open(os.path.join(tiny_run.folder, 'report.html'), encoding='utf-8') as f:
        page = f.read()
    for text in (
        'Score of the reward model',
        'Agreement with people',
        'Samples',
        'ppo.cliprange_value',
        '<h1>tiny</h1>',
    ):
        assert text in page
    assert '<script' not in page and 'http' not in re.sub(r'xmlns="[^"]*"', '', page)


def test_a_report_that_cannot_be_written_does_not_fail_the_run(tiny_run, tmp_path, capsys):
    from lm_human_preferences.launcher import command_line

    command_line._write_report(str(tmp_path))
    assert 'the run is complete, but there is no report of it' in capsys.readouterr().err


def test_distinct_queries_and_samples_are_counted(tiny_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(tiny_run.folder, str(run))
    main(['evaluate', str(run), '--labels', tiny_run.labels, '--num_queries=40', '--policies', str(run), 'initial'])
    main(['report', str(run), f'--out={tmp_path / "page.html"}'])
    page = (tmp_path / 'page.html').read_text(encoding='utf-8')
    assert re.search(r'Policies on 40 held-out queries \((all|\d\d) distinct\), sampled with', page)
    assert re.search(r'<th scope="row">distinct samples</th><td>\d+ of 256</td>', page)


def test_texts_are_escaped(tiny_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(tiny_run.folder, str(run))
    for name in ('samples.jsonl', 'evaluation_samples.jsonl'):
        if (run / name).exists():
            (run / name).write_text((run / name).read_text().replace('"tokens": ["', '"tokens": ["<script>&'))
    main(['report', str(run), f'--out={tmp_path / "page.html"}'])
    page = (tmp_path / 'page.html').read_text(encoding='utf-8')
    assert '&lt;script&gt;&amp;' in page and '<script' not in page


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'runs is not set: give RUN'),
        (['/nowhere'], '/nowhere: no run there'),
        (['RUN', '--out=/dev/null/x.html'], '/dev/null: '),
        (['RUN', '--out=/dev'], '/dev: Is a directory'),
    ],
)
def test_bad_input_is_one_line(tiny_run, arguments, message):
    status, out, errors = launch('report', *(tiny_run.folder if word == 'RUN' else word for word in arguments))
    assert (status, out) == (2, '') and message in errors and errors.count('\n') == 1, errors


def test_a_folder_with_a_comma_and_a_page_in_a_new_folder(tiny_run, tmp_path, capsys):
    runs = [str(tmp_path / name) for name in ('a,b', 'c')]
    for run in runs:
        shutil.copytree(tiny_run.folder, run)
    main(['report', *runs, f'--out={tmp_path}/new/page.html'])
    assert 'a,b (2 seeds)' in (tmp_path / 'new' / 'page.html').read_text(encoding='utf-8')
    main(['report', runs[0]])
    assert capsys.readouterr().out.endswith(f'{runs[0]}/report.html\n')


@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_in_a_browser(runs, tmp_path, chromium, width):
    path = tmp_path / 'page.html'
    folders = [str(runs / name) for name in ('a-1', 'a-2', 'b')]
    main(['report', *folders, f'--out={path}'])
    backgrounds = []
    for scheme in ('light', 'dark'):
        page = chromium.new_page(viewport=dict(width=width, height=800), color_scheme=scheme)
        requests, faults = [], []
        page.on('request', lambda request, requests=requests: requests.append(request.url))
        page.on('console', lambda message, faults=faults: faults.append(message.text))
        page.goto(f'file://{path}')
        assert requests == [f'file://{path}'] and faults == []
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        assert page.locator('.legend li').all_inner_texts() == ['a (2 seeds)', 'b']
        assert page.locator('path.band').first.is_visible()
        assert page.locator('text=Hyperparameters that differ').is_visible()
        texts = page.locator('.side-by-side').first.locator('.who b').all_inner_texts()
        assert texts[0] == 'initial' and len(texts) == 2
        boxes = [box.bounding_box() for box in page.locator('.side-by-side').first.locator('> div').element_handles()]
        assert (boxes[0]['y'] == boxes[1]['y']) == (width > 1000)  # side by side, or below each other on a phone
        backgrounds.append(page.evaluate('getComputedStyle(document.body).backgroundColor'))
        page.close()
    assert backgrounds[0] != backgrounds[1]
