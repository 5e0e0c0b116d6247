"""Intervals of what is compared: differences and ratios of shares of the same samples, and of groups of training seeds.

Differences are Tango's score interval (1998) carried over to clusters. n clusters with differences x_i in -1 .. 1 know as much
as a trinomial experiment of N trials, of which a share (E|x| + mean) / 2 went up and (E|x| - mean) / 2 went down:

    N = (E|x| - mean^2) / variance of the mean

the effective number of trials of Korn & Graubard 1998, as for Wilson's interval, and as there with Student's t for z. The score
interval takes the variance that a hypothesis implies, not the one that was seen: near 0 and 1, where few samples change, the
one seen is too small by chance. Ratios are Fieller's set (1954) under the same test. validation/coverage.py measures all.

Sources: Tango 1998, Statistics in Medicine 17, 891-908; Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33, 2850-2875
(compares paired intervals); Welch 1947; Satterthwaite 1946.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from lcprobe.analysis.stats.intervals import LARGE, Z95, Bounds, freedom, t975

MOST_RATIO = 1e4
"""A ratio that may be larger is said to have no upper bound."""
HALVINGS = 28
"""Of the range in which a bound may lie: to a hundred millionth of it."""


def difference_bounds(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of mean differences of shares; difference: (..., n) by cluster, in -1 .. 1 -> two (...,).

    Where all clusters agree they count once each, so that the bounds of a change never seen are Wilson's. One cluster gives
    -1 .. 1.
    """
    up, down, n = _worth(difference)
    up, down = (
        np.stack([up, down]),
        np.stack([down, up]),
    )  # the lower bound is the upper one of the opposite, its sign changed
    low, high = (up - down) / n, np.ones_like(up)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = score(up, down, n, middle) > -Z95
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    closed = score(up, down, n, np.ones_like(up)) > -Z95
    upper, lower = np.where(closed, 1.0, high)
    return -lower, upper


def score(up: np.ndarray, down: np.ndarray, n: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Tango's statistic of a hypothetical difference in -1 .. 1: standard normal where it holds.

    up, down, n: counts of trials, whole or not. The share that goes down under the hypothesis is its constrained maximum of
    likelihood, the larger root of 2 n q^2 + b q + c.
    """
    b = (2 * n - up + down) * difference - up - down
    c = -down * difference * (1 - difference)
    q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    return (up - down - n * difference) / np.sqrt(np.maximum(variance, 1e-12))


def ratio_bounds(top: np.ndarray, bottom: np.ndarray) -> Bounds:
    """95 % bounds of mean(top) / mean(bottom); both (n,) shares by cluster.

    Fieller's set: every r for which top - r x bottom may have mean zero. So it holds 1 if and only if the bounds of the
    difference hold 0, and the two never contradict each other. Unbounded above when the bottom may be zero.
    """
    if not bottom.any():
        return 0.0, math.inf

    def side(r: float) -> int:
        return int(ratio_side(top, bottom, r))

    value = float(top.mean() / bottom.mean())
    most = max(2.0, 2 * value)
    while side(most) == 0 and most < MOST_RATIO:
        most *= 2
    low = 0.0 if side(0.0) == 0 else _edge(0.0, value, lambda r: side(r) < 0)
    return low, math.inf if most >= MOST_RATIO else _edge(value, most, lambda r: side(r) <= 0)


def ratio_side(top: np.ndarray, bottom: np.ndarray, r: float) -> np.ndarray:
    """(...,) -1 where r is too small for mean(top) / mean(bottom), 1 where it is too large, 0 where it is held.

    top, bottom: (..., n).
    """
    up, down, n = _worth((top - r * bottom) / max(1.0, r))
    z = score(up, down, n, np.zeros_like(up))
    return np.where(z > Z95, -1, np.where(z < -Z95, 1, 0))


def welch_bounds(a: Sequence[float], b: Sequence[float], worth_a: float, worth_b: float) -> Bounds:
    """95 % bounds of mean(a) - mean(b) for two groups of at least two training seeds each: shares, one a seed.

    Welch 1947, with one thing known beforehand: seeds vary at least as much as shares of so many trials (worth_a, worth_b: of
    one seed; infinite where a value is no share). Equal results of few seeds are luck, not a variance of zero. What is known
    has no degrees of freedom to lose, so that Satterthwaite's number counts what was seen alone.
    """
    low, high = welch_bounds_of(np.asarray(a, float), np.asarray(b, float), worth_a, worth_b)
    return float(low), float(high)


def welch_bounds_of(a: np.ndarray, b: np.ndarray, worth_a: float, worth_b: float) -> tuple[np.ndarray, np.ndarray]:
    """The same for many pairs of groups: (..., seeds) each -> two (...,)."""
    whole, doubt = 0.0, 0.0
    for x, worth in ((a, worth_a), (b, worth_b)):
        seeds = x.shape[-1]
        add = Z95**2 / (2 * worth * seeds)  # as Wilson's centre: all right is not surely right
        p = (x.mean(axis=-1) + add) / (1 + 2 * add)
        seen = x.var(axis=-1, ddof=1) / seeds
        whole = whole + np.maximum(seen, p * (1 - p) / worth / seeds)
        doubt = doubt + seen**2 / (seeds - 1)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # nothing seen: what is known is normal; nothing known either: a point
        half = np.where(whole > 0, t975(whole**2 / doubt) * np.sqrt(whole), 0.0)
    mean = a.mean(axis=-1) - b.mean(axis=-1)
    return mean - half, mean + half


def _worth(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(...,) trials that go up, those that go down, and all, as (..., n) clusters are worth.

    Student's t has the clusters' degrees of freedom where changes go both ways, and those of the variance, as a share has,
    where all go one way: then no hypothesis of no change tells how large the variance should be.
    """
    n = difference.shape[-1]
    mean, size = difference.mean(axis=-1), np.abs(difference).mean(axis=-1)
    squares = (difference - mean[..., None]) ** 2
    variance = squares.sum(axis=-1) / n / max(n - 1, 1)
    one_way = np.abs(mean) / np.maximum(size, 1e-12)
    df = np.exp(one_way * np.log(freedom(squares, n)) + (1 - one_way) * math.log(max(2, min(n - 1, LARGE))))
    worth = (size - mean * mean) / np.maximum(variance, 1e-15) * (Z95 / t975(df)) ** 2
    worth = np.where(variance > 1e-15, worth, n) if n > 1 else np.full_like(mean, 1e-9)
    return worth * (size + mean) / 2, worth * (size - mean) / 2, worth


def _edge(low: float, high: float, before: Callable[[float], bool]) -> float:
    """Where `before` ends to hold between low and high, by bisection."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return (low + high) / 2
