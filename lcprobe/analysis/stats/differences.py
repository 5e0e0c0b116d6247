"""Differences and ratios of shares of the same samples, and weighted contrasts of any number of them.

All are one test: `score_test` of one value per sample, the weighted sum of the sample's shares. For two shares of one
trial per sample it is McNemar's test and Tango's interval (1998); several trials per sample come in clusters, and
the two sides may be clustered unequally. p < .05 if and only if the interval excludes zero. Ratios are Fieller's set
(1954) under the same test. validation/coverage.py measures all.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from lcprobe.analysis.stats.intervals import Bounds
from lcprobe.analysis.stats.score_test import critical_value, excess, mean_bounds, mean_p
from lcprobe.analysis.stats.student_t import t_quantile

MAX_RATIO = 1e4
"""A ratio that may be larger is reported without an upper bound."""
BISECTION_STEPS = 28
"""Halvings of the range of a ratio's bound: to a hundred millionth of it."""
Terms = Sequence[tuple[float, np.ndarray]]
"""Terms of a weighted sum: weight, and (..., n_samples) shares in 0 .. 1 of the same samples."""


def difference_bounds(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of mean(first) - mean(second); both (..., n_samples) in 0 .. 1 -> two arrays (...,)."""
    return contrast_bounds([(1.0, first), (-1.0, second)])


def contrast_bounds(terms: Terms, constant: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of constant + sum(weight x mean of shares) -> two arrays (...,); the whole range for one sample."""
    low = constant + sum(min(weight, 0.0) for weight, _ in terms)
    high = constant + sum(max(weight, 0.0) for weight, _ in terms)
    values = contrast_values(terms, constant)
    return mean_bounds(values, _support(terms, constant, values), (low, high))


def contrast_p(terms: Terms, constant: float = 0.0) -> float:
    """Two-sided p that constant + sum(weight x mean of shares) is zero; shares: (n_samples,)."""
    values = contrast_values(terms, constant)
    low, high = _support(terms, constant, values)
    return mean_p(values, (float(low), float(high)))


def contrast_side(terms: Terms, at: float = 0.0, level: float = 0.05) -> np.ndarray:
    """Side of the interval of sum(weight x mean of shares) on which `at` is: -1 below, 0 inside, 1 above (...,)."""
    values = contrast_values(terms)
    low, high = _support(terms, 0.0, values)
    n = values.shape[-1]
    critical = critical_value(n) if level == 0.05 else t_quantile(1 - level / 2, n - 1)
    below, above = excess(values - at, low - at, critical) > 0, excess(at - values, at - high, critical) > 0
    return np.where(below, -1, np.where(above, 1, 0))


def mean_bounds_at(shares: np.ndarray, level: float) -> Bounds:
    """Bounds of the mean of (n_samples,) shares that exclude what `contrast_p` < level excludes; 0 and 1 for one."""
    if len(shares) < 2:
        return 0.0, 1.0

    def side(at: float) -> int:
        return int(contrast_side([(1.0, shares)], at, level))

    value = float(shares.mean())
    low = 0.0 if side(0.0) == 0 else _edge(0.0, value, lambda at: side(at) < 0)
    return low, 1.0 if side(1.0) == 0 else _edge(value, 1.0, lambda at: side(at) <= 0)


def contrast_values(terms: Terms, constant: float = 0.0) -> np.ndarray:
    """(..., n_samples) weighted sum of every sample."""
    return np.asarray(constant + sum(weight * shares for weight, shares in terms), float)


def ratio_bounds(top: np.ndarray, bottom: np.ndarray) -> Bounds:
    """95 % bounds of mean(top) / mean(bottom); both (n_samples,) shares in 0 .. 1.

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

    top, bottom: (..., n_samples) -> (...,).
    """
    return contrast_side([(1.0, top), (-r, bottom)])


def _support(terms: Terms, constant: float, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value that a sample that was not drawn may have, (...,) each.

    Not beyond what the shares that were seen combine to, where a side on which all samples are right, or all wrong,
    has not shown its other end: it may be anywhere. And not beyond the largest value of any sending, up or down: the
    same samples hardly ever change by all that two sides together allow. Where a side has not shown its other end, or
    all values are equal, nothing is known about that.
    """
    low, high = np.full(values.shape[:-1], constant), np.full(values.shape[:-1], constant)
    unseen = values.max(axis=-1) == values.min(axis=-1)
    for weight, shares in terms:
        least, most = shares.min(axis=-1), shares.max(axis=-1)
        all_right, all_wrong = least == 1, most == 0
        unseen |= all_right | all_wrong
        ends = weight * np.where(all_right, 0.0, least), weight * np.where(all_wrong, 1.0, most)
        low, high = low + np.minimum(*ends), high + np.maximum(*ends)
    largest = np.abs(values).max(axis=-1)
    low = np.where(unseen, low, np.minimum(values.min(axis=-1), np.maximum(low, -largest)))
    return low, np.where(unseen, high, np.maximum(values.max(axis=-1), np.minimum(high, largest)))


def _edge(low: float, high: float, before: Callable[[float], bool]) -> float:
    """The point between low and high at which `before` turns from true to false, by bisection."""
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return (low + high) / 2
