"""Half-life of forgetting: how fast what is found above the floor fades with the distance in tokens.

    p(d) = floor + a * 2 ** (-d / h),   0 < a <= 1 - floor

h on a log grid, a by least squares; the interval is a cluster bootstrap over samples. The floor is that of the reach: chance
for look-up tasks, else zero. A half-life is given only where a reach is, within the distances tested, and where an
exponential describes the curve: a window that ends sharply, or accuracy that stays up and then falls, has none, and the
misfit (chi-square over the bins of distance) says so.
"""

import math
from dataclasses import dataclass

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey
from lcprobe.analysis.findings.reach import RESAMPLES, DistanceBin, Reach, distance_sums, floor_of
from lcprobe.analysis.stats.intervals import percentile_bounds, resampled

PER_OCTAVE = 32
MISFIT_Z = 3.0902
"""One-sided normal quantile of .001: how much misfit is taken for another shape."""


@dataclass(frozen=True)
class HalfLife:
    """Half-life of one model, task and format, in tokens, with its 95 % interval; refused: why there is none.

    top: accuracy at no distance, by the fit. high: None for beyond twice the longest distance tested.
    """

    where: PanelKey
    tokens: float | None = None
    low: float | None = None
    high: float | None = None
    top: float | None = None
    refused: str | None = None

    def __str__(self) -> str:
        if self.refused is not None or self.tokens is None or self.low is None:
            return self.refused or ""
        high = f"{self.high:.0f}" if self.high is not None else "beyond the distances tested"
        return f"{self.tokens:.0f} tokens ({self.low:.0f}–{high})"


def half_lives(data: Measured, reaches: list[Reach]) -> list[HalfLife]:
    """For every reach, in their order."""
    return [_half_life(data, reach) for reach in reaches]


def fit(
    distance: np.ndarray, hits: np.ndarray, trials: np.ndarray, floor: float
) -> tuple[float, float, float, float]:
    """(half-life, low, high, a). distance: (n_distances,) ascending, > 0; hits, trials: (n_samples, n_distances)."""
    k, t = (np.concatenate([x.sum(axis=0, keepdims=True), resampled(x, RESAMPLES)]) for x in (hits, trials))
    shortest, longest = distance[0] / 4, 4 * distance[-1]
    h = np.geomspace(shortest, longest, PER_OCTAVE * max(1, round(math.log2(longest / shortest))))
    g = 2.0 ** (-distance[:, None] / h)
    above, squares = (k - floor * t) @ g, t @ (g * g)
    a = np.clip(above / np.maximum(squares, 1e-12), 0, 1 - floor)
    best = (2 * a * above - a * a * squares).argmax(axis=1)
    found = np.where(h[best] > 2 * distance[-1], np.inf, h[best])
    low, high = percentile_bounds(found[1:], len(hits))
    half_step = 2 ** (0.5 / PER_OCTAVE)  # between places of the grid nothing is told apart
    return float(found[0]), low / half_step, high * half_step, float(a[0, best[0]])


def misfit(bins: tuple[DistanceBin, ...], distance: np.ndarray, trials: np.ndarray, expected: np.ndarray) -> float:
    """How far bins lie from a curve: the normal score of the chi-square (Wilson & Hilferty 1931), two parameters fitted.

    trials, expected: (n_distances,) counts and probabilities.
    """
    total, used = 0.0, 0
    for one in bins:
        inside = (distance >= one.low - 0.5) & (distance <= one.high + 0.5)
        n = trials[inside].sum()
        if n < 1:
            continue
        p = float((trials[inside] * expected[inside]).sum() / n)
        variance = max(p * (1 - p), 1 / (4 * one.estimate.n)) / one.estimate.n
        total, used = total + (one.estimate.value - p) ** 2 / variance, used + 1
    df = max(1, used - 2)
    return ((total / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))


def _half_life(data: Measured, reach: Reach) -> HalfLife:
    if reach.refused is not None:
        return HalfLife(reach.where, refused=reach.refused)
    if reach.tokens is None:
        return HalfLife(reach.where, refused=str(reach))
    panel = data.panels[reach.where]
    distance, hits, trials = distance_sums(panel)
    floor = floor_of(data, reach.where)
    tokens, low, high, a = fit(distance, hits, trials, floor)
    if math.isinf(tokens):
        return HalfLife(reach.where, refused="beyond twice the longest distance tested")
    expected = floor + a * 2.0 ** (-distance / tokens)
    if misfit(reach.bins, distance, trials.sum(axis=0), expected) > MISFIT_Z:
        return HalfLife(reach.where, refused="none: the fall is not exponential")
    return HalfLife(reach.where, tokens, low, None if math.isinf(high) else high, floor + a)
