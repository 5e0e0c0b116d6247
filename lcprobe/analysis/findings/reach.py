"""Accuracy against the distance in tokens from value to answer, over all lengths and depths, and the effective reach.

Where reach is what limits a model, depth curves at several lengths collapse onto this one: RecurrentGemma's published curve
is that of its 2048-token window (51.6 / 25.4 / 12.6 % at 4K / 8K / 16K), not of its recurrence. The fit is

    p(d) = b + c / (1 + (d / r) ** s),  c > 0,  r on a log grid, s from gentle to a step, b and c by least squares

and the reach is where p has come half of the way from its value at the shortest tested distance down to the floor: the
chance level of look-up tasks, else zero. A step is the change-point fit, so a hard window is recovered as exactly as the
tested distances allow; what lies between two neighbouring cells cannot be told apart, and the interval never claims so.
No reach is given where distance is not what matters: where needles within reach are lost at lengths past the base (a model
that breaks beyond its training length), or found again beyond it (a model that is lost in the middle).
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from lcprobe.analysis.findings.cells import Estimate, Measured, Panel, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import base_length
from lcprobe.analysis.stats.intervals import clustered_wilson, percentile_bounds, resampled, wilson

STEEPNESS = (1.0, 2.0, 3.0, 5.0, 10.0, 200.0)
PER_OCTAVE = 16
RESAMPLES = 1000
SHORT = 0.05
"""The fall lies beyond this share of the trials: a handful at the very shortest distance is no level to fall from."""
LEAST_LEVEL = 0.1
"""A fall is looked for only where accuracy at the shortest distances is surely a tenth of the way from the floor to 1."""
BLOCK = 64
"""Replicates fitted at a time: their arrays fit into a cache."""
FEWEST = 10
"""Trials that a bin of the curve needs; smaller bins join their neighbour."""


@dataclass(frozen=True)
class DistanceBin:
    """Trials with a distance in [low, high]; distance: their median."""

    low: int
    high: int
    distance: float
    estimate: Estimate


@dataclass(frozen=True)
class Reach:
    """Effective reach of one model, task and format, in tokens.

    tokens, high: None for "beyond the longest distance tested" (`longest`), which is said where the samples allow that there is
    no fall; low: its 95 % lower bound then, None where that is beyond, too. between: the distances of the neighbouring
    cells on both sides of the fall. refused: why there is no reach.
    """

    where: PanelKey
    bins: tuple[DistanceBin, ...]
    longest: int
    tokens: float | None = None
    low: float | None = None
    high: float | None = None
    between: tuple[int, int] | None = None
    curve: tuple[tuple[float, float], ...] = ()
    refused: str | None = None

    def __str__(self) -> str:
        if self.refused is not None:
            return self.refused
        beyond = f"beyond the longest distance tested ({self.longest} tokens)"
        if self.tokens is None:
            return beyond if self.low is None else f"{beyond}; 95 % lower bound {self.low:.0f}"
        between = f", the fall lies between cells at {self.between[0]} and {self.between[1]}" if self.between else ""
        return f"{self.tokens:.0f} tokens ({self.low:.0f}–{self.high:.0f}{between})"


def reaches(data: Measured) -> list[Reach]:
    """For every model, task and format."""
    return [
        _reach(data, PanelKey(run.name, task.name, format), run.context_length)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def fall(
    distance: np.ndarray, hits: np.ndarray, trials: np.ndarray, floor: float, cells: np.ndarray
) -> tuple[float | None, float | None, float | None, tuple[int, int] | None, tuple[tuple[float, float], ...]]:
    """Reach, 95 % bounds, neighbouring cells and the fitted curve; None for what lies beyond the longest distance.

    distance: (n_distances,) ascending, > 0. hits, trials: (n_samples, n_distances). cells: typical distances of the grid.
    """
    n = len(hits)
    k, m = (np.concatenate([x.sum(axis=0, keepdims=True), resampled(x, RESAMPLES)]) for x in (hits, trials))
    found, fits = _falls(distance, k, m, floor)
    point, replicates = found[0], found[1:]
    low, high = percentile_bounds(replicates, n)
    curve = _curve(distance, fits)
    below, above = cells[cells <= point], cells[cells > point]
    left = float(below[-1] if len(below) else distance[0])
    right = float(above[0] if len(above) else distance[-1])
    if math.isinf(point) or math.isinf(high):  # no fall at all is among what the samples allow
        low = low if math.isinf(point) else min(low, left)
        return None, None if math.isinf(low) else low, None, None, curve
    return point, min(low, left), max(high, right), (round(left), round(right)), curve


def _reach(data: Measured, where: PanelKey, context_length: int) -> Reach:
    panel = data.panels.get(where)
    lengths = data.lengths(where.task, where.format)
    parts = [data.slice(where, length) for length in lengths]
    refused = [(length, part) for length, part in zip(lengths, parts, strict=True) if isinstance(part, Unavailable)]
    if panel is None or not len(panel.rows[0]):
        return Reach(where, (), 0, refused=str(refused[0][1]) if refused else "no needle has a distance")
    distance, sample, hit, cell = panel.rows
    bins, longest = _bins(distance, sample, hit, len(panel.index)), int(distance.max())
    if refused:
        return Reach(where, bins, longest, refused=f"{refused[0][1]} at {refused[0][0]} tokens")
    floor = floor_of(data, where)
    if bins[0].estimate.low <= floor + LEAST_LEVEL * (1 - floor):
        return Reach(where, bins, longest, refused="not testable (at the floor already at the shortest distance)")
    typical, hits, trials = distance_sums(panel)
    cells = np.unique([np.median(distance[cell == c]) for c in np.unique(cell)])
    found = Reach(where, bins, longest, *fall(typical, hits, trials, floor, cells))
    past = np.array(panel.lengths)[cell // len(panel.depths)] > base_length(lengths, context_length)
    return replace(found, refused=_by_length(found, panel, past) or _comes_back(found, panel, floor))


def distance_sums(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n_distances,) typical distances, ascending, and (n_samples, n_distances) hits and trials near each."""
    distance, sample, hit, _ = panel.rows
    place, code = np.unique(np.round(PER_OCTAVE * np.log2(np.maximum(distance, 1))), return_inverse=True)
    shape, flat = (len(panel.index), len(place)), sample * len(place) + code
    trials = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    hits = np.bincount(flat, hit, minlength=shape[0] * shape[1]).reshape(shape)
    return np.bincount(code, np.maximum(distance, 1)) / np.bincount(code), hits, trials


