"""Effective sample size of successes that come in clusters.

A cluster is a sample (`index`): it has its own haystack window, key and value, and is queried again in every cell and
model. Sources: Korn & Graubard 1998, Survey Methodology 24 (effective sample size); Satterthwaite 1946 (degrees of
freedom).
"""

import numpy as np
from numpy.typing import ArrayLike

from lcprobe.analysis.stats.student_t import MAX_DF, Z95, t975


def effective_sample_size(hits: ArrayLike, trials: ArrayLike) -> np.ndarray:
    """n_eff = trials / design effect, never more than the trials. hits, trials: (..., n_clusters) -> (...,).

    The design effect is itself an estimate, and a poor one where few clusters make up the variance (proportions near
    0 or 1): it tends to be too low when the proportion is, so that the interval misses. Student's t with the degrees
    of freedom of that variance (from the kurtosis of the clusters) in place of z compensates for it. Where every
    trial has the same outcome nothing can be learnt about the correlation inside clusters, and n_eff is the number of
    clusters.
    """
    hits, trials = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    n, clusters = trials.sum(axis=-1), (trials > 0).sum(axis=-1)
    p = hits.sum(axis=-1) / np.maximum(n, 1)
    squares = (hits - p[..., None] * trials) ** 2
    variance = clusters / np.maximum(clusters - 1, 1) * squares.sum(axis=-1) / np.maximum(n, 1) ** 2
    n_eff = n / np.maximum(1.0, variance * n / np.maximum(p * (1 - p), 1e-12))
    n_eff = n_eff * (Z95 / t975(degrees_of_freedom(squares, clusters))) ** 2
    same = (p == 0) | (p == 1) | (clusters == 1)
    independent = (clusters == 0) | (trials.max(axis=-1) <= 1)
    return np.where(independent, n, np.where(same, clusters, n_eff))[()]


def degrees_of_freedom(squares: np.ndarray, n: ArrayLike) -> np.ndarray:
    """Degrees of freedom of variances, 2 mean^2 / their own variance, between 2 and MAX_DF.

    squares: (..., n) squared deviations -> (...,). n may be less than the size of the last axis, where some entries
    are empty.
    """
    known = np.sum(squares**2, axis=-1) / np.maximum(squares.sum(axis=-1), 1e-12) ** 2 - 1 / np.maximum(n, 1)
    return np.where(known > 2 / MAX_DF, np.clip(np.rint(2 / np.maximum(known, 1e-12)), 2, MAX_DF), MAX_DF)
