"""From records to cells: who succeeded how often, where, with which interval; and to slices, but only to whole ones.

A panel is everything one model did on one task, format and control, as (lengths, depths, samples) arrays. A slice is a
panel's samples at one length over planned depths. A mean is taken over a slice only when every planned cell of it holds all
of its planned samples: depths and formats differ in difficulty, so that a mean over some of them compares nothing (in arXiv
2407.08112 five of eight models average three formats at some depths and one format at others).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lcprobe.analysis.inputs import StudyFacts, TaskFacts
from lcprobe.analysis.stats.intervals import clustered_wilson, effective_trials
from lcprobe.tasks.episode import Formats


class PanelKey(NamedTuple):
    """Which panel: one model, task, format and control."""

    model: str
    task: str
    format: Formats
    control: str = "none"


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval: k of n trials, from `samples` clusters."""

    k: int
    n: int
    samples: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """k / n."""
        return self.k / self.n

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.k}/{self.n}, {self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True)
class Unavailable:
    """Why there is no number: shown where the number would stand."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Slice:
    """Complete planned cells of a panel at one length. hits, trials: (n_depths, n_samples) int64, summed over queries;
    trials are equal for all samples of a depth.

    chance: mean of what choosing a value without looking at the key would score.
    """

    depths: tuple[float, ...]
    index: np.ndarray
    hits: np.ndarray
    trials: np.ndarray
    chance: float

    @property
    def value(self) -> float:
        """Share of all trials."""
        return float(self.hits.sum() / self.trials.sum())

    @property
    def estimate(self) -> Estimate:
        """Mean over all cells, with Wilson's interval for as many trials as the samples are worth."""
        hits, trials = self.hits.sum(axis=0), self.trials.sum(axis=0)
        low, high = map(float, clustered_wilson(hits, trials))
        return Estimate(int(hits.sum()), int(trials.sum()), len(self.index), low, high)

    @property
    def n_eff(self) -> float:
        """How many independent trials it is worth."""
        return float(effective_trials(self.hits.sum(axis=0), self.trials.sum(axis=0)))

    def only(self, depths: Sequence[float]) -> "Slice":
        """The same samples at some of the depths."""
        keep = [i for i, depth in enumerate(self.depths) if depth in depths]
        return Slice(tuple(self.depths[i] for i in keep), self.index, self.hits[keep], self.trials[keep], self.chance)


@dataclass(frozen=True)
class Panel:
    """One model, task, format and control. Arrays are (n_lengths, n_depths, n_samples) sums over the queries of a sample.

    scores: sums of the other columns of the records over trials, (n_lengths, n_depths), and the count of each.
    rows: of every trial with a needle in (n_rows,) arrays: distance in tokens, place in `index`, success, and which cell.
    """

    where: PanelKey
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    index: np.ndarray
    hits: np.ndarray
    trials: np.ndarray
    failed: np.ndarray
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
    rows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Cell:
    """One cell of the table. low, high: Wilson, with the effective number of trials where a sample asks several questions."""

    where: PanelKey
    length: int
    depth: float
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
        """The bounds of accuracy on the scale of skill; the chance level is known exactly."""
        return self._above_chance(self.low), self._above_chance(self.high)

    def _above_chance(self, share: float | None) -> float | None:
        chance = self.means["chance"]
        return None if share is None or chance is None or chance >= 1 else (share - chance) / (1 - chance)


SCORES = ("first_token", "token_accuracy", "log_likelihood_per_token", "rank", "distractor_hit", "chance", "distance")


@dataclass(frozen=True)
class Measured:
    """Panels of a study, the plan they are held against, and what was left out on the way.

    records: the rows that count, failed ones included, sorted by their factors.
    """

    study: StudyFacts
    panels: Mapping[PanelKey, Panel]
    planned: Mapping[tuple[str, Formats, str], Mapping[int, Mapping[float, int]]]
    notes: tuple[str, ...]
    records: pa.Table
    n_failed: int

    @property
    def tasks(self) -> list[TaskFacts]:
        """Tasks in the order of the study, and those of the plan that the study does not describe."""
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
        """All planned depths at a length, or why not: "incomplete (7 of 10 cells)"."""
        cells = self.planned.get((where.task, where.format, where.control), {}).get(length)
        if not cells:
            return Unavailable("not planned")
        panel = self.panels.get(where)
        if panel is None or length not in panel.lengths:
            return Unavailable(f"incomplete (0 of {len(cells)} cells)")
        at = panel.lengths.index(length)
        found = [panel.depths.index(d) if d in panel.depths else None for d in cells]
        whole = [
            i for i, n in zip(found, cells.values(), strict=True) if i is not None and _samples(panel, at, i) == n
        ]
        if len(whole) < len(cells):
            return Unavailable(f"incomplete ({len(whole)} of {len(cells)} cells)")
        shared = np.all(panel.trials[at, whole] > 0, axis=0)  # equal n: samples that every cell holds
        if shared.sum() < min(cells.values()):
            return Unavailable("incomplete (the cells hold different samples)")
        hits, trials = panel.hits[at, whole][:, shared], panel.trials[at, whole][:, shared]
        if np.any(trials != trials[:, :1]):
            return Unavailable("incomplete (samples were asked different numbers of questions)")
        total, count = (float(x[at, whole].sum()) for x in panel.scores["chance"])
        return Slice(tuple(cells), panel.index[shared], hits, trials, total / count if count else 0.0)

    def cells(self) -> list[Cell]:
        """Every planned or measured cell, models in the order of the study."""
        made = []
        order = {run.name: i for i, run in enumerate(self.study.runs)}
        plans = [PanelKey(run.name, *key) for run in self.study.runs for key in self.planned]
        for where in sorted(
            {*plans, *self.panels}, key=lambda w: (order[w.model], w.task, w.control != "none", w.control, w)
        ):
            planned = self.planned.get((where.task, where.format, where.control), {})
            panel = self.panels.get(where)
            places = {(length, depth) for length, depths in planned.items() for depth in depths}
            if panel is not None:
                i, j = np.nonzero((panel.trials + panel.failed).sum(axis=2))
                places |= {(panel.lengths[a], panel.depths[b]) for a, b in zip(i, j, strict=True)}
            made += [_cell(where, panel, *place, planned.get(place[0], {}).get(place[1])) for place in sorted(places)]
        return made


def _cell(where: PanelKey, panel: Panel | None, length: int, depth: float, planned: int | None) -> Cell:
    if panel is None or length not in panel.lengths or depth not in panel.depths:
        return Cell(where, length, depth, planned, 0, 0, 0, 0, None, None, dict.fromkeys(SCORES))
    i, j = panel.lengths.index(length), panel.depths.index(depth)
    hits, trials = panel.hits[i, j], panel.trials[i, j]
    n = int(trials.sum())
    low, high = map(float, clustered_wilson(hits, trials)) if n else (None, None)
    means = {name: float(t[i, j] / c[i, j]) if c[i, j] else None for name, (t, c) in panel.scores.items()}
    failed = int(panel.failed[i, j].sum())
    return Cell(where, length, depth, planned, int((trials > 0).sum()), int(hits.sum()), n, failed, low, high, means)


def _samples(panel: Panel, i: int, j: int) -> int:
    """Samples of a cell all of whose queries are trials."""
    return int(((panel.trials[i, j] > 0) & (panel.failed[i, j] == 0)).sum())
