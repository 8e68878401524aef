"""How often people agree: over pairs of people who answered the same question (section 3 of the paper)."""

import itertools
from typing import List, NamedTuple, Sequence

import numpy as np


class Agreement(NamedTuple):
    rate: float  # share of pairs with the same answer; nan without pairs
    pairs: int
    questions: int  # that more than one person answered


def pairwise_agreement(values_by_question: Sequence[Sequence[float]]) -> Agreement:
    """The agreement of the answers given to each question, every pair of people counted once."""
    same: List[bool] = []
    questions = 0
    for values in values_by_question:
        questions += len(values) > 1
        same += [first == second for first, second in itertools.combinations(values, 2)]
    return Agreement(float(np.mean(same)) if same else float('nan'), len(same), questions)
