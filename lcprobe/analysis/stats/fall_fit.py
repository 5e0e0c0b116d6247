"""Fit of a fall of accuracy with distance, by least squares with a cluster bootstrap.

    p(d) = b + c / (1 + (d / r) ** s),  c > 0,  r on a log grid, s from gentle to a step, b and c by least squares

The fall is where p is half-way from its value at the shortest distance down to the floor. A step is the change-point
fit, so that a hard window is recovered as exactly as the tested distances allow; distances between two neighbouring
cells cannot be distinguished, and the interval never claims so.
"""

import math
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.stats.bootstrap import percentile_bounds, resampled_sums

STEEPNESS = (1.0, 2.0, 3.0, 5.0, 10.0, 200.0)
FALL_STEPS_PER_OCTAVE = 16
FIT_RESAMPLES = 1000
"""Bootstrap replicates of a fit over distance."""
NEAREST_TRIALS = 0.05
"""The fall is beyond this proportion of the trials: a handful at the very shortest distance is no level to fall
from."""
REPLICATES_AT_ONCE = 64
"""Replicates fitted at a time, so that their arrays fit into a cache."""
Curve = tuple[tuple[float, float], ...]
"""Points (distance, probability)."""


class Fall(NamedTuple):
    """The distance of a fall with its 95 % bounds and the fitted curve.

    distance, high: None for beyond the longest distance. low: None where the lower bound is beyond it, too. between:
    the distances of the neighbouring cells on both sides.
    """

    distance: float | None
    low: float | None
    high: float | None
    between: tuple[int, int] | None
    curve: Curve


def fit_fall(distance: np.ndarray, hits: np.ndarray, trials: np.ndarray, floor: float, cells: np.ndarray) -> Fall:
    """Fit a fall to the accuracy of samples over distances, and resample the samples for its interval.

    distance: (n_distances,) ascending, > 0. hits, trials: (n_samples, n_distances). cells: typical distances of the
    grid.
    """
    n = len(hits)
    k, m = (np.concatenate([x.sum(axis=0, keepdims=True), resampled_sums(x, FIT_RESAMPLES)]) for x in (hits, trials))
    falls, shape = falls_of(distance, k, m, floor)
    point, replicates = falls[0], falls[1:]
    low, high = percentile_bounds(replicates, n)
    curve = _curve(distance, shape)
    below, above = cells[cells <= point], cells[cells > point]
    left = float(below[-1] if len(below) else distance[0])
    right = float(above[0] if len(above) else distance[-1])
    if math.isinf(point) or math.isinf(high):  # the samples are compatible with no fall at all
        low = low if math.isinf(point) else min(low, left)
        return Fall(None, None if math.isinf(low) else low, None, None, curve)
    return Fall(point, min(low, left), max(high, right), (round(left), round(right)), curve)


def falls_of(
    distance: np.ndarray, hits: np.ndarray, trials: np.ndarray, floor: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """(n_replicates,) distances of the fall, infinite where there is none; and (b, c, r, s) of the first replicate.

    hits, trials: (n_replicates, n_distances) sums.
    """
    cumulative = np.cumsum(trials[0]) / trials[0].sum()
    nearest, farthest = distance[np.searchsorted(cumulative, NEAREST_TRIALS)], distance[-1] * 2
    steps = FALL_STEPS_PER_OCTAVE * max(1, round(math.log2(farthest / nearest)))
    r, s = (x.ravel() for x in np.meshgrid(np.geomspace(nearest, farthest, steps), STEEPNESS, indexing="ij"))
    with np.errstate(over="ignore"):
        g = 1 / (1 + (distance[:, None] / r) ** s)  # (n_distances, n_shapes)
    parts = [slice(first, first + REPLICATES_AT_ONCE) for first in range(0, len(hits), REPLICATES_AT_ONCE)]
    b, c, r, s = np.concatenate([_best_shapes(hits[rows], trials[rows], g, r, s) for rows in parts], axis=1)
    with np.errstate(over="ignore"):
        level = b + c / (1 + (distance[0] / r) ** s)
    share = (floor + (level - floor) / 2 - b) / np.where(c > 0, c, 1)
    falls = (c > 0) & (share > 0) & (share < 1) & (level > floor)
    d = r * (1 / np.where(falls, share, 0.5) - 1) ** (1 / s)
    return np.where(falls & (d <= distance[-1]), d, np.inf), (float(b[0]), float(c[0]), float(r[0]), float(s[0]))


def _best_shapes(hits: np.ndarray, trials: np.ndarray, g: np.ndarray, r: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(4, n_replicates) b, c, r, s of the best shapes; c is 0 where none falls.

    g: (n_distances, n_shapes); r, s: (n_shapes,).
    """
    t0, k0 = trials.sum(axis=1, keepdims=True), hits.sum(axis=1, keepdims=True)
    t1, t2, k1 = trials @ g, trials @ (g * g), hits @ g
    spread, c = t2 - t1 * t1 / t0, k1 - k0 * t1 / t0
    c = np.where(spread > 1e-9 * t0, c / np.maximum(spread, 1e-9), 0.0)
    b = (k0 - c * t1) / t0
    negative = b < 0  # no accuracy below zero: refit without the constant
    b, c = np.where(negative, 0.0, b), np.where(negative, k1 / np.maximum(t2, 1e-9), c)
    gain = np.where(c > 0, b * k0 + c * k1, -np.inf)  # reduction of the squared error, at its own b and c
    best, row = gain.argmax(axis=1), np.arange(len(gain))
    # a step anywhere between two tested distances fits equally well: take the middle of the tie
    same = (gain >= gain[row, best][:, None] - 1e-6 * t0) & (s == s[best][:, None])
    middle = np.exp((same @ np.log(r)) / same.sum(axis=1))
    return np.stack([b[row, best], np.where(np.isfinite(gain[row, best]), c[row, best], 0.0), middle, s[best]])


def _curve(distance: np.ndarray, shape: tuple[float, float, float, float]) -> Curve:
    b, c, r, s = shape
    at = np.geomspace(distance[0], distance[-1], 120)
    with np.errstate(over="ignore"):
        return tuple(zip(at.tolist(), (b + c / (1 + (at / r) ** s)).tolist(), strict=True))
