"""Effects of depth between training lengths: does training at a longer length change where needles are lost?

The declared contrasts of position (start and end against the middle, in skill; see `findings.place`) of one training
length minus those of another, at equal tokens and at equal multiples of the training length. Sample i has the same
key, value and haystack at every length, so that both are paired by sample; training seeds are averaged. Lost in the
middle is the joint claim that both differ in the same direction. Two families per task, equal tokens and equal
multiples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Unavailable
from lcprobe.analysis.findings.contrasts import ON_THESE_RUNS, Position
from lcprobe.analysis.findings.families import Claim
from lcprobe.analysis.findings.place import PlaceSkills, place_skills
from lcprobe.analysis.findings.skill import Skill, skill_test
from lcprobe.analysis.findings.training_length.architectures import by_training_length
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.training_seeds import welch_bounds, welch_p
from lcprobe.tasks.episode import Formats

Notion = Literal["tokens", "multiple"]
Side = tuple[list[RunFacts], int]
"""The runs of one training length, and the length in tokens at which they are read."""


@dataclass(frozen=True, kw_only=True)
class DepthEffect(Claim):
    """effect of `longer` - effect of `shorter`, two training lengths, in skill (-2 .. 2).

    at: whether both are read at equal tokens or at an equal multiple, which is `place`. first, second: the effects of
    the longer and the shorter. seeds: 95 % bounds over training seeds (Welch) where both have several. refused: why
    there is no test; then the numbers are None.
    """

    effect: Position
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
    seeds: tuple[float, float] | None = None
    refused: str | None = None

    @property
    def verdict(self) -> str:
        """larger | smaller | no difference resolved | the reason for no test; with one training seed, on these
        runs."""
        if self.refused is not None:
            return self.refused
        if not self.resolved:
            return "no difference resolved"
        direction = "larger" if (self.difference or 0) > 0 else "smaller"
        return direction if self.seeds is not None else f"{direction} {ON_THESE_RUNS}"


def depth_effects(data: Measured) -> list[DepthEffect]:
    """All pairs of training lengths of every architecture, not yet corrected."""
    return [row for task in data.tasks for row in _of_task(data, task)]


def _of_task(data: Measured, task: TaskFacts) -> Iterator[DepthEffect]:
    for format in data.formats(task.name):
        lengths = data.lengths(task.name, format)
        for architecture, by_length in by_training_length(data.study.runs).items():
            for shorter, longer in combinations(by_length, 2):
                for at, place, a, b in _places(lengths, longer, shorter):
                    blank = DepthEffect(
                        branch="models against each other", effect="primacy",
                        family=f"depth effects at equal {at} on {task.name}",
                        architecture=architecture, task=task.name, format=format, longer=longer, shorter=shorter,
                        at=at, place=place,
                    )  # fmt: skip
                    yield from _effects(data, task, blank, (by_length[longer], a), (by_length[shorter], b))


def _places(lengths: Sequence[int], longer: int, shorter: int) -> Iterator[tuple[Notion, float, int, int]]:
    """Equal tokens, then equal multiples: notion, place, and the lengths of both sides."""
    for length in lengths:
        yield "tokens", length, length, length
    for a in lengths:
        for b in (b for b in lengths if a * shorter == b * longer):
            yield "multiple", a / longer, a, b


def _effects(
    data: Measured, task: TaskFacts, blank: DepthEffect, longer: Side, shorter: Side
) -> Iterator[DepthEffect]:
    sides = [
        [place_skills(data, task, PanelKey(run.name, blank.task, blank.format), length) for run in runs]
        for runs, length in (longer, shorter)
    ]
    reason = next((s.reason for side in sides for s in side if isinstance(s, Unavailable)), None)
    kinds: list[Position] = ["primacy", "recency", "lost in the middle"]
    tested: list[DepthEffect] = []
    for kind in kinds:
        name = f"{kind} {blank.architecture} {blank.task} {blank.format} {blank.longer} {blank.shorter} "
        row = replace(blank, effect=kind, name=f"{name}{blank.at} {blank.place}")
        if reason is not None:
            yield replace(row, refused=reason)
            continue
        row = _tested(row, [[s for s in side if isinstance(s, PlaceSkills)] for side in sides])
        tested.append(row)
        yield _both(row, *tested[:2]) if kind == "lost in the middle" and row.refused is None else row


def _tested(row: DepthEffect, sides: list[list[PlaceSkills]]) -> DepthEffect:
    """The test of one effect: each side is the mean over its runs."""
    signs = (1, -1)
    terms = [
        (sign * weight / len(side), skill)
        for sign, side in zip(signs, sides, strict=True)
        for one in side
        for weight, skill in _terms(row.effect, one)
    ]
    test = skill_test(terms)
    if isinstance(test, Unavailable):
        return replace(row, refused=test.reason)
    runs = [[sum(w * s.value for w, s in _terms(row.effect, one)) for one in side] for side in sides]
    several = min(map(len, runs)) > 1
    return replace(
        row,
        samples=test.samples,
        first=float(np.mean(runs[0])),
        second=float(np.mean(runs[1])),
        difference=test.value,
        low=test.low,
        high=test.high,
        p=test.p,
        p_seeds=welch_p(runs[0], runs[1], math.inf, math.inf) if several else None,
        seeds=welch_bounds(runs[0], runs[1], math.inf, math.inf) if several else None,
    )


def _terms(effect: Position, one: PlaceSkills) -> Sequence[tuple[float, Skill]]:
    ends = {"primacy": [one.start], "recency": [one.end]}.get(effect, [one.start, one.end])
    return one.effect(*ends)


def _both(row: DepthEffect, start: DepthEffect, end: DepthEffect) -> DepthEffect:
    same_side = (start.difference or 0) * (end.difference or 0) > 0
    p = max(start.p or 0.0, end.p or 0.0) if same_side else 1.0
    return replace(row, p=p, needs=(start.name, end.name))
