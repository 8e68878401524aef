"""Tables of evaluation results, for the terminal and the report."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

JUDGES = {'score': 'reward model'}  # titles of judges; the others are called by their own names


def _rows(policies: Dict[str, Dict[str, Any]]) -> List[Tuple[str, Callable[[Dict[str, Any]], Optional[str]]]]:
    """Return the title of each row, with a function that makes its cell from a policy's metrics."""
    first = next(iter(policies.values()))
    rows = [
        (f'score by {judge_title(judge)}', lambda m, judge=judge: f'{m["judges"][judge]["mean"]:.2f}')
        for judge in sorted(first['judges'], key=_score_first)
    ]
    rows += [
        ('KL from the initial policy (nats)', lambda m: f'{m["kl"]:.1f}'),
        ('entropy (nats)', lambda m: f'{m["entropy"]:.1f}'),
        ('length (tokens)', lambda m: f'{m["length"]:.1f}'),
        ('responses that end in time', lambda m: f'{m["valid"]:.0%}'),
        ('distinct words', lambda m: f'{m["distinct"]["1"]:.0%}'),
        ('distinct word pairs', lambda m: f'{m["distinct"]["2"]:.0%}'),
        ('three-word phrases copied from the query', lambda m: f'{m["copied"]["3"]:.0%}'),
        ('sentences copied from the query', lambda m: f'{m["copied"]["sentences"]:.0%}'),
    ]
    for name in first.get('rouge', {}):
        rows.append((name.replace('rouge', 'ROUGE-'), lambda m, name=name: f'{m["rouge"][name]:.3f}'))
    return rows


def judge_title(judge: str) -> str:
    """Return the name of a judge for people."""
    return JUDGES.get(judge, judge)


def _score_first(judge: str) -> Tuple[bool, str]:
    return judge != 'score', judge


def queries_title(result: Dict[str, Any]) -> str:
    """Return on what policies were measured: '512 held-out queries (20 distinct)'."""
    found = f'{result["queries"]} held-out queries'
    distinct = result.get('distinct_queries')  # results of earlier versions lack it
    if distinct is None:
        return found
    return f'{found} ({"all" if distinct == result["queries"] else distinct} distinct)'


def repeated_queries(result: Dict[str, Any]) -> List[str]:
    """Return a line that says how many queries of policies are distinct, if some occur several times; else none."""
    asked = result['queries']
    distinct = result.get('distinct_queries', asked)
    line = f'distinct queries: {distinct} of {asked}; the intervals allow for queries that occur several times'
    return [line] if distinct < asked else []


def repeated_texts(result: Dict[str, Any]) -> List[str]:
    """Return a line that says how many texts of labels are distinct, if some are in several labels; else none."""
    asked, queries, samples = (result.get(name) for name in ('labels', 'distinct_queries', 'distinct_samples'))
    if queries == asked and samples == result['samples'] or queries is None:
        return []
    return [
        f'distinct queries: {queries} of {asked}, distinct samples: {samples} of {result["samples"]}; '
        'the intervals allow for texts that occur several times'
    ]


def policy_rows(result: Dict[str, Any]) -> List[List[str]]:
    """Return the table of policies, baseline first: a heading row that starts with '', then rows of title and cells."""
    names = sorted(result['policies'], key=lambda name: name != result['baseline'])
    policies = {name: result['policies'][name] for name in names}
    rows = [['', *policies]]
    for title, cell in _rows(policies):
        rows.append([title, *(cell(metrics).replace('-', '−') for metrics in policies.values())])
    judges = sorted(next(iter(policies.values()))['judges'], key=_score_first)
    for judge in judges:
        cells = [percent(metrics['wins'][judge]) if 'wins' in metrics else '' for metrics in policies.values()]
        rows.append([f'better than {result["baseline"]}: {judge_title(judge)}', *cells])
    return rows


def reward_rows(result: Dict[str, Any]) -> List[List[str]]:
    """Return the table of a reward model: rows of title and cell."""
    rows = [['labels', str(result['labels'])]]
    if 'distinct_samples' in result:  # results of earlier versions lack these
        rows.append(['distinct queries', str(result['distinct_queries'])])
        rows.append(['distinct samples', f'{result["distinct_samples"]} of {result["samples"]}'])
    if 'accuracy' in result:
        rows.append(['agrees with people', percent(dict(share=result['accuracy'], interval=result['interval']))])
    if 'chance' in result:
        rows.append(['agreement by chance', f'{result["chance"]:.1%}'])
    rows.append(['loss', f'{result["loss"]:.4f}'])
    if result.get('correlation') is not None:
        rows.append(['correlation', f'{result["correlation"]:.3f}'])
    if 'calibration' in result:
        rows.append(['calibration error', f'{result["calibration"]["error"]:.1%}'])
    for judge, share in sorted(result.get('judges', {}).items()):
        rows.append([f'{judge} agrees with people', f'{share:.1%}'])
    agreement = result.get('agreement')
    if agreement:
        rows.append(['questions answered by several people', str(agreement['questions'])])
        rows.append(['  two people agree', percent(_share(agreement['people']))])
        rows.append(['  the model agrees with a person', percent(_share(agreement['model']))])
        rows.append(['  the model agrees with the majority', percent(_share(agreement['majority']))])
    for point in result.get('by_labels', []):
        rows.append(
            [f'after {point["labels"]} labels', percent(_share(point)) if 'accuracy' in point else _loss(point)]
        )
    return rows


def _share(metrics: Dict[str, Any]) -> Dict[str, Any]:
    return dict(share=metrics['accuracy'], interval=metrics['interval'])


def _loss(metrics: Dict[str, Any]) -> str:
    return f'loss {metrics["loss"]:.4f}'


def percent(rate: Dict[str, Any]) -> str:
    """Format a share with its interval: '61.2% (57–65)'."""
    low, high = rate['interval']
    return f'{100 * rate["share"]:.1f}% ({100 * low:.0f}–{100 * high:.0f})'


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as text, with titles aligned to the left and cells to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = ''.join(f'  {cell:>{width}}' for cell, width in zip(row[1:], widths[1:]))
        lines.append(f'  {row[0]:{widths[0]}}{cells}'.rstrip())
    return '\n'.join(lines)
