"""Effective length of one run on a continuous scale, which a slope over training lengths needs.

The level is that of `findings.extrapolation`. The effective length is where accuracy over log2 length crosses it for
good, interpolated linearly between the two tested lengths around the last one that reaches the level. A model that
fails at once rather than gradually is placed only to within the factor between these two: `grid_sd`.

Bounds are a cluster bootstrap over samples, with the same draws for all runs, which answer the same samples. A run of
which more than 2.5 % of the draws never fall below the level is censored: its effective length is "at least" so long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import base_of, lengths_inside, level_above
from lcprobe.analysis.findings.gates import Gate
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.stats.bootstrap import percentile_bounds, resampled_sums

RESAMPLES = 1000
MIN_BASE = 0.1
"""The lower bound of the base is at least this part of the way from the floor to 1: the best of several lengths of a
model that guesses is above chance by luck."""


@dataclass(frozen=True)
class EffectiveLength:
    """Effective length of one run on one task and format, in tokens.

    tokens: None where `refused` has the reason. at_least: censored: the true one is not resolved to be less than any
    length; then tokens is the longest tested length, or the lower bound where the curve falls without being resolved.
    low, high: 95 % bounds over samples; high is None where at_least. reaches: whether accuracy at the longest tested
    length is still at the level. base_length: where the base was measured. level: accuracy needed. grid_sd: standard
    deviation of its log2 due to the place of the tested lengths: that of a uniform place between the two around it,
    times the share of the whole fall, from base to floor, that is between them.
    """

    where: PanelKey
    context_length: int
    seed: int
    longest: int
    base_length: int | None = None
    base: float | None = None
    level: float | None = None
    tokens: float | None = None
    low: float | None = None
    high: float | None = None
    at_least: bool = False
    reaches: bool = False
    grid_sd: float = 0.0
    refused: str | None = None

    @property
    def multiple(self) -> float | None:
        """Effective length over training length."""
        return None if self.tokens is None else self.tokens / self.context_length

    def __str__(self) -> str:
        if self.tokens is None:
            return self.refused or ""
        if self.at_least or self.low is None or self.high is None:
            return f">= {self.tokens:,.0f} tokens"
        return f"{self.tokens:,.0f} tokens ({self.low:,.0f}–{self.high:,.0f})"


def effective_length(data: Measured, run: RunFacts, gate: Gate) -> tuple[EffectiveLength, np.ndarray | None]:
    """Effective length of a run on the task and format of a gate, and (RESAMPLES,) replicates of its log2.

    Replicates are infinite where nothing falls; None where there is no effective length.
    """
    where = gate.where
    lengths = data.lengths(where.task, where.format)
    parts = [data.slice(where, length) for length in lengths]
    blank = EffectiveLength(where, run.context_length, run.seed, max(lengths))
    if min(lengths) > run.context_length:
        return replace(blank, refused=f"no tested length up to its training length of {run.context_length}"), None
    base = base_of(data, where, run.context_length)
    if isinstance(base, Unavailable):
        return replace(blank, refused=str(base)), None
    for length, part in zip(lengths, parts, strict=True):
        if isinstance(part, Unavailable):
            return replace(blank, refused=f"{part} at {length:,} tokens"), None
    slices = [part for part in parts if isinstance(part, Slice)]
    values, level = np.array([part.value for part in slices]), base.level
    blank = replace(blank, base_length=base.length, base=base.part.value, level=level)
    # look-up that is lost at the training length alone is what a fixed reach does: the base decides below
    if gate.closed is not None and (gate.acquired == "not acquired" or gate.lookup != "not acquired"):
        return replace(blank, refused=gate.closed), None
    at_floor = "floor" in (base.part.limit or "")
    if at_floor or base.part.estimate.low <= base.floor + MIN_BASE * (1 - base.floor):
        return replace(blank, refused="task not acquired (base at the floor)"), None
    replicates = resampled_accuracy(slices)
    inside = [lengths.index(length) for length in lengths_inside(lengths, run.context_length)]
    levels = level_above(base.floor, replicates[:, inside].max(axis=1))
    octaves = np.log2(lengths)
    point, drawn = float(crossings(octaves, values, np.array(level))), crossings(octaves, replicates, levels)
    low, high = percentile_bounds(drawn, len(base.part.index))
    at_least = math.isinf(point) or math.isinf(high)
    place = max(lengths) if math.isinf(point) else 2.0 ** (low if at_least else point)
    return replace(
        blank,
        tokens=float(place),
        low=min(float(place), 2.0**low) if math.isfinite(low) else float(max(lengths)),
        high=None if at_least else 2.0**high,
        at_least=at_least,
        reaches=bool(values[-1] >= level),
        grid_sd=0.0 if at_least else _grid_sd(octaves, values, point, base.part.value - base.floor),
    ), drawn


def _grid_sd(octaves: np.ndarray, accuracy: np.ndarray, crossing: float, whole: float) -> float:
    """See EffectiveLength. whole: the fall from base to floor."""
    if not math.isfinite(crossing) or whole <= 0:
        return 0.0
    after = min(int(np.searchsorted(octaves, crossing, side="right")), len(octaves) - 1)
    share = float(np.clip((accuracy[after - 1] - accuracy[after]) / whole, 0, 1))
    return float(octaves[after] - octaves[after - 1]) / math.sqrt(12) * share


def crossings(octaves: np.ndarray, accuracy: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Where curves fall below their level for good: (n_lengths,) log2 lengths, (..., n_lengths), (...,) -> (...,).

    Infinite where the last length reaches the level, minus infinite where none does.
    """
    reaches = accuracy >= level[..., None]
    last = len(octaves) - 1 - np.argmax(reaches[..., ::-1], axis=-1)
    after = np.minimum(last + 1, len(octaves) - 1)
    top, bottom = (np.take_along_axis(accuracy, at[..., None], -1)[..., 0] for at in (last, after))
    share = (top - level) / np.where(top > bottom, top - bottom, 1.0)
    place = octaves[last] + share * (octaves[after] - octaves[last])
    return np.where(reaches.any(axis=-1), np.where(reaches[..., -1], np.inf, place), -np.inf)


def resampled_accuracy(slices: Sequence[Slice]) -> np.ndarray:
    """(RESAMPLES, n_lengths) accuracies of resampled samples; all lengths of a run have the same draws."""
    index = np.unique(np.concatenate([part.index for part in slices]))
    sums = np.zeros((len(index), 2 * len(slices)))
    for i, part in enumerate(slices):
        at = np.searchsorted(index, part.index)
        sums[at, i], sums[at, len(slices) + i] = part.hits.sum(axis=0), part.trials.sum(axis=0)
    drawn = resampled_sums(sums, RESAMPLES)
    return drawn[:, : len(slices)] / np.maximum(drawn[:, len(slices) :], 1)
