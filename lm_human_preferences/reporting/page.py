"""The HTML page of a report."""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import jinja2
import numpy as np

from lm_human_preferences.evaluation import tables
from lm_human_preferences.language.run_models import INITIAL
from lm_human_preferences.reporting.charts import Line, line_chart, number, reliability_chart
from lm_human_preferences.reporting.run_data import Group, RunData, differing, group_by_seed
from lm_human_preferences.utils.text import one_line

FOLDER = os.path.dirname(os.path.abspath(__file__))
COLORS = 8  # in the style sheet
QUERIES_SHOWN = {1: 8, 2: 4}  # by the number of groups; 3 of more
LONG_QUERY = 280  # characters, of which longer queries are folded away
KL_OF_FULL_COLOR = 4.0  # nats: the token's ratio to the initial policy at which its colour is strongest


class Chart(NamedTuple):
    """A chart of one tag."""

    title: str
    tag: str


SECTIONS = [  # heading, event folder, charts
    (
        'What the policy is after',
        'ppo',
        [
            Chart('Score of the reward model', 'objective/score'),
            Chart('KL from the initial policy (nats)', 'objective/kl'),
            Chart('KL coefficient', 'objective/kl_coef'),
            Chart('Score less KL penalty', 'objective/score_total'),
            Chart('Entropy of a response (nats)', 'objective/entropy'),
        ],
    ),
    (
        'The updates of PPO',
        'ppo',
        [
            Chart('Policy loss', 'ppo/loss/policy'),
            Chart('Value loss', 'ppo/loss/value'),
            Chart('Clipped share of policy updates', 'ppo/policy/clipfrac'),
            Chart('Clipped share of value updates', 'ppo/val/clipfrac'),
            Chart('Approximate KL of an update', 'ppo/policy/approxkl'),
            Chart('Variance explained by the values', 'ppo/val/var_explained'),
        ],
    ),
    (
        'Training of the reward model',
        'reward_model',
        [Chart('Loss', 'loss'), Chart('Agreement with people', 'accuracy'), Chart('Correlation', 'correlation')],
    ),
    ('Training of the language model', 'lm', [Chart('Loss', 'loss'), Chart('Held-out loss', 'held_out_loss')]),
]


