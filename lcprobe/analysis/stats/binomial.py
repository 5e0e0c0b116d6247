"""The exact binomial distribution: tails, the range of likely outcomes, and the power of a one-sided test."""

import math
from functools import lru_cache

import numpy as np

from lcprobe.analysis.stats.intervals import Bounds


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X successes in n trials of probability p."""
    return 1.0 if k <= 0 else min(1.0, float(_probabilities(n, p)[k:].sum()))


def binomial_range(n: int, p: float) -> Bounds:
    """The range of proportions with at least 95 % of the outcomes of n trials, and at most 2.5 % on either side."""
    below = np.cumsum(_probabilities(n, p))
    low, high = int(np.searchsorted(below, 0.025, side="right")), int(np.searchsorted(below, 0.975 - 1e-12))
    return low / n, min(high, n) / n


@lru_cache(maxsize=4096)
def detectable_accuracy(n: int, chance: float, level: float, power: float = 0.8) -> float:
    """Smallest accuracy that a one-sided test of n trials distinguishes from chance; 1 if there is none.

    level: of the test. power: probability with which that accuracy is found significant.
    """
    low_count, high_count = 0, n + 1  # bisection for the smallest significant count
    while low_count < high_count:
        count = (low_count + high_count) // 2
        if binomial_tail(count, n, chance) < level:
            high_count = count
        else:
            low_count = count + 1
    low, high = chance, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if binomial_tail(low_count, n, middle) >= power else (middle, high)
    return high


def _probabilities(n: int, p: float) -> np.ndarray:
    """(n + 1,) probabilities of 0 .. n successes."""
    if p in (0.0, 1.0):
        return np.eye(n + 1)[n if p else 0]
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    return np.exp(factorials[n] - factorials - factorials[::-1] + k * math.log(p) + (n - k) * math.log1p(-p))
