"""Fit of an exponential decay of accuracy with distance, by least squares with a cluster bootstrap.

p(d) = floor + a * 2 ** (-d / h),   0 < a <= 1 - floor,   h on a log grid
"""

import math
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.stats.bootstrap import percentile_bounds, resampled_sums
from lcprobe.analysis.stats.fall_fit import FIT_RESAMPLES

DECAY_STEPS_PER_OCTAVE = 32


class Decay(NamedTuple):
    """Half-life with its 95 % bounds, infinite beyond twice the longest distance, and the amplitude a."""

    half_life: float
    low: float
    high: float
    amplitude: float


def fit_decay(distance: np.ndarray, hits: np.ndarray, trials: np.ndarray, floor: float) -> Decay:
    """Fit an exponential decay. distance: (n_distances,) ascending, > 0; hits, trials: (n_samples, n_distances)."""
    k, t = (np.concatenate([x.sum(axis=0, keepdims=True), resampled_sums(x, FIT_RESAMPLES)]) for x in (hits, trials))
    shortest, longest = distance[0] / 4, 4 * distance[-1]
    h = np.geomspace(shortest, longest, DECAY_STEPS_PER_OCTAVE * max(1, round(math.log2(longest / shortest))))
    g = 2.0 ** (-distance[:, None] / h)
    above, squares = (k - floor * t) @ g, t @ (g * g)
    a = np.clip(above / np.maximum(squares, 1e-12), 0, 1 - floor)
    best = (2 * a * above - a * a * squares).argmax(axis=1)
    half_life = np.where(h[best] > 2 * distance[-1], np.inf, h[best])
    low, high = percentile_bounds(half_life[1:], len(hits))
    half_step = 2 ** (0.5 / DECAY_STEPS_PER_OCTAVE)  # points between two steps of the grid cannot be distinguished
    return Decay(float(half_life[0]), low / half_step, high * half_step, float(a[0, best[0]]))
