"""Confidence intervals of shares and means."""

import math
from typing import Sequence, Tuple

import numpy as np

Z_95 = 1.959964  # standard deviations around the mean that hold 95 % of a normal distribution


def wilson_interval(successes: float, trials: int) -> Tuple[float, float]:
    """Return the 95 % interval of the share `successes` / `trials` (Wilson 1927).

    Unlike the normal approximation it is also right near 0 and 1 and for few trials. A tie may count as half a
    success. ValueError if there are no trials.
    """
    if trials < 1:
        raise ValueError('a share of 0 trials has no interval')
    share, z2 = successes / trials, Z_95**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> Tuple[float, float]:
    """Return the 95 % interval of the mean of independent values, from their standard error."""
    half = Z_95 * float(np.std(values)) / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half
