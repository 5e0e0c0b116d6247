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


def least_p(mean: ArrayLike, lowest: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Smallest two-sided p that n values of this mean can have against a mean of zero or less, whatever their
    distribution over values from `lowest` on. -> (...,).

    By Markov's inequality a value is at least `mean` with probability -lowest / (mean - lowest) or less where the
    true mean is not above zero, and a distribution of two values has this probability: so n values that all equal
    `mean` have this p, and others no smaller one. A mean that is not above zero has 1.
    """
    mean, lowest = np.asarray(mean, float), np.minimum(np.asarray(lowest, float), 0.0)
    above = mean > 0
    chance = -lowest / np.where(above, mean - lowest, 1.0)
    return np.where(above, np.minimum(1.0, 2 * chance ** np.asarray(n)), 1.0)


def mean_bounds(
    values: np.ndarray, support: tuple[np.ndarray, np.ndarray], limits: tuple[ArrayLike, ArrayLike]
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds of the mean of (..., n) values -> two arrays (...,).

    support: smallest and largest value to which a hypothesis may move weight, (...,) each. limits: of every value,
    one for all or (...,).
    """
    critical, mean = critical_value(values.shape[-1]), values.mean(axis=-1)
    # the lower bound is the upper one of the opposite values, with its sign changed
    both, edges = np.stack([values, -values]), np.stack([support[1], -support[0]])
    most = np.stack([np.broadcast_to(edge, mean.shape) for edge in (limits[1], np.negative(limits[0]))])
    upper, lower = upper_bound(both, 1.0, edges, critical, (np.stack([mean, -mean]), most))
    return -lower, upper


def mean_p(values: np.ndarray, support: tuple[ArrayLike, ArrayLike]) -> np.ndarray:
    """Two-sided p that the mean of (..., n) values is zero: below .05 if and only if `mean_bounds` exclude zero. ->
    (...,). support: as there."""
    n, total = values.shape[-1], values.sum(axis=-1)
    low_end, high_end = (np.broadcast_to(np.asarray(end, float), total.shape) for end in support)
    tested = np.abs(total) >= 1e-12 * n if n > 1 else np.zeros(total.shape, bool)
    down = total < 0  # the test of the opposite values is the same
    values, total = np.where(down[..., None], -values, values), np.abs(total)
    lowest = np.minimum(values.min(axis=-1), np.where(down, -high_end, low_end))
    possible = tested & (lowest < 0)
    low, high = np.zeros(total.shape), -1 / np.where(possible, lowest, -1.0)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(MULTIPLIER_STEPS):
            t = (low + high) / 2
            share = 1 + t[..., None] * values
            larger = (share.min(axis=-1) > 0) & ((values / share).sum(axis=-1) > 0)
            low, high = np.where(larger, t, low), np.where(larger, high, t)
    statistics = np.sqrt(low * total)
    p = [
        (two_sided_p(float(statistic), n - 1) if can else 0.0) if has else 1.0
        for statistic, can, has in zip(statistics.ravel(), possible.ravel(), tested.ravel(), strict=True)
    ]
    return np.array(p, float).reshape(total.shape)
