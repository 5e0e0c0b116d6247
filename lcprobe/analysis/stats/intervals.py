"""Wilson's interval for proportions, of independent trials, of trials in clusters, and of a mean over cells; and the
interval of a sum or difference of estimates from different samples.

Sources: Wilson 1927; Brown, Cai & DasGupta 2001 (why Wilson and not p +- 2 standard errors); Korn & Graubard 1998
(clusters); Newcombe 1998 (differences). Our own cells share their samples and are compared in pairs (`differences`);
a published percentage has other samples, and the two sides are independent.

All are monotone: a miss that becomes a hit lowers no bound. validation/coverage.py measures the coverage.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lcprobe.analysis.stats.effective_samples import least_sample_size
from lcprobe.analysis.stats.score_test import critical_value, upper_bound
from lcprobe.analysis.stats.student_t import Z95

SAMPLES_FOR_NOMINAL_COVERAGE = 250
"""From so many samples on, the 95 % interval of one cell covers 93 to 97 % at every proportion from .02 to .98
(validation/coverage.py)."""
Bounds = tuple[float, float]


def wilson(k: ArrayLike, n: ArrayLike, z: float = Z95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound for k successes in n trials, arrays or numbers; n may be an n_eff.

    0 of n has a lower bound of exactly 0, n of n an upper bound of exactly 1, 0 of 0 gives 0 .. 1.
    """
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    safe = np.where(n > 0, n, 1.0)
    p = k / safe
    centre = (p + z * z / (2 * safe)) / (1 + z * z / safe)
    half = z / (1 + z * z / safe) * np.sqrt(np.maximum(p * (1 - p), 0) / safe + z * z / (4 * safe * safe))
    low = np.where((n > 0) & (k > 0), np.clip(centre - half, 0, 1), 0.0)
    high = np.where((n > 0) & (k < n), np.clip(centre + half, 0, 1), 1.0)
    return low, high


def clustered_wilson(hits: ArrayLike, trials: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of a proportion whose trials come in clusters. hits, trials: (..., n_clusters) -> two arrays (...,).

    The score interval of the clusters' totals (`score_test`), which is Wilson's at some effective sample size, kept
    between two that are Wilson's: not wider than if all trials of a cluster had one outcome (`least_sample_size`),
    and not narrower than if all were independent. Nor does it say more than where every trial has the same outcome:
    the correlation in clusters is unknown there, and one miss more is no better evidence of a high proportion. Where
    each cluster is one trial it is Wilson's.
    """
    hits, trials = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    k, n = hits.sum(axis=-1), trials.sum(axis=-1)
    if np.all(trials <= 1):
        return wilson(k, n)
    least = least_sample_size(trials)
    low, high = wilson(np.stack([k / np.maximum(n, 1) * least, k]), np.stack([least, n]))
    same = Z95**2 / (least + Z95**2)  # where every trial has the same outcome
    # the lower bound of hits is one minus the upper bound of misses
    widest, narrowest = np.stack([1 - low[0], high[0]]), np.stack([1 - low[1], high[1]])
    narrowest = np.minimum(np.maximum(narrowest, same), widest)
    totals, critical = np.stack([trials - hits, hits]), critical_value((trials > 0).sum(axis=-1))
    bound = upper_bound(totals, trials, -np.inf, critical, (narrowest, widest))
    return 1 - bound[0], bound[1]


def mean_of_cells(hits: ArrayLike, trials: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the proportion of all trials of several cells with the same clusters.

    hits, trials: (..., n_cells, n_clusters) -> two arrays (...,).

    Those of the clusters' sums over cells, or the mean of the cells' own bounds (weighted by trials), where that is
    narrower: a mean is not wider than the widest of its cells, however different these are and however they are
    correlated.
    """
    hits, trials = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    low, high = clustered_wilson(hits.sum(axis=-2), trials.sum(axis=-2))
    weights = trials.sum(axis=-1) / np.maximum(trials.sum(axis=(-2, -1)), 1)[..., None]
    lows, highs = clustered_wilson(hits, trials)
    return np.maximum(low, (weights * lows).sum(axis=-1)), np.minimum(high, (weights * highs).sum(axis=-1))


class Part(NamedTuple):
    """A term of a weighted sum: its weight, and a value with its 95 % bounds."""

    weight: float
    value: float
    low: float
    high: float


def proportion_part(weight: float, k: float, n: float) -> Part:
    """A proportion k of n (an effective sample size too) with Wilson's bounds."""
    low, high = wilson(k, n)
    return Part(weight, k / n, float(low), float(high))


def sum_bounds(parts: Sequence[Part]) -> Bounds:
    """95 % bounds of sum(weight x value) of independent estimates, from the bounds of each.

    Squares of the distances to the bounds that count are added (Zou & Donner 2008). For the difference of two
    proportions with Wilson's bounds it is Newcombe's hybrid score interval (1998, method 10).
    """
    centre = sum(part.weight * part.value for part in parts)
    down = math.hypot(*(p.weight * (p.value - (p.low if p.weight > 0 else p.high)) for p in parts))
    up = math.hypot(*(p.weight * ((p.high if p.weight > 0 else p.low) - p.value) for p in parts))
    return centre - down, centre + up


def two_proportions_p(k1: float, n1: float, k2: float, n2: float) -> float:
    """Two-sided p of the z test that k1 of n1 and k2 of n2 have one probability, with the pooled variance."""
    pooled = (k1 + k2) / (n1 + n2)
    variance = pooled * (1 - pooled) * (1 / n1 + 1 / n2)
    return 1.0 if variance == 0 else math.erfc(abs(k1 / n1 - k2 / n2) / math.sqrt(2 * variance))
