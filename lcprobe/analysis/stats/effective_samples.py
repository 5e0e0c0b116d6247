"""Effective sample size (n_eff) of successes that come in clusters.

A cluster is a sample (`index`): it has its own haystack window, key and value, and is queried again in every cell and
model. Sources: Korn & Graubard 1998, Survey Methodology 24 (effective sample size); Satterthwaite 1946 (degrees of
freedom).
"""

import numpy as np
from numpy.typing import ArrayLike

from lcprobe.analysis.stats.student_t import MAX_DF


def effective_sample_size(hits: ArrayLike, trials: ArrayLike) -> np.ndarray:
    """n_eff = trials / design effect. hits, trials: (..., n_clusters) -> (...,).

    Between `least_sample_size`, as if all trials of a cluster had one outcome, and the number of trials. It is the
    least where every trial has the same outcome, from which nothing can be learnt about the correlation in clusters.
    """
    hits, trials = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    n, clusters = trials.sum(axis=-1), (trials > 0).sum(axis=-1)
    p = hits.sum(axis=-1) / np.maximum(n, 1)
    squares = (hits - p[..., None] * trials) ** 2
    variance = clusters / np.maximum(clusters - 1, 1) * squares.sum(axis=-1) / np.maximum(n, 1) ** 2
    least = least_sample_size(trials)
    known = (0 < p) & (p < 1) & (clusters > 1)
    return np.where(known, np.clip(p * (1 - p) / np.maximum(variance, 1e-12), least, n), least)[()]


def least_sample_size(trials: ArrayLike) -> np.ndarray:
    """(sum m)^2 / sum m^2 for clusters of m trials, (..., n_clusters) -> (...,): the number of equal clusters.

    A cluster is never worth less than one trial.
    """
    trials = np.asarray(trials, float)
    return trials.sum(axis=-1) ** 2 / np.maximum((trials**2).sum(axis=-1), 1e-12)


def degrees_of_freedom(squares: np.ndarray, n: ArrayLike) -> np.ndarray:
    """Degrees of freedom of variances, 2 mean^2 / their own variance, between 2 and MAX_DF.

    squares: (..., n) squared deviations -> (...,). n may be less than the size of the last axis, where some entries
    are empty.
    """
    known = np.sum(squares**2, axis=-1) / np.maximum(squares.sum(axis=-1), 1e-12) ** 2 - 1 / np.maximum(n, 1)
    return np.where(known > 2 / MAX_DF, np.clip(np.rint(2 / np.maximum(known, 1e-12)), 2, MAX_DF), MAX_DF)
