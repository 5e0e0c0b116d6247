"""Accuracy against the distance in tokens from value to answer, over all lengths and depths, and the effective reach.

Where reach is what limits a model, depth curves at several lengths collapse onto this one: RecurrentGemma's published
curve is that of its 2048-token window (51.6 / 25.4 / 12.6 % at 4K / 8K / 16K), not of its recurrence. The reach is
where accuracy has fallen half-way from its value at the shortest tested distance to the floor, the chance level of
look-up tasks, else zero; the fit is stats.fall_fit. No reach is given where distance is not what matters: where
needles within reach are lost past the reference length (a model that breaks beyond its training length), or retrieved
again beyond it (a model that is lost in the middle).

That there is a fall is a claim of the report (`findings.families`), by a test of its own: at equal length, hits and
the logarithm of the distance are correlated, over samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from lcprobe.analysis.findings.cells import Measured, Panel, PanelKey, Unavailable
from lcprobe.analysis.findings.extrapolation import floor_of, reference_length, trained_end
from lcprobe.analysis.findings.families import Claim, gates_of
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.stats.distance_bins import DistanceBin, distance_bins, proportion_of_rows
from lcprobe.analysis.stats.effective_samples import degrees_of_freedom
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.fall_fit import FALL_STEPS_PER_OCTAVE, Curve, fit_fall
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.analysis.stats.student_t import two_sided_p

MIN_LEVEL = 0.1
"""A fall is fitted only where accuracy at the shortest distances is by its lower bound a tenth of the way from the
floor to 1."""


@dataclass(frozen=True, kw_only=True)
class Reach(Claim):
    """Effective reach of one model, task and format, in tokens. The claim is that there is a fall.

    tokens, high: None for beyond the longest distance tested (`longest`), where the samples are compatible with no
    fall at all; low: then its 95 % lower bound, None where that is beyond, too. between: the distances of the
    neighbouring cells on both sides of the fall. refused: why there is no reach.
    """

    where: PanelKey
    bins: tuple[DistanceBin, ...] = ()
    longest: int = 0
    tokens: float | None = None
    low: float | None = None
    high: float | None = None
    between: tuple[int, int] | None = None
    curve: Curve = ()
    refused: str | None = None

    def __str__(self) -> str:
        if self.refused is not None:
            return self.refused
        beyond = f"beyond the longest distance tested ({self.longest:,} tokens)"
        if self.tokens is None:
            return beyond if self.low is None else f"{beyond}; 95 % lower bound {self.low:,.0f}"
        between = (
            f", the fall is between cells at {self.between[0]:,} and {self.between[1]:,}" if self.between else ""
        )
        fall = f"{self.tokens:,.0f} tokens ({self.low:,.0f}–{self.high:,.0f}{between})"
        return (
            fall
            if self.resolved
            else f"no fall is resolved up to the longest distance tested ({self.longest:,} tokens)"
        )

    @property
    def is_found(self) -> bool:
        """Whether there is a fall, and a finding of the report."""
        return self.refused is None and self.tokens is not None and self.resolved


def reaches(data: Measured, closed: Mapping[PanelKey, str]) -> list[Reach]:
    """Effective reach of every model, task and format. closed: panels that are not to be interpreted, and why."""
    return [
        _reach(data, run, PanelKey(run.name, task.name, format), closed)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def distance_sums(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n_distances,) typical distances, ascending, and (n_samples, n_distances) hits and trials near each."""
    distance, sample, hit, _ = panel.needle_trials
    steps = np.round(FALL_STEPS_PER_OCTAVE * np.log2(np.maximum(distance, 1)))
    step, code = np.unique(steps, return_inverse=True)
    shape, flat = (len(panel.index), len(step)), sample * len(step) + code
    trials = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    hits = np.bincount(flat, hit, minlength=shape[0] * shape[1]).reshape(shape)
    return np.bincount(code, np.maximum(distance, 1)) / np.bincount(code), hits, trials


