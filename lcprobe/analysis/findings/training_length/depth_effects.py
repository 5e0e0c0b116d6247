"""Effects of depth between training lengths: does training at a longer length change where needles are lost?

The three declared contrasts of position (ends, start and end against the middle) of one training length minus those
of another, at equal tokens and at equal multiples of the training length. Sample i has the same key, value and
haystack at every length, so that both are paired by sample; a sample's answers are summed over training seeds. Exact
sign-flip test of the differences of samples; Holm inside two families per task, equal tokens and equal multiples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from typing import Literal

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.contrasts import Position
from lcprobe.analysis.findings.extrapolation import floor_or_ceiling
from lcprobe.analysis.findings.families import holm_adjusted, is_resolved
from lcprobe.analysis.findings.slice_tests import pooled, shared_samples
from lcprobe.analysis.findings.training_length.architectures import by_training_length
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.differences import difference_bounds
from lcprobe.analysis.stats.exact_tests import sign_flip
from lcprobe.analysis.stats.training_seeds import welch_bounds
from lcprobe.tasks.episode import Formats

Notion = Literal["tokens", "multiple"]
Side = tuple[list[RunFacts], int]
"""The runs of one training length, and the length in tokens at which they are read."""


@dataclass(frozen=True)
class DepthEffect:
    """effect of `longer` - effect of `shorter`, two training lengths, in accuracy (-2 .. 2).

    at: whether both are read at equal tokens or at an equal multiple, which is `place`. first, second: the effects of
    the longer and the shorter. seeds: 95 % bounds over training seeds (Welch) where both have several. refused: why
    there is no test; then the numbers are None.
    """

    effect: Position
    family: str
    architecture: str
    task: str
    format: Formats
    longer: int
    shorter: int
    at: Notion
    place: float
    samples: int = 0
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    seeds: tuple[float, float] | None = None
    refused: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether the difference is significant after Holm's correction, and over seeds if there are several."""
        return is_resolved(self.p_holm, self.seeds)

    @property
    def verdict(self) -> str:
        """larger | smaller | no difference resolved | the reason for no test."""
        if self.refused is not None:
            return self.refused
        if not self.resolved:
            return "no difference resolved"
        return "larger" if (self.difference or 0) > 0 else "smaller"


def depth_effects(data: Measured) -> list[DepthEffect]:
    """All pairs of training lengths of every architecture, with Holm's correction inside each family."""
    return holm_adjusted([row for task in data.tasks for row in _of_task(data, task)])


def _of_task(data: Measured, task: TaskFacts) -> Iterator[DepthEffect]:
    for format in data.formats(task.name):
        lengths = data.lengths(task.name, format)
        for architecture, by_length in by_training_length(data.study.runs).items():
            for shorter, longer in combinations(by_length, 2):
                for at, place, a, b in _places(lengths, longer, shorter):
                    blank = DepthEffect(
                        "primacy", f"depth effects at equal {at} on {task.name}", architecture, task.name, format,
                        longer, shorter, at, place,
                    )  # fmt: skip
                    yield from _effects(data, blank, (by_length[longer], a), (by_length[shorter], b))


def _places(lengths: Sequence[int], longer: int, shorter: int) -> Iterator[tuple[Notion, float, int, int]]:
    """Equal tokens, then equal multiples: notion, place, and the lengths of both sides."""
    for length in lengths:
        yield "tokens", length, length, length
    for a in lengths:
        for b in (b for b in lengths if a * shorter == b * longer):
            yield "multiple", a / longer, a, b


def _effects(data: Measured, blank: DepthEffect, longer: Side, shorter: Side) -> Iterator[DepthEffect]:
    sides = [
        [data.slice(PanelKey(run.name, blank.task, blank.format), length) for run in runs]
        for runs, length in (longer, shorter)
    ]
    wholes = [pooled(side) for side in sides]
    kinds: list[tuple[Position, int | None]] = [("lost in the middle", None), ("primacy", 0), ("recency", 1)]
    for kind, end in kinds:
        row = replace(blank, effect=kind)
        reason = next((r for whole in wholes if (r := _refusal(whole))), None)
        if reason is not None:
            yield replace(row, refused=reason)
        else:
            yield _tested(row, [[part for part in side if isinstance(part, Slice)] for side in sides], end)


def _refusal(whole: Slice | Unavailable) -> str | None:
    if isinstance(whole, Unavailable):
        return whole.reason
    if not all(whole.ends_and_middle):
        return "not testable (the grid has no start, middle or end)"
    return floor_or_ceiling(whole)


def _tested(row: DepthEffect, sides: list[list[Slice]], end: int | None) -> DepthEffect:
    """The test of one effect. end: 0 start, 1 end, None both."""
    shared = shared_samples([part for side in sides for part in side])
    if len(shared) < 2:
        return replace(row, refused="fewer than two shared samples")
    by_run = [[_by_sample(part, shared, end) for part in side] for side in sides]
    scale = math.lcm(*(s for side in by_run for _, s in side)) * math.lcm(*(len(side) for side in by_run))
    whole = [sum(v * (scale // s // len(side)) for v, s in side) for side in by_run]  # per sample, x scale
    difference = np.asarray(whole[0]) - np.asarray(whole[1])
    low, high = difference_bounds(difference / scale / 2)
    runs = [[float(v.mean() / s) for v, s in side] for side in by_run]
    several = min(map(len, runs)) > 1
    return replace(
        row,
        samples=len(shared),
        first=float(np.mean(runs[0])),
        second=float(np.mean(runs[1])),
        difference=float(difference.mean() / scale),
        low=2 * float(low),
        high=2 * float(high),
        p=sign_flip(difference),
        seeds=welch_bounds(runs[0], runs[1], math.inf, math.inf) if several else None,
    )


def _by_sample(part: Slice, shared: np.ndarray, end: int | None) -> tuple[np.ndarray, int]:
    """Effect of depth of every shared sample as whole numbers, and the number that they are to be divided by."""
    start, finish, middle = part.ends_and_middle
    ends = [start, finish] if end is None else [[start, finish][end]]
    weight = {d: Fraction(1, len(ends) * len(group)) for group in ends for d in group}
    weight |= {d: Fraction(-1, len(middle)) for d in middle}
    used = [(i, weight[d] / int(part.trials[i, 0])) for i, d in enumerate(part.depths) if d in weight]
    scale = math.lcm(*(w.denominator for _, w in used))
    keep = np.isin(part.index, shared, assume_unique=True)
    whole = np.zeros(len(shared), np.int64)
    for i, w in used:
        whole += int(w * scale) * part.hits[i, keep]
    return whole, scale
