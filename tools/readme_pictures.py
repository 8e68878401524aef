"""Put finished demo runs into the README and the docs: `python tools/readme_pictures.py FOLDER`.

FOLDER is that of one run, or holds the runs of several seeds (benchmarks/demo_seeds.py). The README's figures are the
means over the runs. The rest is from the first run: the learning curves, which are drawn as
docs/pictures/{score,kl}-{light,dark}.svg, and the samples and tables that stand between `<!-- NAME: … -->` and
`<!-- end of NAME -->` in README.md and docs/getting-started.md.
"""

import os
import re
import sys
from typing import Any, Callable, Dict, List

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from lm_human_preferences import reporting  # noqa: E402
from lm_human_preferences.evaluation import tables  # noqa: E402
from lm_human_preferences.evaluation.intervals import mean_interval  # noqa: E402
from lm_human_preferences.reporting.charts import HEIGHT, WIDTH, line_chart, number  # noqa: E402
from lm_human_preferences.reporting.page import formatted  # noqa: E402
from lm_human_preferences.reporting.run_data import RunData, find_runs, group_by_seed  # noqa: E402

STYLE = os.path.join(os.path.dirname(reporting.__file__), 'style.css')
CHARTS = {  # file name: TensorBoard's tag, title
    'score': ('objective/score', 'Score by the reward model'),
    'kl': ('objective/kl', 'KL from the initial policy (nats)'),
}
SCHEMES = ('light', 'dark')
INITIAL = 'initial'  # what an evaluation calls the policy before fine-tuning
NUM_SAMPLES = 4
MARGIN, CAPTION = 16, 34  # around a chart, and for the line above it


def colors(scheme: str) -> Dict[str, str]:
    """Return the colours of the report's style sheet by their names, for `light` or `dark`."""
    with open(STYLE, encoding='utf-8') as file:
        light, dark = re.findall(r':root \{(.*?)\}', file.read(), re.DOTALL)
    found = dict(re.findall(r'--([\w-]+): ([^;]+);', light))
    if scheme == 'dark':
        found.update(re.findall(r'--([\w-]+): ([^;]+);', dark))
    return found


def chart_style(scheme: str) -> str:
    """Return the rules of the report's style sheet for charts, with the colours filled in."""
    with open(STYLE, encoding='utf-8') as file:
        rules = re.findall(r'^\.(?:grid|tick|line|line\.faint|band|dot|c\d) \{.*\}$', file.read(), re.MULTILINE)
    named = colors(scheme)
    return re.sub(r'var\(--([\w-]+)\)', lambda match: named[match.group(1)], ''.join(rules))


def picture(run: RunData, chart: str, scheme: str) -> str:
    """Return one learning curve as an SVG file that needs no other file."""
    tag, title = CHARTS[chart]
    (group,) = group_by_seed([run])
    color = list(CHARTS).index(chart)
    lines = [line._replace(color=color) for line in group.line('ppo', tag)]
    if not lines:
        raise ValueError(f'{run.name}: no curve {tag}: give the folder of a run of train_policy')
    width, height = WIDTH + 2 * MARGIN, HEIGHT + CAPTION + 2 * MARGIN
    inner = f'<svg x="{MARGIN}" y="{MARGIN + CAPTION}" width="{WIDTH}" height="{HEIGHT}" '
    named, last = colors(scheme), number(float(lines[0].y[-1]))
    return '\n'.join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f'<title>{title}, by PPO step</title>',
            f'<style>text {{ font-family: system-ui, "Segoe UI", Roboto, Arial, sans-serif; }} {chart_style(scheme)}',
            f'.title {{ font-size: 14px; font-weight: 600; fill: {named["ink"]}; }}</style>',
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10" '
            f'fill="{named["card"]}" stroke="{named["faint"]}"/>',
            f'<text class="title" x="{MARGIN}" y="{MARGIN + 14}">{title}</text>',
            f'<text class="title" x="{width - MARGIN - 8}" y="{MARGIN + 14}" text-anchor="end">{last}</text>',
            line_chart(title, lines).replace('<svg ', inner, 1),
            '</svg>\n',
        ]
    )


def samples_table(run: RunData) -> str:
    """Return the first queries with the response before and after fine-tuning as a Markdown table."""
    by_query: Dict[int, Dict[str, Dict[str, Any]]] = {}
    for row in run.samples:
        by_query.setdefault(row['index'], {})[INITIAL if row['policy'] == INITIAL else 'tuned'] = row
    pairs = [pair for _, pair in sorted(by_query.items()) if len(pair) == 2][:NUM_SAMPLES]
    lines = ['| query | before | after |', '|---|---|---|']
    for pair in pairs:
        cells = [pair[INITIAL]['query'], *(response(pair[name]) for name in (INITIAL, 'tuned'))]
        lines.append('| ' + ' | '.join(map(markdown, cells)) + ' |')
    return '\n'.join(lines)


