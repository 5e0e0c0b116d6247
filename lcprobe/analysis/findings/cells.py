"""From records to cells, and to slices, which exist only when they are complete.

A panel is everything one model did on one task, format and control, as (lengths, depths, samples) arrays. A slice is
a panel's samples at one length over the planned depths. A mean is taken over a slice only when every planned cell of
it has all of its planned samples: depths and formats differ in difficulty, so that a mean over some of them compares
nothing (in arXiv 2407.08112 five of eight models average three formats at some depths and one format at others).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.tokenizers import NO_TOKENIZERS, Tokenizers
from lcprobe.analysis.inputs import StudyFacts, TaskFacts
from lcprobe.analysis.stats.effective_samples import effective_sample_size
from lcprobe.analysis.stats.estimates import Proportion, proportion_of, proportion_of_cells
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.tasks.episode import Formats

FLOOR, CEILING = 0.05, 0.95
"""Means beyond which differences inside a slice are not tested."""
TOO_FEW = "too few samples (a test needs two)"
SCORES = (
    "first_token",
    "token_accuracy",
    "log_likelihood_per_token",
    "rank",
    "distractor_hit",
    "chance",
    "distance",
    "realised_depth",
    "episode_tokens",
    "characters",
)
"""Scores and factors with a mean per cell."""


class PanelKey(NamedTuple):
    """Key of a panel: one model, task, format and control."""

    model: str
    task: str
    format: Formats
    control: str = "none"


@dataclass(frozen=True)
class Unavailable:
    """Why there is no number; printed in its place."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, eq=False)
class Slice:
    """Complete planned cells of a panel at one length, and what is computed of them, once: a model is compared with
    every other. depths: centres of their strata.

    hits, trials: (n_depths, n_samples) int64, summed over queries; trials are equal for all samples of a depth.
    index: (n_samples,) sample numbers, ascending. chance: mean expected score of choosing one of the values without
    using the key.
    """

    depths: tuple[float, ...]
    index: np.ndarray
    hits: np.ndarray
    trials: np.ndarray
    chance: float

    @cached_property
    def value(self) -> float:
        """Proportion of all trials."""
        return float(self.hits.sum() / self.trials.sum())

    @cached_property
    def shares(self) -> np.ndarray:
        """(n_samples,) proportion of hits of each sample over all depths and queries."""
        return self.hits.sum(axis=0) / self.trials.sum(axis=0)

    @property
    def guessed(self) -> float:
        """The rate that guessing has by its stated chance: 0 where the value has no rival, since then nothing is
        guessed."""
        return self.chance if self.chance < 1 else 0.0

    @cached_property
    def estimate(self) -> Proportion:
        """Mean over all cells, with its interval: not wider than the widest of the cells."""
        return proportion_of_cells(self.hits, self.trials)

    @cached_property
    def n_eff(self) -> float:
        """Effective sample size of its mean."""
        return float(effective_sample_size(self.hits.sum(axis=0), self.trials.sum(axis=0)))

    @cached_property
    def limit(self) -> str | None:
        """Why differences inside it cannot be tested, or None.

        At the floor: the mean is below 0.05, or, for tasks with a chance level below 1, no depth is above chance by
        its Wilson bound (each depth by itself, as a model that retrieves the last needle alone has a mean near
        chance).
        """
        if self.value > CEILING:
            return "not testable (ceiling)"
        if self.value < FLOOR:
            return "not testable (floor)"
        lower_bounds = wilson(self.hits.sum(axis=1), self.trials.sum(axis=1))[0]
        if self.chance < 1 and max(lower_bounds) <= self.chance:
            return "not testable (floor: no depth above chance)"
        return None

    def at_depths(self, depths: Sequence[float]) -> "Slice":
        """The same samples at some of the depths."""
        keep = [i for i, depth in enumerate(self.depths) if depth in depths]
        return Slice(tuple(self.depths[i] for i in keep), self.index, self.hits[keep], self.trials[keep], self.chance)


class NeedleTrials(NamedTuple):
    """Every trial of a panel whose context has the target needle, as (n_trials,) arrays.

    distance: tokens from value to answer. sample: place in the panel's `index`. cell: flat place in (lengths,
    depths).
    """

    distance: np.ndarray
    sample: np.ndarray
    hit: np.ndarray
    cell: np.ndarray


@dataclass(frozen=True)
class Panel:
    """Arrays of one model, task, format and control. depths: centres of strata; strata: of depth, at each length.

    hits, trials, failed: (n_lengths, n_depths, n_samples) sums over the queries of a sample.

    scores: sums of the columns of SCORES over trials, (n_lengths, n_depths), and the count of each.
    """

    where: PanelKey
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    strata: tuple[int, ...]
    index: np.ndarray
    hits: np.ndarray
    trials: np.ndarray
    failed: np.ndarray
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
    needle_trials: NeedleTrials


