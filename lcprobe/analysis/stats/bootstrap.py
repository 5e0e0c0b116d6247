"""Cluster bootstrap: clusters are drawn with replacement, with the same draws for equally many clusters.

Source: Hesterberg 2015, arXiv 1411.5279 (expanded percentile interval). There is no generator state: equal names give
equal draws.
"""

import math
from functools import lru_cache

import numpy as np

from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.analysis.stats.intervals import Bounds
from lcprobe.analysis.stats.student_t import t_quantile
from lcprobe.seeds import Stream

DEFAULT_RESAMPLES = 2000


@lru_cache(maxsize=8)
def resample_weights(n: int, resamples: int = DEFAULT_RESAMPLES) -> np.ndarray:
    """(resamples, n) float32 counts of how often each of n clusters is drawn; equal n share their draws."""
    drawn = Stream("lcprobe", "cluster bootstrap", n).integers(n, resamples * n)
    flat = np.repeat(np.arange(resamples), n) * n + drawn
    weights = np.bincount(flat, minlength=resamples * n).reshape(resamples, n).astype(np.float32)
    weights.flags.writeable = False
    return weights


def resampled_sums(values: np.ndarray, resamples: int = DEFAULT_RESAMPLES) -> np.ndarray:
    """(resamples, ...) float64 sums of (n, ...) values over resampled clusters.

    The product is in single precision: counts below 2^24 are exact in it, and a mixed one would copy all weights each
    time.
    """
    return (resample_weights(len(values), resamples) @ values.astype(np.float32)).astype(np.float64)


def percentile_bounds(replicates: np.ndarray, n: int) -> Bounds:
    """95 % bounds from (resamples,) replicates of a statistic over n clusters.

    Percentiles are widened for small n (Hesterberg 2015, eq. 12: t instead of z and n/(n-1)), without which 20
    clusters cover 92 % instead of 95 %. Infinite replicates are allowed and give infinite bounds.
    """
    if n < 2:
        return -math.inf, math.inf
    tail = 0.5 * math.erfc(math.sqrt(n / (n - 1)) * t_quantile(0.975, n - 1) / math.sqrt(2))
    ranked = np.sort(replicates)
    last = len(ranked) - 1
    return float(ranked[math.floor(tail * last)]), float(ranked[math.ceil((1 - tail) * last)])


def bootstrap_mean(values: np.ndarray) -> Estimate | None:
    """Mean of (n_clusters,) values without those that are not finite; None if there are none left."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    n, mean = len(values), float(values.mean())
    deviations = values - mean  # sums are in single precision: resample what is small
    low, high = percentile_bounds(mean + resampled_sums(deviations) / n, n)
    return Estimate(mean, low, high, n)