def floor_of(data: Measured, where: PanelKey) -> float:
    """What accuracy falls to: chance where it is below 1, else zero (one value in the context, copied or not)."""
    parts = [data.slice(where, length) for length in data.lengths(where.task, where.format)]
    chances = [part.chance for part in parts if isinstance(part, Slice)]
    return float(np.mean(chances)) if chances and max(chances) < 1 else 0.0


def _by_length(found: Reach, panel: Panel, past: np.ndarray) -> str | None:
    """What shows that length, not distance, is the limit: near needles are found less than half as often past the base."""
    if found.tokens is None:
        return None
    distance, sample, hit, _ = panel.rows
    sides = [_estimate(sample, hit, (distance <= found.tokens) & side, len(panel.index)) for side in (~past, past)]
    if not all(side.n for side in sides) or sides[1].high >= sides[0].low / 2:
        return None
    return (
        f"length and not distance is the limit: needles within {found.tokens:.0f} tokens of the answer are found in "
        f"{sides[0]} at lengths up to the base and {sides[1]} past it"
    )


def _comes_back(found: Reach, panel: Panel, floor: float) -> str | None:
    """What shows that there is no single reach: a cell beyond it stands above the half-way level.

    Its Wilson bound is taken at .05 over the number of cells beyond the reach.
    """
    if found.tokens is None or found.high is None:
        return None
    half = floor + (found.curve[0][1] - floor) / 2
    distance, _, hit, cell = panel.rows
    far = [rows for rows in (cell == c for c in np.unique(cell)) if np.median(distance[rows]) > found.high]
    for rows in far:
        n, k = int(rows.sum()), int(hit[rows].sum())
        if wilson(k, n, NormalDist().inv_cdf(1 - 0.05 / len(far)))[0] > half:
            low, high = wilson(k, n)
            again = f"is {Estimate(k, n, n, float(low), float(high))} again at {np.median(distance[rows]):.0f}"
            return f"no single reach: accuracy falls at {found.tokens:.0f} tokens and {again}"
    return None