def response(row: Dict[str, Any]) -> str:
    """Return a response up to its end, with its score."""
    text = ''.join(row['tokens'][: row['scored']]).strip()
    return f'{text} ({row["score"]:.1f})'.replace('(-', '(−')


def markdown(text: str) -> str:
    """Return a text as one line of Markdown without any markup."""
    return re.sub(r'([\\`*_{}\[\]<>|#])', r'\\\1', ' '.join(text.split()))


def figures_table(runs: List[RunData]) -> str:
    """Return the main figures of the demo's evaluation as Markdown: the means over runs that differ in their seed.

    The intervals are by seeds. Those of a single run are by its choices and queries.
    """
    for run in runs:
        if not {'policies', 'reward_model'} <= set(run.results):
            raise ValueError(f'{run.name}: no evaluation: run the demo to its end')
    rewards, policies = ([run.results[name] for run in runs] for name in ('reward_model', 'policies'))
    initial = [result['policies'][result['baseline']] for result in policies]
    tuned = []
    for result in policies:
        (figures,) = (figures for name, figures in result['policies'].items() if name != result['baseline'])
        tuned.append(figures)

    def before_and_after(figure: Callable[[Dict[str, Any]], float], form: str) -> List[str]:
        return [formatted(form, np.mean([figure(policy) for policy in side])) for side in (initial, tuned)]

    rows = [
        ['score by the reward model', *before_and_after(lambda f: f['judges']['score']['mean'], '{:.2f}')],
        ['KL from the initial policy (nats)', *before_and_after(lambda f: f['kl'], '{:.1f}')],
        ['distinct words', *before_and_after(lambda f: f['distinct']['1'], '{:.0%}')],
    ]
    for judge in sorted(set(tuned[0]['wins']) - {'score'}):
        rows.append([f'more positive than before, by {judge}', '', mean_percent([f['wins'][judge] for f in tuned])])
    title = tables.queries_title(policies[0]) + (f', mean over {len(runs)} seeds' if len(runs) > 1 else '')
    lines = [f'| {title} | before | after |', '|---|---|---|']
    lines += [f'| {" | ".join(row)} |' for row in rows]
    accuracy = mean_percent([dict(share=reward['accuracy'], interval=reward['interval']) for reward in rewards])
    first = rewards[0]
    among = f' among {first["distinct_samples"]} snippets' if 'distinct_samples' in first else ''
    return '\n'.join(
        [
            f'On {first["labels"]} held-out human choices of the best of four{among}, the reward model agrees with',
            f'people in {accuracy}; choosing at random gives {first["chance"]:.0%}.',
            '',
            *lines,
        ]
    )


def mean_percent(rates: List[Dict[str, Any]]) -> str:
    """Return the mean of the shares of several runs with its interval by runs; of one run, the share with its own."""
    if len(rates) == 1:
        return percent(rates[0])
    shares = [rate['share'] for rate in rates]
    mean = float(np.mean(shares))
    return percent(dict(share=mean, interval=mean_interval(shares) or (mean, mean)))


def percent(rate: Dict[str, Any]) -> str:
    """Return a share with its 95 % interval: '61% (57–65)'."""
    low, high = rate['interval']
    return f'{rate["share"]:.0%} ({100 * low:.0f}–{100 * high:.0f})'


def printed_figures(run: RunData) -> str:
    """Return the tables that the demo prints at its end, as a block of Markdown."""
    reward, policies = run.results['reward_model'], run.results['policies']
    return '\n'.join(
        [
            '```',
            f'Reward model on {reward["source"]}',
            tables.aligned(tables.reward_rows(reward)),
            *tables.repeated_texts(reward),
            '',
            f'Policies on {tables.queries_title(policies)}',
            tables.aligned(tables.policy_rows(policies)),
            *tables.repeated_queries(policies),
            '```',
        ]
    )


def replace_block(path: str, name: str, text: str) -> None:
    """Put `text` between the two comments of the block `name` in a Markdown file; ValueError without them."""
    with open(path, encoding='utf-8') as file:
        page = file.read()
    block = re.compile(rf'(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)', re.DOTALL)
    if not block.search(page):
        raise ValueError(f'{path}: no block {name}')
    page = block.sub(lambda match: f'{match.group(1)}{text}\n{match.group(2)}', page)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(page)


def main(arguments: List[str]) -> None:
    """Write the pictures and the blocks from the folder that is the only argument."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    runs = find_runs(arguments)
    run = runs[0]
    readme, getting_started = (os.path.join(ROOT, *path) for path in (('README.md',), ('docs', 'getting-started.md')))
    for name, text in (('samples', samples_table(run)), ('figures', figures_table(runs))):
        replace_block(readme, name, text)
    replace_block(getting_started, 'output', printed_figures(run))
    for chart in CHARTS:
        for scheme in SCHEMES:
            path = os.path.join(ROOT, 'docs', 'pictures', f'{chart}-{scheme}.svg')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(picture(run, chart, scheme))


if __name__ == '__main__':
    main(sys.argv[1:])
