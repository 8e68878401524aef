"""95 % confidence intervals of shares and means, also where the same query or sample takes part several times.

**The problem.** The usual interval of a share assumes that every trial is new. An evaluation repeats things: 512
queries may be 20 different ones, and a snippet may be among the samples of five choices. Trials with something in
common tend to end alike, so they tell less than as many new ones, and the usual interval is too narrow.

**The method.** What a trial is made of are its *units*: its query, its samples. Two trials may depend on each other if
they share a unit; two that share none are independent. The variance of the mean is then the sum over all pairs of
trials that share a unit (a trial also pairs with itself) of residual · residual, over n². This is the cluster-robust
variance for trials with several clusters each (Cameron, Gelbach and Miller 2011; Aronow, Samii and Assenova 2015). It
is what a bootstrap over units aims at, without random numbers. A bootstrap that weighs a choice by the product of the
counts of its samples would make intervals of distinct choices four times too wide.

Without repeated units, the sum is the usual variance. With five copies of each trial, it is that of the distinct ones.
Few units leave the variance uncertain, so Student's t takes the place of the normal distribution.
"""

import math
from typing import List, Optional, Tuple

import numpy as np

Z_95 = 1.959964  # standard deviations around the mean that hold 95 % of a normal distribution
# The same of Student's t, by degrees of freedom. Others follow from these, linearly in 1 / degrees, to within 0.2 %.
T_95 = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 7: 2.3646, 10: 2.2281, 15: 2.1314, 30: 2.0423}


def same_rows(rows: np.ndarray) -> np.ndarray:
    """Return a number for each row of `rows` [..., length]: [...] int. Equal rows have equal numbers."""
    flat = rows.reshape(-1, rows.shape[-1])
    _, numbers = np.unique(flat, axis=0, return_inverse=True)
    return numbers.reshape(rows.shape[:-1])


def wilson_interval(successes: float, trials: float) -> Tuple[float, float]:
    """Return the 95 % interval of the share `successes` / `trials` (Wilson 1927), for independent trials.

    Unlike the normal approximation it is also right near 0 and 1 and for few trials. A tie may count as half a
    success. ValueError if there are no trials.
    """
    if trials <= 0:
        raise ValueError('a share of 0 trials has no interval')
    share, z2 = successes / trials, Z_95**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(results: np.ndarray, *units: np.ndarray) -> Tuple[float, float]:
    """Return the 95 % interval of the mean of `results` [n], each from 0 (failure) to 1 (success).

    It is Wilson's interval, for the number of independent trials that would be as informative. Without repeated units
    that number is n. Where all trials fail or all succeed, trials that share a unit are taken to be one.

    Args:
      units: of each kind of unit (queries, samples) an array [n] or [n, of each trial] of numbers, as `same_rows`
        gives them. Trials with the same number share that unit. No array: all trials are independent.
    """
    results = np.asarray(results, float)
    if not len(results):
        raise ValueError('a share of 0 trials has no interval')
    share, count = float(results.mean()), float(len(results))
    residuals = results - share
    covariance, independent = _shared(residuals, units)
    alone = float(np.sum(residuals**2))
    if independent < count and alone > 0:
        larger = max(1.0, _unbiased(covariance, independent) / alone) * (_t_95(units, len(results)) / Z_95) ** 2
        count /= larger
    elif independent < count:
        count = independent
    return wilson_interval(share * count, count)


def mean_interval(values: np.ndarray, *units: np.ndarray) -> Optional[Tuple[float, float]]:
    """Return the 95 % interval of the mean of `values` [n]; `units` are as for `share_interval`.

    It is None if all values share a unit: one unit does not tell how much others differ.
    """
    values = np.asarray(values, float)
    mean = float(np.mean(values))
    covariance, independent = _shared(values - mean, units)
    if independent <= 1:
        return None
    alone = float(np.sum((values - mean) ** 2))
    half = _t_95(units, len(values)) * math.sqrt(max(alone, _unbiased(covariance, independent))) / len(values)
    return mean - half, mean + half


def _unbiased(covariance: float, independent: float) -> float:
    """Correct a sum of residual · residual for residuals that are taken from the mean of the same values."""
    return covariance * independent / (independent - 1) if independent > 1 else covariance


def _shared(residuals: np.ndarray, units: Tuple[np.ndarray, ...]) -> Tuple[float, float]:
    """Return the sum of residual · residual over all pairs of trials that share a unit, and n² / number of such pairs.

    The second is the number of independent groups if all groups have the same size and no trial is in two of them.
    """
    count = len(residuals)
    sharing = [array.reshape(count, -1) for array in units]
    if all(len(np.unique(array)) == array.size for array in sharing):
        return float(np.sum(residuals**2)), float(count)
    members = [trials for array in sharing for trials in _trials_with_each(array)]
    of_trial: List[List[np.ndarray]] = [[] for _ in range(count)]
    for trials in members:
        for trial in trials:
            of_trial[trial].append(trials)
    total, pairs = 0.0, 0
    shares = np.zeros(count, bool)
    for residual, groups in zip(residuals, of_trial):
        shares[:] = False
        for trials in groups:
            shares[trials] = True
        total += residual * residuals[shares].sum()
        pairs += np.count_nonzero(shares)
    return float(total), count**2 / pairs


def _trials_with_each(units: np.ndarray) -> List[np.ndarray]:
    """Return for each unit the trials that it takes part in; `units` is [n, of each trial]."""
    order = np.argsort(units, axis=None, kind='mergesort')
    starts = np.flatnonzero(np.diff(units.ravel()[order])) + 1
    return [np.unique(places // units.shape[1]) for places in np.split(order, starts)]


def _t_95(units: Tuple[np.ndarray, ...], count: int) -> float:
    """Return the half width of an interval in standard errors.

    The degrees of freedom are one less than the number of trials that could be made without using a unit twice.
    """
    different = [len(np.unique(array)) * count / array.size for array in units]
    degrees = max(1.0, min([count, *different]) - 1)
    known = [*T_95.items(), (math.inf, Z_95)][::-1]
    return float(np.interp(1 / degrees, [1 / key for key, _ in known], [value for _, value in known]))
