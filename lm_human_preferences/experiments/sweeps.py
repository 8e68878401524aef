"""Sweeps: all combinations of the values of several fields, and a short name for each."""

import itertools
import re
from typing import Any, Dict, List

Point = Dict[str, Any]  # dotted name → value
MOST_POINTS = 1000  # more trials are a mistake


def points_of(sweep: Dict[str, List[Any]]) -> List[Point]:
    """Return all combinations of the values of a sweep; ValueError if there are too many."""
    combinations = itertools.islice(itertools.product(*sweep.values()), MOST_POINTS + 1)
    points = [dict(zip(sweep, values)) for values in combinations]
    if len(points) > MOST_POINTS:
        raise ValueError(f'sweep: the values make more than {MOST_POINTS} trials')
    return points


def descriptors(points: List[Point]) -> List[str]:
    """Return a short name for each point, unique and safe as a file name: 'lr1e-05-seed2'."""
    labels = {name: _suffix(name, list(points[0])) for name in points[0]}
    texts = ['-'.join(labels[name] + _safe(value) for name, value in point.items())[:100] for point in points]
    if len({text.lower() for text in texts}) < len(texts):
        texts = [f'{text}-{number}' for number, text in enumerate(texts, start=1)]
    return texts


def _suffix(name: str, swept: List[str]) -> str:
    """Return the shortest end of a dotted name that no other swept name has: 'ppo.lr' → 'lr'."""
    parts = name.split('.')
    suffixes = ['.'.join(parts[start:]) for start in reversed(range(len(parts)))]
    unique = [s for s in suffixes if sum(other == s or other.endswith('.' + s) for other in swept) == 1]
    return unique[0] if unique else name


def _safe(value: Any) -> str:
    return re.sub(r'[^A-Za-z0-9._-]', '_', str(value))[-24:]