def _falls(
    distance: np.ndarray, hits: np.ndarray, trials: np.ndarray, floor: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """(n_replicates,) distances of the fall, infinite where there is none; and (b, c, r, s) of the first replicate.

    hits, trials: (n_replicates, n_distances) sums.
    """
    seen = np.cumsum(trials[0]) / trials[0].sum()
    nearest, farthest = distance[np.searchsorted(seen, SHORT)], distance[-1] * 2
    places = np.geomspace(nearest, farthest, PER_OCTAVE * max(1, round(math.log2(farthest / nearest))))
    r, s = (x.ravel() for x in np.meshgrid(places, STEEPNESS, indexing="ij"))
    with np.errstate(over="ignore"):
        g = 1 / (1 + (distance[:, None] / r) ** s)  # (n_distances, n_shapes)
    parts = [slice(lo, lo + BLOCK) for lo in range(0, len(hits), BLOCK)]
    b, c, r, s = np.concatenate([_best(hits[rows], trials[rows], g, r, s) for rows in parts], axis=1)
    with np.errstate(over="ignore"):
        level = b + c / (1 + (distance[0] / r) ** s)
    share = (floor + (level - floor) / 2 - b) / np.where(c > 0, c, 1)
    falls = (c > 0) & (share > 0) & (share < 1) & (level > floor)
    d = r * (1 / np.where(falls, share, 0.5) - 1) ** (1 / s)
    found = np.where(falls & (d <= distance[-1]), d, np.inf)
    return found, (float(b[0]), float(c[0]), float(r[0]), float(s[0]))


def _best(hits: np.ndarray, trials: np.ndarray, g: np.ndarray, r: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(4, n_replicates) b, c, r, s of the best shapes; c is 0 where none falls. g: (n_distances, n_shapes); r, s: (n_shapes,)."""
    t0, k0 = trials.sum(axis=1, keepdims=True), hits.sum(axis=1, keepdims=True)
    t1, t2, k1 = trials @ g, trials @ (g * g), hits @ g
    spread, c = t2 - t1 * t1 / t0, k1 - k0 * t1 / t0
    c = np.where(spread > 1e-9 * t0, c / np.maximum(spread, 1e-9), 0.0)
    b = (k0 - c * t1) / t0
    under = b < 0  # no accuracy below zero: refit without the constant
    b, c = np.where(under, 0.0, b), np.where(under, k1 / np.maximum(t2, 1e-9), c)
    gain = np.where(c > 0, b * k0 + c * k1, -np.inf)  # what least squares gains over nothing, at its own b and c
    best, row = gain.argmax(axis=1), np.arange(len(gain))
    # a step anywhere between two tested distances fits equally well: take the middle of the tie
    same = (gain >= gain[row, best][:, None] - 1e-6 * t0) & (s == s[best][:, None])
    middle = np.exp((same @ np.log(r)) / same.sum(axis=1))
    return np.stack([b[row, best], np.where(np.isfinite(gain[row, best]), c[row, best], 0.0), middle, s[best]])


def _curve(distance: np.ndarray, fit: tuple[float, float, float, float]) -> tuple[tuple[float, float], ...]:
    b, c, r, s = fit
    at = np.geomspace(distance[0], distance[-1], 120)
    with np.errstate(over="ignore"):
        return tuple(zip(at.tolist(), (b + c / (1 + (at / r) ** s)).tolist(), strict=True))


def _bins(distance: np.ndarray, sample: np.ndarray, hit: np.ndarray, n_samples: int) -> tuple[DistanceBin, ...]:
    """Half octaves of distance, thin ones joined to the next shorter."""
    code = np.floor(2 * np.log2(np.maximum(distance, 1))).astype(int)
    groups: list[np.ndarray] = []
    for value in np.unique(code):
        rows = np.nonzero(code == value)[0]
        if groups and (len(rows) < FEWEST or len(groups[-1]) < FEWEST):
            groups[-1] = np.concatenate([groups[-1], rows])
        else:
            groups.append(rows)
    made = []
    for rows in groups:
        near, far = int(distance[rows].min()), int(distance[rows].max())
        made.append(DistanceBin(near, far, float(np.median(distance[rows])), _estimate(sample, hit, rows, n_samples)))
    return tuple(made)


def _estimate(sample: np.ndarray, hit: np.ndarray, rows: np.ndarray, n_samples: int) -> Estimate:
    hits, trials = (np.bincount(sample[rows], w, minlength=n_samples) for w in (hit[rows], np.ones(len(hit))[rows]))
    low, high = map(float, clustered_wilson(hits, trials))
    return Estimate(int(hits.sum()), int(trials.sum()), int((trials > 0).sum()), low, high)
