"""Differences and ratios of shares of the same samples, and weighted contrasts of any number of them.

All are one test: `score_test` of one value per sample, the weighted sum of the sample's shares. For two shares of one
trial per sample it is McNemar's test and Tango's interval (1998); several trials per sample come in clusters, and
the two sides may be clustered unequally. p < .05 if and only if the interval excludes zero. Ratios are Fieller's set
(1954) under the same test. validation/coverage.py measures all.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lcprobe.analysis.stats.intervals import Bounds
from lcprobe.analysis.stats.score_test import critical_value, excess, mean_bounds, mean_p
from lcprobe.analysis.stats.student_t import t_quantile

MAX_RATIO = 1e4
"""A ratio that may be larger is reported without an upper bound."""
BISECTION_STEPS = 28
"""Halvings of the range of a ratio's bound: to a hundred millionth of it."""
Terms = Sequence[tuple[ArrayLike, np.ndarray]]
"""Terms of a weighted sum: weight, one for all or (...,), and (..., n_samples) shares in 0 .. 1 of the same
samples."""


def difference_bounds(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of mean(first) - mean(second); both (..., n_samples) in 0 .. 1 -> two arrays (...,)."""
    return contrast_bounds([(1.0, first), (-1.0, second)])


def contrast_bounds(terms: Terms, constant: ArrayLike = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of constant + sum(weight x mean of shares) -> two arrays (...,); the whole range for one sample."""
    low = np.asarray(constant) + sum(np.minimum(weight, 0.0) for weight, _ in terms)
    high = np.asarray(constant) + sum(np.maximum(weight, 0.0) for weight, _ in terms)
    values = contrast_values(terms, constant)
    return mean_bounds(values, _support(terms, constant, values), (low, high))


def contrast_p(terms: Terms, constant: ArrayLike = 0.0) -> np.ndarray:
    """Two-sided p that constant + sum(weight x mean of shares) is zero -> (...,)."""
    values = contrast_values(terms, constant)
    return mean_p(values, _support(terms, constant, values))


def contrast_side(terms: Terms, at: ArrayLike = 0.0, level: float = 0.05) -> np.ndarray:
    """Side of the interval of sum(weight x mean of shares) on which `at`, one for all or (...,), is: -1 below, 0
    inside, 1 above (...,)."""
    values, at = contrast_values(terms), np.asarray(at)
    low, high = _support(terms, 0.0, values)
    n = values.shape[-1]
    critical = critical_value(n) if level == 0.05 else t_quantile(1 - level / 2, n - 1)
    centred = values - at[..., None]
    below, above = excess(centred, low - at, critical) > 0, excess(-centred, at - high, critical) > 0
    return np.where(below, -1, np.where(above, 1, 0))


def mean_bounds_at(shares: np.ndarray, level: float) -> Bounds:
    """Bounds of the mean of (n_samples,) shares that exclude what `contrast_p` < level excludes; 0 and 1 for one."""
    if len(shares) < 2:
        return 0.0, 1.0

    def side(at: ArrayLike) -> np.ndarray:
        return contrast_side([(1.0, shares)], at, level)

    zero, value, one = np.array(0.0), shares.mean(axis=-1), np.array(1.0)
    low = 0.0 if side(0.0) == 0 else float(_edge(zero, value, lambda at: side(at) < 0))
    return low, 1.0 if side(1.0) == 0 else float(_edge(value, one, lambda at: side(at) <= 0))


def contrast_values(terms: Terms, constant: ArrayLike = 0.0) -> np.ndarray:
    """(..., n_samples) weighted sum of every sample."""
    weighted = sum(np.asarray(weight)[..., None] * shares for weight, shares in terms)
    return np.asarray(np.asarray(constant)[..., None] + weighted, float)


def ratio_bounds(top: np.ndarray, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of mean(top) / mean(bottom); both (..., n_samples) shares in 0 .. 1 -> two arrays (...,).

    Fieller's set: every r for which top - r x bottom may have mean zero. So it contains 1 if and only if the interval
    of the difference contains 0, and the two never contradict each other. Unbounded above when the bottom may be
    zero.
    """

    def side(r: np.ndarray) -> np.ndarray:
        return ratio_side(top, bottom, r)

    known = bottom.any(axis=-1)
    value = np.where(known, top.mean(axis=-1) / np.where(known, bottom.mean(axis=-1), 1.0), 0.0)
    zero, above = np.zeros(value.shape), np.maximum(2.0, 2 * value)
    while (higher := (side(above) == 0) & (above < MAX_RATIO)).any():
        above = np.where(higher, 2 * above, above)
    low = np.where(known & (side(zero) != 0), _edge(zero, value, lambda r: side(r) < 0), 0.0)
    high = _edge(value, above, lambda r: side(r) <= 0)
    return low, np.where(known & (above < MAX_RATIO), high, math.inf)


def ratio_side(top: np.ndarray, bottom: np.ndarray, r: ArrayLike) -> np.ndarray:
    """Side of the interval of mean(top) / mean(bottom) on which r is: -1 below, 0 inside, 1 above.

    top, bottom: (..., n_samples); r: one for all or (...,) -> (...,).
    """
    return contrast_side([(1.0, top), (np.negative(r), bottom)])


def _support(terms: Terms, constant: ArrayLike, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value that a sample that was not drawn may have, (...,) each.

    Not beyond what the shares that were seen combine to, where a side on which all samples are right, or all wrong,
    has not shown its other end: it may be anywhere. And not beyond the largest value of any sending, up or down: the
    same samples hardly ever change by all that two sides together allow. Where a side has not shown its other end, or
    all values are equal, nothing is known about that.
    """
    low = high = np.broadcast_to(constant, values.shape[:-1])
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


def _edge(low: np.ndarray, high: np.ndarray, before: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The points between low and high (...,) at which `before` turns from true to false, by bisection."""
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        still = before(middle)
        low, high = np.where(still, middle, low), np.where(still, high, middle)
    return (low + high) / 2
