"""Wilson's interval for proportions, of independent trials and of trials in clusters.

Sources: Wilson 1927; Brown, Cai & DasGupta 2001 (why Wilson and not p +- 2 standard errors); Korn & Graubard 1998
(clusters). Differences and ratios have their own intervals in `differences`.
"""

import numpy as np
from numpy.typing import ArrayLike

from lcprobe.analysis.stats.effective_samples import effective_sample_size
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
    half = z / (1 + z * z / safe) * np.sqrt(p * (1 - p) / safe + z * z / (4 * safe * safe))
    low = np.where((n > 0) & (k > 0), np.clip(centre - half, 0, 1), 0.0)
    high = np.where((n > 0) & (k < n), np.clip(centre + half, 0, 1), 1.0)
    return low, high


def clustered_wilson(hits: ArrayLike, trials: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's bounds at the effective sample size; plain Wilson where each cluster is one trial.

    hits, trials: (..., n_clusters) -> two arrays (...,).
    """
    n, n_eff = np.sum(trials, axis=-1), effective_sample_size(hits, trials)
    return wilson(np.sum(hits, axis=-1) / np.maximum(n, 1) * n_eff, n_eff)
