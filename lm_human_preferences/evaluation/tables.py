"""The figures of an evaluation as a person reads them on a terminal."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

JUDGES = {'score': 'reward model'}  # what a judge is called; others by their own names


def _rows(policies: Dict[str, Dict[str, Any]]) -> List[Tuple[str, Callable[[Dict[str, Any]], Optional[str]]]]:
    """Titles, and how to get a cell from a policy's figures; None where it has none."""

    first = next(iter(policies.values()))
    rows = [
        (f'score by {judge_title(judge)}', lambda f, judge=judge: f'{f["judges"][judge]["mean"]:.2f}')
        for judge in sorted(first['judges'], key=_score_first)
    ]
    rows += [
        ('KL from the initial policy (nats)', lambda f: f'{f["kl"]:.1f}'),
        ('entropy (nats)', lambda f: f'{f["entropy"]:.1f}'),
        ('length (tokens)', lambda f: f'{f["length"]:.1f}'),
        ('end in time', lambda f: f'{f["valid"]:.0%}'),
        ('distinct words', lambda f: f'{f["distinct"]["1"]:.0%}'),
        ('distinct pairs of words', lambda f: f'{f["distinct"]["2"]:.0%}'),
        ('three words in a row from the query', lambda f: f'{f["copied"]["3"]:.0%}'),
        ('sentences from the query', lambda f: f'{f["copied"]["sentences"]:.0%}'),
    ]
    for name in first.get('rouge', {}):
        rows.append((name.replace('rouge', 'ROUGE-'), lambda f, name=name: f'{f["rouge"][name]:.3f}'))
    return rows


def judge_title(judge: str) -> str:
    return JUDGES.get(judge, judge)


def _score_first(judge: str) -> Tuple[bool, str]:
    return judge != 'score', judge


def policy_rows(result: Dict[str, Any]) -> List[List[str]]:
    """The table of policies, the baseline first: a heading (with '' first), then rows of title and cells."""
    names = sorted(result['policies'], key=lambda name: name != result['baseline'])
    policies = {name: result['policies'][name] for name in names}
    rows = [['', *policies]]
    for title, cell in _rows(policies):
        rows.append([title, *(cell(figures).replace('-', '−') for figures in policies.values())])
    judges = sorted(next(iter(policies.values()))['judges'], key=_score_first)
    for judge in judges:
        cells = [percent(figures['wins'][judge]) if 'wins' in figures else '' for figures in policies.values()]
        rows.append([f'better than {result["baseline"]}: {judge_title(judge)}', *cells])
    return rows


def reward_rows(result: Dict[str, Any]) -> List[List[str]]:
    """Titles and cells of a reward model's figures."""
    rows = [['labels', str(result['labels'])]]
    if 'accuracy' in result:
        rows.append(['agrees with people', percent(dict(share=result['accuracy'], interval=result['interval']))])
    if 'chance' in result:
        rows.append(['choosing at random', f'{result["chance"]:.1%}'])
    rows.append(['loss', f'{result["loss"]:.4f}'])
    if result.get('correlation') is not None:
        rows.append(['correlation', f'{result["correlation"]:.3f}'])
    if 'calibration' in result:
        rows.append(['calibration error', f'{result["calibration"]["error"]:.1%}'])
    for judge, share in sorted(result.get('judges', {}).items()):
        rows.append([f'{judge} agrees with people', f'{share:.1%}'])
    agreement = result.get('agreement')
    if agreement:
        rows.append(['questions put to several people', str(agreement['questions'])])
        rows.append(['  two of them agree', percent(_share(agreement['people']))])
        rows.append(['  the model agrees with one', percent(_share(agreement['model']))])
        rows.append(['  the model agrees with most', percent(_share(agreement['majority']))])
    for point in result.get('by_labels', []):
        rows.append(
            [f'after {point["labels"]} labels', percent(_share(point)) if 'accuracy' in point else _loss(point)]
        )
    return rows


def _share(figures: Dict[str, Any]) -> Dict[str, Any]:
    return dict(share=figures['accuracy'], interval=figures['interval'])


def _loss(figures: Dict[str, Any]) -> str:
    return f'loss {figures["loss"]:.4f}'


def percent(rate: Dict[str, Any]) -> str:
    """A share with its interval: '61.2% (57–65)'."""
    low, high = rate['interval']
    return f'{100 * rate["share"]:.1f}% ({100 * low:.0f}–{100 * high:.0f})'


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: titles to the left, cells to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = ''.join(f'  {cell:>{width}}' for cell, width in zip(row[1:], widths[1:]))
        lines.append(f'  {row[0]:{widths[0]}}{cells}'.rstrip())
    return '\n'.join(lines)
