"""Two independent samples of counts: the test that they have one proportion, and how likely one is after the other.

The test is Fisher's exact one with the mid-p correction (Lancaster 1961; Berry & Armitage 1995): the probability of a
table at most as likely as the observed one, half of that for equally likely ones. Without the correction it is far
too cautious where counts are small. The likelihood is beta-binomial, with Jeffreys' prior for the proportion.
"""

import math

import numpy as np

from lcprobe.analysis.stats.student_t import Z95

TIED = 1e-9
"""Relative difference below which two probabilities are one."""


def equal_proportions_p(k: int, n: int, other_k: int, other_n: int) -> float:
    """Two-sided p that k of n and other_k of other_n are draws of one proportion; 1 for equal shares.

    Raises ValueError for counts outside 0 .. n.
    """
    for count, of in ((k, n), (other_k, other_n)):
        if not 0 <= count <= of or of < 1:
            raise ValueError(f"{count} of {of} is no count")
    total = k + other_k
    low, high = max(0, total - other_n), min(n, total)
    at = np.arange(low, high + 1)
    logs = np.array([_log_choose(n, int(i)) + _log_choose(other_n, total - int(i)) for i in at])
    chances = np.exp(logs - logs.max())
    chances /= chances.sum()
    own = chances[k - low]
    tied = np.abs(chances - own) <= TIED * own
    if k * other_n == other_k * n:
        return 1.0
    return float(min(1.0, chances[(chances < own) & ~tied].sum() + 0.5 * chances[tied].sum()))


def log_likelihood_after(k: int, n: int, seen_k: float, seen_n: float) -> float:
    """log P(k of n) of a proportion of which seen_k of seen_n have been seen."""
    a, b = seen_k + 0.5, seen_n - seen_k + 0.5
    return _log_choose(n, k) + _log_beta(k + a, n - k + b) - _log_beta(a, b)


def interval_of_share(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a reported share of n samples, which need not be a whole number of them."""
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
