"""Interval and p-value of the difference between two groups of training seeds.

Welch 1947, with one prior fact: seeds vary at least as much as the trials of one seed do by themselves. Equal results
of few seeds are luck, not a variance of zero. That least variance is no measurement of how much seeds vary, and adds
no degrees of freedom: with a normal quantile where two seeds agree by luck, one comparison in forty of models that
have seed noise would have a p of next to nothing.
"""

import math
from collections.abc import Sequence

import numpy as np

from lcprobe.analysis.stats.intervals import Bounds
from lcprobe.analysis.stats.student_t import Z95, t975, two_sided_p


def welch_bounds(a: Sequence[float], b: Sequence[float], n_eff_a: float, n_eff_b: float) -> Bounds:
    """95 % bounds of mean(a) - mean(b) for two groups of at least two training seeds each: one proportion per seed.

    n_eff_a, n_eff_b: effective sample size of one seed; infinite where a value is no proportion.
    """
    low, high = welch_bounds_of(np.asarray(a, float), np.asarray(b, float), n_eff_a, n_eff_b)
    return float(low), float(high)


def welch_p(a: Sequence[float], b: Sequence[float], n_eff_a: float, n_eff_b: float) -> float:
    """Two-sided p that both groups have one mean: below .05 if and only if `welch_bounds` exclude zero."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    difference = float(x.mean() - y.mean())
    total, df = (float(v) for v in _variance(x, y, n_eff_a, n_eff_b))
    if total <= 0:  # the interval is a point
        return float(difference == 0)
    return two_sided_p(difference / math.sqrt(total), df)


def welch_bounds_of(a: np.ndarray, b: np.ndarray, n_eff_a: float, n_eff_b: float) -> tuple[np.ndarray, np.ndarray]:
    """The same for many pairs of groups: (..., n_seeds) each -> two arrays (...,)."""
    total, df = _variance(a, b, n_eff_a, n_eff_b)
    half = np.where(total > 0, t975(np.where(total > 0, df, 1.0)) * np.sqrt(total), 0.0)
    mean = a.mean(axis=-1) - b.mean(axis=-1)
    return mean - half, mean + half


def _variance(a: np.ndarray, b: np.ndarray, n_eff_a: float, n_eff_b: float) -> tuple[np.ndarray, np.ndarray]:
    """Variance of mean(a) - mean(b), and its degrees of freedom (Satterthwaite 1946)."""
    total, uncertainty = 0.0, 0.0
    for x, n_eff in ((a, n_eff_a), (b, n_eff_b)):
        seeds = x.shape[-1]
        add = Z95**2 / (2 * n_eff * seeds)  # as Wilson's centre: n of n right does not mean that p is 1
        p = (x.mean(axis=-1) + add) / (1 + 2 * add)
        observed = x.var(axis=-1, ddof=1) / seeds
        variance = np.maximum(observed, p * (1 - p) / n_eff / seeds)
        total, uncertainty = total + variance, uncertainty + variance**2 / (seeds - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total), np.where(uncertainty > 0, np.asarray(total) ** 2 / uncertainty, np.inf)
