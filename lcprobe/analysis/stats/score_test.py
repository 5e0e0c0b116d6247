"""The score test of a mean of bounded values, and the interval that it gives: one rule for shares and differences.

The test asks whether values have mean zero. The statistic is (mean / standard error), as Student's, but with the
variance that the hypothesis implies instead of the observed one: the values keep their places and their weights are
tilted until the mean is zero (the empirical likelihood of Owen 1988). A skewed distribution, and one of which one
side has hardly been seen, so gets the right variance on either side. With the multiplier t of that tilt,

    sum g / (1 + t g) = 0  (g: values),    statistic^2 = t sum g

Known tests are special cases: with values 0 and 1 the interval is Wilson's (1927), with values -1, 0 and 1 it is
Tango's (1998) and the test is McNemar's (1947). t and sum g grow with every value, and so does the statistic: one
value more, and no bound of the interval falls. (An interval of mean and observed variance lacks this: raising the
largest value widens it.)

A value may be possible that no sample had. `lowest` is the smallest one: the tilt may move weight to it, which bounds
t by -1 / lowest. Without it, values that are all equal would have an interval of width zero.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from lcprobe.analysis.stats.student_t import t975, two_sided_p

MAX_STEPS, TOLERANCE = 60, 1e-10
"""Of the search for a bound, which is a proportion or a difference."""
MULTIPLIER_STEPS = 44
"""Halvings of the range of t."""


def critical_value(n: ArrayLike) -> np.ndarray:
    """97.5 % quantile of Student's t for n values; infinite for one, which says nothing about its own variance."""
    n = np.asarray(n)
    return np.where(n > 1, t975(np.maximum(n - 1, 1)), np.inf)


def excess(values: np.ndarray, lowest: ArrayLike, critical: ArrayLike) -> np.ndarray:
    """Positive where the mean of (..., n) values is resolved above zero: the statistic exceeds `critical`. -> (...,).

    It is sum g / (1 + t g) at the t for which t sum g = critical^2: positive where the tilt to mean zero needs a
    larger t. -infinite where no tilt has that t, or the mean is not above zero.

    lowest: (...,) smallest value that a sample may have; infinite for none beyond the values.
    """
    total = values.sum(axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):  # of one value `critical` is infinite: nothing is resolved
        t = np.square(critical) / np.maximum(total, 1e-300)
        share = 1 + t[..., None] * values
        possible = (total > 0) & (share.min(axis=-1) > 0) & (t * lowest > -1)
        tilted = (values / np.where(possible[..., None], share, 1.0)).sum(axis=-1)
    return np.where(possible, tilted, -np.inf)


def upper_bound(
    totals: np.ndarray,
    sizes: ArrayLike,
    highest: ArrayLike,
    critical: ArrayLike,
    between: tuple[ArrayLike, ArrayLike],
) -> np.ndarray:
    """Largest mean that sum(totals) / sum(sizes) is not resolved below. (..., n) -> (...,).

    highest: (...,) largest total per size that a sample may have; -infinite for none beyond those there are. between:
    the smallest and largest result. The bound is found by the secant through both ends (Illinois), or by halving
    where the statistic has no value at one of them.
    """

    def at(mean: np.ndarray) -> np.ndarray:
        return excess(mean[..., None] * sizes - totals, mean - highest, critical)

    shape = totals.shape[:-1]
    low, high = (np.broadcast_to(np.asarray(edge, float), shape) for edge in between)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        at_low, at_high = at(low), at(high)
        found, bound, last = (at_low > 0) | (at_high <= 0), np.where(at_low > 0, low, high), np.zeros(shape)
        for _ in range(MAX_STEPS):
            if found.all():
                break
            secant = (low * at_high - high * at_low) / (at_high - at_low)
            middle = np.where((secant > low) & (secant < high), secant, (low + high) / 2)
            value, step = at(middle), np.abs(middle - bound)
            bound, found = np.where(found, bound, middle), found | (step < TOLERANCE) | (high - low < TOLERANCE)
            outside = value > 0
            at_low = np.where(outside, np.where(last > 0, at_low / 2, at_low), value)
            at_high = np.where(outside, value, np.where(last < 0, at_high / 2, at_high))
            low, high = np.where(outside, low, middle), np.where(outside, middle, high)
            last = np.where(outside, 1.0, -1.0)
    return bound


def mean_bounds(
    values: np.ndarray, support: tuple[np.ndarray, np.ndarray], limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of the mean of (..., n) values -> two arrays (...,).

    support: smallest and largest value to which a hypothesis may move weight, (...,) each. limits: of every value.
    """
    critical, mean = critical_value(values.shape[-1]), values.mean(axis=-1)
    # the lower bound is the upper one of the opposite values, with its sign changed
    both, edges = np.stack([values, -values]), np.stack([support[1], -support[0]])
    most = np.stack([np.full_like(mean, limits[1]), np.full_like(mean, -limits[0])])
    upper, lower = upper_bound(both, 1.0, edges, critical, (np.stack([mean, -mean]), most))
    return -lower, upper


def mean_p(values: np.ndarray, support: tuple[float, float]) -> float:
    """Two-sided p that (n,) values have mean zero: below .05 if and only if `mean_bounds` exclude zero."""
    n, total = len(values), float(values.sum())
    if n < 2 or abs(total) < 1e-12 * n:
        return 1.0
    if total < 0:
        values, support, total = -values, (-support[1], -support[0]), -total
    lowest = min(float(values.min()), support[0])
    if lowest >= 0:
        return 0.0
    low, high = 0.0, -1 / lowest
    for _ in range(MULTIPLIER_STEPS):
        t = (low + high) / 2
        share = 1 + t * values
        if share.min() > 0 and float((values / share).sum()) > 0:
            low = t
        else:
            high = t
    return two_sided_p(math.sqrt(low * total), n - 1)
