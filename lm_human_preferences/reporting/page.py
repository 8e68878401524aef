"""Render the HTML page of a report."""

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
COLORS = 8  # number of colours in the style sheet
QUERIES_SHOWN = {1: 8, 2: 4}  # of each group, by the number of groups
FEWEST_QUERIES = 3  # for more groups
LONG_QUERY = 280  # characters; longer queries are folded
KL_OF_FULL_COLOR = 4.0  # nats; the log-ratio to the initial policy at which a token's colour is strongest


class Chart(NamedTuple):
    """A chart of one tag."""

    title: str
    tag: str


SECTIONS = [  # heading, event folder, charts
    (
        'Score and KL of the policy',
        'ppo',
        [
            Chart('Score of the reward model', 'objective/score'),
            Chart('KL from the initial policy (nats)', 'objective/kl'),
            Chart('KL coefficient', 'objective/kl_coef'),
            Chart('Score minus KL penalty', 'objective/score_total'),
            Chart('Entropy of a response (nats)', 'objective/entropy'),
        ],
    ),
    (
        'PPO updates',
        'ppo',
        [
            Chart('Policy loss', 'ppo/loss/policy'),
            Chart('Value loss', 'ppo/loss/value'),
            Chart('Share of clipped policy updates', 'ppo/policy/clipfrac'),
            Chart('Share of clipped value updates', 'ppo/val/clipfrac'),
            Chart('Approximate KL of an update (nats)', 'ppo/policy/approxkl'),
            Chart('Variance explained by the value function', 'ppo/val/var_explained'),
        ],
    ),
    (
        'Reward model training',
        'reward_model',
        [Chart('Loss', 'loss'), Chart('Agreement with people', 'accuracy'), Chart('Correlation', 'corr')],
    ),
    ('Language model training', 'lm', [Chart('Loss', 'loss'), Chart('Held-out loss', 'held_out_loss')]),
]


def render(runs: Sequence[RunData]) -> str:
    """Return the whole page of some runs, with its style and charts inside."""
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
        samples=[_samples(run, QUERIES_SHOWN.get(len(groups), FEWEST_QUERIES)) for run in firsts if run.samples],
        strongest=f'{KL_OF_FULL_COLOR:g}',
        differing=_differences(runs),
        hparams=[dict(name=run.name, command=run.command, fields=sorted(run.hparams.items())) for run in firsts],
    )


def _differences(runs: Sequence[RunData]) -> List[List[str]]:
    """Return a table of the hyperparameters that differ between runs; [] if none differ."""
    rows = [[name, *(run.hparams.get(name, '–') for run in runs)] for name in differing(runs)]
    return rows and [['', *(run.name for run in runs)], *rows]


def _tiles(run: RunData) -> List[Dict[str, str]]:
    """Return the numbers at the top of the page: title, value, and a note (the first value, or an interval)."""
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
            first, last = (formatted(form, value) for value in curve.values[[0, -1]])
            found.append(dict(title=title, value=last, note=f'from {first}'))
    reward = run.results.get('reward_model', {})
    if 'accuracy' in reward:
        note = '95% interval: {:.0f}–{:.0f}%'.format(*(100 * bound for bound in reward['interval']))
        found.append(dict(title='reward model agrees with people', value=f'{reward["accuracy"]:.0%}', note=note))
    for name, figures in run.results.get('policies', {}).get('policies', {}).items():
        wins = figures.get('wins', {}).get('score')
        if wins and name == run.name:
            note = '95% interval: {:.0f}–{:.0f}%'.format(*(100 * bound for bound in wins['interval']))
            baseline = run.results['policies']['baseline']
            found.append(dict(title=f'scores above {baseline}', value=f'{wins["share"]:.0%}', note=note))
    return found


def _sections(groups: Sequence[Group]) -> List[Dict[str, Any]]:
    """Return the sections of learning curves that have data: headings with their charts."""
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
    """Return the results of evaluations: a table of all policies and one of all reward models.

    If only one reward model was evaluated, there are charts, too.
    """
    policies = [(run.name, run.results['policies']) for run in runs if 'policies' in run.results]
    rewards = [(run.name, run.results['reward_model']) for run in runs if 'reward_model' in run.results]
    found: Dict[str, Any] = {}
    if policies:
        found.update(policies=_policies_table(policies), queries=tables.queries_title(policies[0][1]))
    if rewards:
        found.update(_reward_models(rewards))
    return found