def fall_p(panel: Panel) -> float:
    """Two-sided p that hits do not depend on the distance at equal length; 1 where they do not fall.

    A sample's score is the sum of (hit - mean) x (log distance - mean) over its trials, each mean that of its length.
    """
    distance, sample, hit, cell = panel.needle_trials
    at, log = cell // len(panel.depths), np.log2(np.maximum(distance, 1))
    sizes = np.maximum(np.bincount(at), 1)
    product = (hit - (np.bincount(at, hit) / sizes)[at]) * (log - (np.bincount(at, log) / sizes)[at])
    score = np.bincount(sample, product, minlength=len(panel.index))
    squares, total = np.square(score), float(score.sum())
    if total >= 0 or len(score) < 2:
        return 1.0
    df = float(min(degrees_of_freedom(squares, len(score)), len(score) - 1))
    return two_sided_p(total / float(np.sqrt(squares.sum())), df)


def _reach(data: Measured, run: RunFacts, where: PanelKey, closed: Mapping[PanelKey, str]) -> Reach:
    panel = data.panels.get(where)
    lengths = data.lengths(where.task, where.format)
    parts = [data.slice(where, length) for length in lengths]
    missing = [(length, part) for length, part in zip(lengths, parts, strict=True) if isinstance(part, Unavailable)]
    blank = Reach(where=where, family=f"{where.model} on {where.task}", given=gates_of(where))
    if panel is None or not len(panel.needle_trials.distance):
        return replace(blank, refused=str(missing[0][1]) if missing else "no needle has a distance")
    distance, sample, hit, cell = panel.needle_trials
    bins = distance_bins(distance, sample, hit, len(panel.index))
    blank = replace(blank, bins=bins, longest=int(distance.max()))
    if missing:
        return replace(blank, refused=f"{missing[0][1]} at {missing[0][0]:,} tokens")
    if where in closed:
        return replace(blank, refused=closed[where])
    floor = floor_of(data, where)
    if bins[0].estimate.low <= floor + MIN_LEVEL * (1 - floor):
        return replace(blank, refused="not testable (at the floor already at the shortest distance)")
    cells = np.unique([np.median(distance[cell == c]) for c in np.unique(cell)])
    fall = fit_fall(*distance_sums(panel), floor, cells)
    reach = replace(blank, tokens=fall.distance, low=fall.low, high=fall.high, between=fall.between, curve=fall.curve)
    reference = reference_length(lengths, trained_end(data, run, where))
    is_longer = np.array(panel.lengths)[cell // len(panel.depths)] > reference
    refused = _limited_by_length(reach, panel, is_longer) or _recovers(reach, panel, floor)
    p = fall_p(panel) if refused is None and reach.tokens is not None else 1.0
    return replace(reach, refused=refused, p=p)


def _limited_by_length(reach: Reach, panel: Panel, is_longer: np.ndarray) -> str | None:
    """Evidence that length is the limit: near needles are retrieved less than half as often past that length."""
    if reach.tokens is None:
        return None
    distance, sample, hit, _ = panel.needle_trials
    sides = []
    for side in (~is_longer, is_longer):
        near = (distance <= reach.tokens) & side
        sides.append(proportion_of_rows(sample[near], hit[near], len(panel.index)))
    if not all(side.n for side in sides) or sides[1].high >= sides[0].low / 2:
        return None
    return (
        f"length and not distance is the limit: needles within {reach.tokens:,.0f} tokens of the answer are "
        f"retrieved in {sides[0]} at lengths up to the reference length and {sides[1]} past it"
    )


def _recovers(reach: Reach, panel: Panel, floor: float) -> str | None:
    """Evidence that there is no single reach: a cell beyond it is above the half-way level.

    Its Wilson bound is taken at .05 over the number of cells beyond the reach.
    """
    if reach.tokens is None or reach.high is None:
        return None
    half = floor + (reach.curve[0][1] - floor) / 2
    distance, _, hit, cell = panel.needle_trials
    far = [rows for rows in (cell == c for c in np.unique(cell)) if np.median(distance[rows]) > reach.high]
    for rows in far:
        n, k = int(rows.sum()), int(hit[rows].sum())
        if wilson(k, n, NormalDist().inv_cdf(1 - 0.05 / len(far)))[0] > half:
            low, high = map(float, wilson(k, n))
            again = f"is {Proportion(k, n, n, low, high)} again at {np.median(distance[rows]):,.0f}"
            return f"no single reach: accuracy falls at {reach.tokens:,.0f} tokens and {again}"
    return None
