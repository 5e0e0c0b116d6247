"""Intervals of differences and ratios of proportions of the same samples.

Differences are Tango's score interval (1998) extended to clusters. n clusters with differences x_i in -1 .. 1 carry
the same information as a trinomial experiment of N trials, of which a proportion (E|x| + mean) / 2 went up and (E|x|
- mean) / 2 down:

    N = (E|x| - mean^2) / variance of the mean

the effective sample size of Korn & Graubard 1998, as for Wilson's interval, and as there with Student's t for z. The
score interval uses the variance that a hypothesis implies, not the observed one: near 0 and 1, where few samples
change, the observed one is too small by chance. Ratios are Fieller's set (1954) under the same test.
validation/coverage.py measures all.

Sources: Tango 1998, Statistics in Medicine 17, 891-908; Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33,
2850-2875 (compares paired intervals).
"""

import math
from collections.abc import Callable

import numpy as np

from lcprobe.analysis.stats.effective_samples import degrees_of_freedom
from lcprobe.analysis.stats.intervals import Bounds
from lcprobe.analysis.stats.student_t import MAX_DF, Z95, t975

MAX_RATIO = 1e4
"""A ratio that may be larger is reported without an upper bound."""
BISECTION_STEPS = 28
"""Halvings of the range of a bound: to a hundred millionth of it."""


def difference_bounds(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of mean differences of proportions; difference: (..., n_clusters) in -1 .. 1 -> two arrays (...,).

    Where all clusters agree they count once each, so that the bounds of a change that never occurs are Wilson's. One
    cluster gives -1 .. 1.
    """
    up, down, n = _effective_counts(difference)
    # the lower bound is the upper one of the opposite difference, with its sign changed
    up, down = np.stack([up, down]), np.stack([down, up])
    low, high = (up - down) / n, np.ones_like(up)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        inside = tango_score(up, down, n, middle) > -Z95
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    reaches_one = tango_score(up, down, n, np.ones_like(up)) > -Z95
    upper, lower = np.where(reaches_one, 1.0, high)
    return -lower, upper


def tango_score(up: np.ndarray, down: np.ndarray, n: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Tango's statistic of a hypothetical difference in -1 .. 1: standard normal under that hypothesis.

    up, down, n: counts of trials, whole or not. The proportion that goes down under the hypothesis is its constrained
    maximum likelihood estimate, the larger root of 2 n q^2 + b q + c.
    """
    b = (2 * n - up + down) * difference - up - down
    c = -down * difference * (1 - difference)
    q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    return (up - down - n * difference) / np.sqrt(np.maximum(variance, 1e-12))


def ratio_bounds(top: np.ndarray, bottom: np.ndarray) -> Bounds:
    """95 % bounds of mean(top) / mean(bottom); both (n_clusters,) proportions.

    Fieller's set: every r for which top - r x bottom may have mean zero. So it contains 1 if and only if the interval
    of the difference contains 0, and the two never contradict each other. Unbounded above when the bottom may be
    zero.
    """
    if not bottom.any():
        return 0.0, math.inf

    def side(r: float) -> int:
        return int(ratio_side(top, bottom, r))

    value = float(top.mean() / bottom.mean())
    above = max(2.0, 2 * value)
    while side(above) == 0 and above < MAX_RATIO:
        above *= 2
    low = 0.0 if side(0.0) == 0 else _edge(0.0, value, lambda r: side(r) < 0)
    return low, math.inf if above >= MAX_RATIO else _edge(value, above, lambda r: side(r) <= 0)


def ratio_side(top: np.ndarray, bottom: np.ndarray, r: float) -> np.ndarray:
    """Side of the interval of mean(top) / mean(bottom) on which r is: -1 below, 0 inside, 1 above.

    top, bottom: (..., n_clusters) -> (...,).
    """
    up, down, n = _effective_counts((top - r * bottom) / max(1.0, r))
    z = tango_score(up, down, n, np.zeros_like(up))
    return np.where(z > Z95, -1, np.where(z < -Z95, 1, 0))


def _effective_counts(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effective numbers of trials that go up, that go down, and of all. (..., n_clusters) -> three arrays (...,).

    Student's t has the clusters' degrees of freedom where changes go both ways, and those of the variance, as a
    proportion has, where all go one way: then no hypothesis of no change implies how large the variance should be.
    """
    n = difference.shape[-1]
    mean, size = difference.mean(axis=-1), np.abs(difference).mean(axis=-1)
    squares = (difference - mean[..., None]) ** 2
    variance = squares.sum(axis=-1) / n / max(n - 1, 1)
    one_way = np.abs(mean) / np.maximum(size, 1e-12)
    two_way_df = math.log(max(2, min(n - 1, MAX_DF)))
    df = np.exp(one_way * np.log(degrees_of_freedom(squares, n)) + (1 - one_way) * two_way_df)
    n_eff = (size - mean * mean) / np.maximum(variance, 1e-15) * (Z95 / t975(df)) ** 2
    n_eff = np.where(variance > 1e-15, n_eff, n) if n > 1 else np.full_like(mean, 1e-9)
    return n_eff * (size + mean) / 2, n_eff * (size - mean) / 2, n_eff


def _edge(low: float, high: float, before: Callable[[float], bool]) -> float:
    """The point between low and high at which `before` turns from true to false, by bisection."""
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return (low + high) / 2
