"""Random numbers of a run: one seed for all ranks, and each rank's own generator."""

from typing import Optional, Sequence

import numpy as np

from lm_human_preferences.mpi.ranks import Ranks

_STEPS = 1  # sets the numbers of steps apart from those of the streams of queries, which have the same seed


def shared_seed(seed: Optional[int], ranks: Ranks) -> int:
    """The given seed, or one drawn anew and shared by all ranks."""
    if seed is not None:
        return seed
    return int(ranks.broadcast(np.array(np.random.RandomState().randint(2**31 - 1), np.int64)))


def uniforms_of_samples(seed: int, indices: Sequence[int], length: int) -> np.ndarray:
    """Uniform float32 numbers [len(indices), length] in [0, 1); each row depends on the seed and its index alone.

    So sample 7 is the same text whatever batch, or rank, it is in.
    """
    rows = [np.random.RandomState([seed, index]).random_sample(length) for index in indices]
    return np.array(rows, np.float32).reshape(len(rows), length)


def step_generator(seed: int, ranks: Ranks, step: int) -> np.random.RandomState:
    """The random numbers of this rank for one step of a run.

    They follow from seed, rank and step alone: a run that goes on after a pause needs no generator's state.
    """
    return np.random.RandomState([(seed + 100003 * ranks.rank) % 2**32, step, _STEPS])