def _policies_table(results: Sequence[Tuple[str, Dict[str, Any]]]) -> List[List[str]]:
    """Return one table of the policies of several runs (name, result).

    The initial policy has one column, from the first run.
    """
    columns: List[Tuple[str, Dict[str, str]]] = []
    for i, (name, result) in enumerate(results):
        (_, *policies), *rows = tables.policy_rows(result)
        for column, policy in enumerate(policies, start=1):
            if i > 0 and policy == INITIAL:
                continue
            taken = policy in (heading for heading, _ in columns)
            columns.append((f'{name}: {policy}' if taken else policy, {row[0]: row[column] for row in rows}))
    return _table(columns)


def _reward_models(results: Sequence[Tuple[str, Dict[str, Any]]]) -> Dict[str, Any]:
    """Return the table of the reward models of runs (name, result); for a single one also its charts."""
    source = ', '.join(dict.fromkeys(result['source'] for _, result in results))
    found: Dict[str, Any] = dict(source=source)
    if len(results) == 1:
        ((name, result),) = results
        if 'calibration' in result:
            found['calibration'] = reliability_chart('Accuracy by confidence', result['calibration']['bins'])
        found['growth'] = _growth_chart(result.get('by_labels', []))
        if found['growth']:
            results = [(name, dict(result, by_labels=[]))]  # the chart takes the place of these rows
    found['reward'] = _table([(name, dict(tables.reward_rows(result))) for name, result in results])
    return found


def _table(columns: Sequence[Tuple[str, Dict[str, str]]]) -> List[List[str]]:
    """Turn columns (heading, cells by row title) into rows; the first row has the headings."""
    titles = dict.fromkeys(title for _, cells in columns for title in cells)
    rows = [[title, *(cells.get(title, '') for _, cells in columns)] for title in titles]
    return [['', *(heading for heading, _ in columns)], *rows]


def _growth_chart(points: Sequence[Dict[str, Any]]) -> Optional[str]:
    """Return a chart of accuracy over the number of labels seen; None for fewer than two checkpoints."""
    points = [point for point in points if 'accuracy' in point]
    if len(points) < 2:
        return None
    low, high = np.transpose([point['interval'] for point in points])
    labels, accuracy = np.transpose([(point['labels'], point['accuracy']) for point in points])
    return line_chart('Agreement with people by number of labels', [Line(0, labels, accuracy, low, high)])


def _samples(run: RunData, num_queries: int) -> Dict[str, Any]:
    """Return queries with the responses of each policy, those of the initial policy first."""
    names = sorted(dict.fromkeys(row['policy'] for row in run.samples), key=lambda name: name != INITIAL)
    queries: Dict[int, Dict[str, Any]] = {}
    for row in run.samples:
        query = row['query'].strip('\n')
        entry = queries.setdefault(row['index'], dict(query=query, start=_start(query), responses={}))
        entry['responses'][row['policy']] = _response(row)
    answered = [entry for _, entry in sorted(queries.items()) if len(entry['responses']) == len(names)]  # by all
    return dict(name=run.name, held_out=run.held_out, policies=names, queries=answered[:num_queries])


def _start(query: str) -> Optional[str]:
    """Return the beginning of a long query, up to the end of a word; None for a short query."""
    return None if len(query) <= LONG_QUERY else query[: LONG_QUERY * 2 // 3].rsplit(' ', 1)[0]


def _response(row: Dict[str, Any]) -> Dict[str, Any]:
    """Return a response with the colour of each token, which shows its log-ratio to the initial policy."""
    ratios = [ours - theirs for ours, theirs in zip(row['logprobs'], row['ref_logprobs'])]
    tokens = []
    for place, (text, ratio) in enumerate(zip(row['tokens'], ratios)):
        tokens.append(
            dict(
                text=one_line(text),
                strength=f'{min(abs(ratio) / KL_OF_FULL_COLOR, 1):.2f}',
                side='up' if ratio >= 0 else 'down',
                scored=place < row['scored'],
                tip=f'log-probability {row["logprobs"][place]:.2f}, {ratio:+.2f} nats from the initial policy'.replace(
                    '-', '−'
                ),
            )
        )
    return dict(tokens=tokens, score=formatted('{:.2f}', row['score']), kl=formatted('{:.1f}', sum(ratios)))


def formatted(form: str, value: float) -> str:
    """Format a number or a percentage with a true minus sign, and without one before zero."""
    text = form.format(value)
    return text.replace('-', '−' if text.strip('-0.%') else '')
