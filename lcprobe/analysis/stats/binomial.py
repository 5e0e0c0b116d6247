"""The exact binomial distribution: tails, the range of likely outcomes, power of a one-sided test, whether two counts
are of one proportion, and how many of several comparisons agree if nothing differs.

The test of two counts is Fisher's exact one with the mid-p correction (Lancaster 1961; Berry & Armitage 1995): the
probability of a table less likely than the observed one, and half of that of equally likely ones. Without the
correction it is far too cautious where counts are small. How likely one count is after the other is beta-binomial,
with Jeffreys' prior.

That two shares of one proportion agree within Newcombe's 95 % interval is likelier than .95 near 0 and 1: two draws
of 0 agree always. The number of comparisons that agree is therefore Poisson-binomial.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from lcprobe.analysis.stats.intervals import Bounds, wilson
from lcprobe.analysis.stats.student_t import Z95

NEGLIGIBLE = 1e-10
"""Counts less probable than this are left out where many are compared."""
TIED = 1e-9
"""Relative difference below which two probabilities are one."""


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


@lru_cache(maxsize=4096)
def agreement_probability(n: int, other_n: int, share: float) -> float:
    """Probability that Newcombe's 95 % interval for the difference of two independent proportions of one share, of n
    and other_n trials, has zero."""
    (p, value, low, high), (other_p, other, other_low, other_high) = _outcomes(n, share), _outcomes(other_n, share)
    d = value[:, None] - other[None, :]
    down = np.hypot((value - low)[:, None], (other_high - other)[None, :])
    up = np.hypot((high - value)[:, None], (other - other_low)[None, :])
    has_zero = (d - down <= 0) & (d + up >= 0)
    return float(p @ has_zero @ other_p / (p.sum() * other_p.sum()))


def likely_counts(probabilities: Sequence[float]) -> tuple[int, int]:
    """The range of the number of independent events, of these probabilities, that happen: at least 95 % of the
    outcomes, at most 2.5 % on either side."""
    distribution = np.ones(1)
    for p in probabilities:
        distribution = np.convolve(distribution, [1 - p, p])
    below = np.cumsum(distribution)
    low, high = int(np.searchsorted(below, 0.025, side="right")), int(np.searchsorted(below, 0.975 - 1e-12))
    return low, min(high, len(probabilities))


def log_likelihood_of(k: int, n: int, p: np.ndarray) -> np.ndarray:
    """log P(k of n) under each probability, 0 < p < 1."""
    return _log_choose(n, k) + k * np.log(p) + (n - k) * np.log1p(-p)


def interval_of_share(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a reported share of n samples, which need not be a whole number of them."""
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _outcomes(n: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Probability, proportion and Wilson's bounds of every count of n trials that is not negligible."""
    p = _probabilities(n, share)
    counts = np.flatnonzero(p > NEGLIGIBLE)
    low, high = wilson(counts, n)
    return p[counts], counts / n, low, high


def _probabilities(n: int, p: float) -> np.ndarray:
    """(n + 1,) probabilities of 0 .. n successes."""
    if p in (0.0, 1.0):
        return np.eye(n + 1)[n if p else 0]
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    return np.exp(factorials[n] - factorials - factorials[::-1] + k * math.log(p) + (n - k) * math.log1p(-p))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