@dataclass(frozen=True)
class Cell:
    """One cell of the table. depth: centre of its stratum, one of `strata`. low, high: Wilson's interval at the
    effective sample size."""

    where: PanelKey
    length: int
    depth: float
    strata: int
    planned: int | None
    samples: int
    k: int
    n: int
    n_failed: int
    low: float | None
    high: float | None
    means: Mapping[str, float | None]

    @property
    def accuracy(self) -> float | None:
        """k / n, None without trials."""
        return self.k / self.n if self.n else None

    @property
    def skill(self) -> float | None:
        """(accuracy - chance) / (1 - chance): None where chance is 1 (one value in the context) or unknown."""
        return self._above_chance(self.accuracy)

    @property
    def skill_bounds(self) -> tuple[float | None, float | None]:
        """Bounds of accuracy on the scale of skill; the chance level is known exactly."""
        return self._above_chance(self.low), self._above_chance(self.high)

    def _above_chance(self, accuracy: float | None) -> float | None:
        chance = self.means["chance"]
        if accuracy is None or chance is None or chance >= 1:
            return None
        return (accuracy - chance) / (1 - chance)


@dataclass(frozen=True)
class Measured:
    """Panels of a study, its plan, and notes on the records that were left out.

    planned: samples by (task, format, control), length and depth. records: the rows that count, failed ones included,
    sorted by their factors.
    """

    study: StudyFacts
    panels: Mapping[PanelKey, Panel]
    planned: Mapping[tuple[str, Formats, str], Mapping[int, Mapping[float, int]]]
    notes: tuple[str, ...]
    records: pa.Table
    n_failed: int
    tokenizers: Tokenizers = NO_TOKENIZERS

    @property
    def tasks(self) -> list[TaskFacts]:
        """Tasks in the order of the study, then those of the plan that the study does not describe."""
        known = {task.name: task for task in self.study.tasks}
        names = dict.fromkeys([*known, *(task for task, _, _ in self.planned)])
        return [known.get(name, TaskFacts(name, "not described", None, False, "")) for name in names]

    def formats(self, task: str, control: str = "none") -> list[Formats]:
        """Planned formats of a task, in the order of the plan."""
        return [f for t, f, c in self.planned if t == task and c == control]

    def lengths(self, task: str, format: Formats, control: str = "none") -> list[int]:
        """Planned lengths, ascending."""
        return sorted(self.planned.get((task, format, control), {}))

    def slice(self, where: PanelKey, length: int) -> Slice | Unavailable:
        """All planned depths at a length, or the reason why they are not available: "incomplete (7 of 10 cells)"."""
        cells = self.planned.get((where.task, where.format, where.control), {}).get(length)
        if not cells:
            return Unavailable("not planned")
        panel = self.panels.get(where)
        if panel is None or length not in panel.lengths:
            return Unavailable(f"incomplete (0 of {len(cells)} cells)")
        at = panel.lengths.index(length)
        known = [(panel.depths.index(depth), n) for depth, n in cells.items() if depth in panel.depths]
        complete = [i for i, n in known if _complete_samples(panel, at, i) == n]
        if len(complete) < len(cells):
            return Unavailable(f"incomplete ({len(complete)} of {len(cells)} cells)")
        shared = np.all(panel.trials[at, complete] > 0, axis=0)  # samples that every cell has
        if shared.sum() < min(cells.values()):
            return Unavailable("incomplete (the cells have different samples)")
        hits, trials = panel.hits[at, complete][:, shared], panel.trials[at, complete][:, shared]
        if np.any(trials != trials[:, :1]):
            return Unavailable("incomplete (the samples have different numbers of questions)")
        total, count = (float(x[at, complete].sum()) for x in panel.scores["chance"])
        return Slice(tuple(cells), panel.index[shared], hits, trials, total / count if count else 0.0)

    def cells(self) -> list[Cell]:
        """Every planned or measured cell, models in the order of the study."""
        order = {run.name: i for i, run in enumerate(self.study.runs)}
        keys = {PanelKey(run.name, *key) for run in self.study.runs for key in self.planned} | self.panels.keys()
        cells = []
        for where in sorted(keys, key=lambda w: (order[w.model], w.task, w.control != "none", w.control, w)):
            planned = self.planned.get((where.task, where.format, where.control), {})
            panel = self.panels.get(where)
            places = {(length, depth) for length, depths in planned.items() for depth in depths}
            if panel is not None:
                i, j = np.nonzero((panel.trials + panel.failed).sum(axis=2))
                places |= {(panel.lengths[a], panel.depths[b]) for a, b in zip(i, j, strict=True)}
            cells += [_cell(where, panel, *place, planned.get(place[0], {})) for place in sorted(places)]
        return cells


def _cell(where: PanelKey, panel: Panel | None, length: int, depth: float, row: Mapping[float, int]) -> Cell:
    """row: planned samples at the length, by depth."""
    planned = row.get(depth)
    if panel is None or length not in panel.lengths or depth not in panel.depths:
        return Cell(where, length, depth, len(row), planned, 0, 0, 0, 0, None, None, dict.fromkeys(SCORES))
    i, j = panel.lengths.index(length), panel.depths.index(depth)
    strata = panel.strata[i]
    means = {name: float(t[i, j] / c[i, j]) if c[i, j] else None for name, (t, c) in panel.scores.items()}
    failed = int(panel.failed[i, j].sum())
    if not panel.trials[i, j].any():
        return Cell(where, length, depth, strata, planned, 0, 0, 0, failed, None, None, means)
    x = proportion_of(panel.hits[i, j], panel.trials[i, j])
    return Cell(where, length, depth, strata, planned, x.samples, x.k, x.n, failed, x.low, x.high, means)


def _complete_samples(panel: Panel, i: int, j: int) -> int:
    """Number of samples of a cell all of whose queries are trials."""
    return int(((panel.trials[i, j] > 0) & (panel.failed[i, j] == 0)).sum())
