"""Random numbers of a run: one seed for all ranks, and a generator for each rank and step."""

from typing import Optional, Sequence

import numpy as np

from lm_human_preferences.mpi.ranks import Ranks

_STEPS = 1  # distinguishes the random numbers of steps from those of query streams, which use the same seed


def shared_seed(seed: Optional[int], ranks: Ranks) -> int:
    """Return the given seed, or a random one that all ranks share."""
    if seed is not None:
        return seed
    return int(ranks.broadcast(np.array(np.random.RandomState().randint(2**31 - 1), np.int64)))


def uniforms_of_samples(seed: int, indices: Sequence[int], length: int) -> np.ndarray:
    """Return uniform float32 numbers [len(indices), length] in [0, 1).

    Each row depends only on the seed and its index. So sample 7 is the same text in any batch and on any rank.
    """
    rows = [np.random.RandomState([seed, index]).random_sample(length) for index in indices]
    return np.array(rows, np.float32).reshape(len(rows), length)


def step_generator(seed: int, ranks: Ranks, step: int) -> np.random.RandomState:
    """Return this rank's random number generator for one step of a run.

    It depends only on seed, rank and step. So a resumed run needs no saved state of a generator.
    """
    return np.random.RandomState([(seed + 100003 * ranks.rank) % 2**32, step, _STEPS])