def render(runs: Sequence[RunData]) -> str:
    """The page of some runs, whole: style and charts are inside."""
    groups = group_by_seed(runs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    firsts = [group.runs[0] for group in groups]
    return environment.get_template('page.html').render(
        title=runs[0].name if len(runs) == 1 else f'{len(runs)} runs',
        runs=runs,
        groups=[dict(name=group.name, color=group.color % COLORS, runs=group.runs) for group in groups],
        seeds=any(len(group.runs) > 1 for group in groups),
        tiles=_tiles(runs[0]) if len(runs) == 1 else [],
        sections=_sections(groups),
        evaluation=_evaluation(runs),
        samples=[_samples(run, QUERIES_SHOWN.get(len(groups), 3)) for run in firsts if run.samples],
        strongest=f'{KL_OF_FULL_COLOR:g}',
        differing=_differences(runs),
        hparams=[dict(name=run.name, command=run.command, fields=sorted(run.hparams.items())) for run in firsts],
    )


def _differences(runs: Sequence[RunData]) -> List[List[str]]:
    """The hyperparameters in which runs differ as a table; no rows where there are none."""
    rows = [[name, *(run.hparams.get(name, '–') for run in runs)] for name in differing(runs)]
    return rows and [['', *(run.name for run in runs)], *rows]


def _tiles(run: RunData) -> List[Dict[str, str]]:
    """The figures at the top: title, value, and what it was at first."""
    found = []
    for title, folder, tag, form in (
        ('score', 'ppo', 'objective/score', '{:.2f}'),
        ('KL, nats', 'ppo', 'objective/kl', '{:.1f}'),
        ('entropy, nats', 'ppo', 'objective/entropy', '{:.0f}'),
        ('reward loss', 'reward_model', 'loss', '{:.3f}'),
        ('held-out loss', 'lm', 'held_out_loss', '{:.3f}'),
    ):
        curve = run.curves[folder].get(tag)
        if curve is not None and not (folder == 'reward_model' and run.curves['ppo']):
            first, last = (_text(form, value) for value in curve.values[[0, -1]])
            found.append(dict(title=title, value=last, note=f'from {first}'))
    reward = run.results.get('reward_model', {})
    if 'accuracy' in reward:
        note = '{:.0f}–{:.0f}% at 95%'.format(*(100 * bound for bound in reward['interval']))
        found.append(dict(title='reward model agrees with people', value=f'{reward["accuracy"]:.0%}', note=note))
    for name, figures in run.results.get('policies', {}).get('policies', {}).items():
        wins = figures.get('wins', {}).get('score')
        if wins and name == run.name:
            note = '{:.0f}–{:.0f}% at 95%'.format(*(100 * bound for bound in wins['interval']))
            baseline = run.results['policies']['baseline']
            found.append(dict(title=f'scores above {baseline}', value=f'{wins["share"]:.0%}', note=note))
    return found


def _sections(groups: Sequence[Group]) -> List[Dict[str, Any]]:
    """The learning curves: headings with their charts, of those that have data."""
    found = []
    for heading, folder, charts in SECTIONS:
        drawn = []
        for chart in charts:
            lines = [line._replace(color=line.color % COLORS) for g in groups for line in g.line(folder, chart.tag)]
            svg = line_chart(f'{chart.title} by step', lines)
            if svg:
                ends = [dict(color=line.color, text=number(float(line.y[-1]))) for line in lines]
                drawn.append(dict(title=chart.title, tag=chart.tag, svg=svg, ends=ends[:4]))
        if drawn:
            found.append(dict(heading=heading, charts=drawn))
    return found


def _evaluation(runs: Sequence[RunData]) -> Dict[str, Any]:
    """The held-out figures of runs as one table each for policies and reward models; of a single run with charts."""
    policies = [(run.name, run.results['policies']) for run in runs if 'policies' in run.results]
    rewards = [(run.name, run.results['reward_model']) for run in runs if 'reward_model' in run.results]
    found: Dict[str, Any] = {}
    if policies:
        columns = []
        for place, (name, result) in enumerate(policies):
            heading, *rows = tables.policy_rows(result)
            for column in range(1, len(heading)):
                if place and heading[column] == INITIAL:
                    continue  # the first run's is there already
                title = f'{name}: {heading[column]}' if heading[column] in (c[0] for c in columns) else heading[column]
                columns.append((title, {row[0]: row[column] for row in rows}))
        found.update(policies=_table(columns), queries=policies[0][1]['queries'])
    if rewards:
        columns = [(name, dict(tables.reward_rows(result))) for name, result in rewards]
        found['reward'] = _table(columns)
        found['source'] = ', '.join(dict.fromkeys(result['source'] for _, result in rewards))
    if len(rewards) == 1:
        (_, reward), *_ = rewards
        if 'calibration' in reward:
            found['calibration'] = reliability_chart('Accuracy by confidence', reward['calibration']['bins'])
        found['growth'] = _growth_chart(reward.get('by_labels', []))
        if found['growth']:
            found['reward'] = _table([(rewards[0][0], dict(tables.reward_rows(dict(reward, by_labels=[]))))])
    return found


def _table(columns: Sequence[Tuple[str, Dict[str, str]]]) -> List[List[str]]:
    """Columns, each a heading with cells by the titles of their rows, as rows; the heading comes first."""
    titles = dict.fromkeys(title for _, cells in columns for title in cells)
    rows = [[title, *(cells.get(title, '') for _, cells in columns)] for title in titles]
    return [['', *(heading for heading, _ in columns)], *rows]


def _growth_chart(points: Sequence[Dict[str, Any]]) -> Optional[str]:
    """Agreement with people by the number of labels seen, with its interval; None for fewer than two checkpoints."""
    points = [point for point in points if 'accuracy' in point]
    if len(points) < 2:
        return None
    low, high = np.transpose([point['interval'] for point in points])
    labels, accuracy = np.transpose([(point['labels'], point['accuracy']) for point in points])
    return line_chart('Agreement with people by labels seen', [Line(0, labels, accuracy, low, high)])


def _samples(run: RunData, most: int) -> Dict[str, Any]:
    """Queries with the responses of each policy side by side, the initial one's first."""
    names = sorted(dict.fromkeys(row['policy'] for row in run.samples), key=lambda name: name != INITIAL)
    queries: Dict[int, Dict[str, Any]] = {}
    for row in run.samples:
        query = row['query'].strip('\n')
        entry = queries.setdefault(row['index'], dict(query=query, start=_start(query), responses={}))
        entry['responses'][row['policy']] = _response(row)
    whole = [entry for _, entry in sorted(queries.items()) if len(entry['responses']) == len(names)]
    return dict(name=run.name, held_out=run.held_out, policies=names, queries=whole[:most])


def _start(query: str) -> Optional[str]:
    """The beginning of a long query, in whole words; None for a short one."""
    return None if len(query) <= LONG_QUERY else query[: LONG_QUERY * 2 // 3].rsplit(' ', 1)[0]


def _response(row: Dict[str, Any]) -> Dict[str, Any]:
    """A response with the colour of each token: how much likelier it is than under the initial policy."""
    ratios = [ours - theirs for ours, theirs in zip(row['logprobs'], row['ref_logprobs'])]
    tokens = []
    for place, (text, ratio) in enumerate(zip(row['tokens'], ratios)):
        tokens.append(
            dict(
                text=one_line(text),
                strength=f'{min(abs(ratio) / KL_OF_FULL_COLOR, 1):.2f}',
                side='up' if ratio >= 0 else 'down',
                scored=place < row['scored'],
                tip=f'{ratio:+.2f} nats, log-probability {row["logprobs"][place]:.2f}'.replace('-', '−'),
            )
        )
    return dict(tokens=tokens, score=_text('{:.2f}', row['score']), kl=_text('{:.1f}', sum(ratios)))


def _text(form: str, value: float) -> str:
    """A number with a true minus sign, and none before a zero."""
    text = form.format(value)
    return text.replace('-', '−' if float(text) else '')
