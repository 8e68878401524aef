"""How often people agree: over pairs of people who answered the same question (section 3 of the paper)."""

import itertools
from typing import List, NamedTuple, Sequence

import numpy as np


class Agreement(NamedTuple):
    """The agreement of people: `rate` is the share of pairs of answers that are the same, nan without pairs."""

    rate: float
    pairs: int
    questions: int  # that more than one person answered


def pairwise_agreement(values_by_question: Sequence[Sequence[float]]) -> Agreement:
    """Return the agreement of the answers given to each question. Every pair of people counts once."""
    same: List[bool] = []
    questions = 0
    for values in values_by_question:
        questions += len(values) > 1
        same += [first == second for first, second in itertools.combinations(values, 2)]
    return Agreement(float(np.mean(same)) if same else float('nan'), len(same), questions)
