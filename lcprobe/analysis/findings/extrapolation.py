"""Past the training length: accuracy relative to the training length, and the effective length.

Effective length, on skill (`findings.skill`): the longest tested length up to which skill is shown to be at least
0.85 of the base. The base is the model's best skill at any tested length up to its training length, as NoLiMa's base
score is that of short contexts (arXiv 2502.05167). Accuracy at the training length itself would be too lenient where
a model already fails there; a share of accuracy would be met by guessing alone where chance is 0.85 of it. RULER's
constant of 85.6 % is one model's score and out of reach for small ones.

    base      its skill is above 0, at .05 over the number of lengths up to the training length
    passes    skill(length) - 0.85 x skill(B) is above 0, paired by sample, for every length B up to the training
              length: so for the best of them, whichever that is. More right answers have no larger p
              (`SkillTest.p_above`)
    sequence  base and lengths upwards from it are claims of the report (`findings.families`), each behind the one
              before: the first that is no finding ends it
    limit     another claim: that the first length that does not pass at .05 by itself is below 0.85 of some B; p over
              the number of these. Without it, or where the sequence ends before, the effective length is "at least".

The guessing rate is stated chance, or that of `wrong_key` where it is larger; at a length where that control was not
run, its rate at the nearest shorter one counts.
Reference length, of ratios, tests of lengths and gates: the training length, or the nearest tested length below it;
`trained_end` is in its place where trained distances end earlier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple, TypeVar

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.families import Branch, Claim, gates_of
from lcprobe.analysis.findings.skill import (
    Skill,
    SkillTest,
    guessed_at,
    p_above_zero,
    skill_of,
    skill_tests,
)
from lcprobe.analysis.findings.slice_tests import proportions, shared_samples
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.differences import ratio_bounds
from lcprobe.analysis.stats.estimates import Estimate, Proportion
from lcprobe.analysis.stats.multiplicity import ALPHA

SHARE_OF_BASE = 0.85
CAN_DO: Branch = "what each model can do"
BEYOND_TRAINED = 0.1
"""Share of a length's needle distances that may be longer than any in training."""


FloatOrArray = TypeVar("FloatOrArray", float, np.ndarray)


@dataclass(frozen=True, kw_only=True)
class Extrapolation(Claim):
    """One model, task and format over lengths. The claim is that of a limit; its parts are those of the sequence.

    by_length: length, accuracy, and its ratio to accuracy at the reference length. base: accuracy at the length of
    the best skill up to the training length, base_length. level: accuracy that the effective length requires there.
    steps: the lengths of the sequence, one per part, the base first; empty where `reason` says why. limit: the length
    that the claim is about. note: what else is to be known. trained_end: where training ends: the training length, or
    the longest tested length within trained distances.
    """

    where: PanelKey
    context_length: int
    trained_end: int
    reference_length: int
    base_length: int | None = None
    base: Proportion | Unavailable
    level: float | None = None
    by_length: tuple[tuple[int, Proportion | Unavailable, Estimate | None], ...]
    steps: tuple[int, ...] = ()
    limit: int | None = None
    reason: str = ""
    remark: str = ""

    @property
    def effective(self) -> int | None:
        """Effective length, None where `note` has the reason."""
        passed = list(takewhile(lambda step: step[1].holds, zip(self.steps, self.parts, strict=True)))
        return passed[-1][0] if passed else None

    @property
    def note(self) -> str:
        """Why there is no effective length, or what else is to be known about it."""
        if self.effective is not None:
            return self.remark
        return self.reason or f"not resolved: skill at {self.steps[0]:,} tokens is not resolved above 0"

    @property
    def at_least(self) -> bool:
        """Whether the true effective length may be longer: the next length is not resolved below the level."""
        if self.effective is None:
            return False
        longer = [length for length, _, _ in self.by_length if length > self.effective]
        return not self.resolved or not longer or longer[0] != self.limit

    @property
    def multiple(self) -> float | None:
        """Effective length over training length."""
        return None if self.effective is None else self.effective / self.context_length

    def __str__(self) -> str:
        if self.effective is None:
            return self.note
        least = ">= " if self.at_least else ""
        longer = [length for length, _, _ in self.by_length if length > self.effective]
        notes = [f"whether {longer[0]:,} passes is not resolved"] if self.at_least and longer else []
        notes = [note for note in (self.note, *notes) if note]
        note = f" ({'; '.join(notes)})" if notes else ""
        return f"{least}{self.effective:,} tokens = {least}{self.multiple:g} x the training length{note}"


class Base(NamedTuple):
    """The best accuracy up to the training length. level: what an effective length requires."""

    length: int
    part: Slice
    floor: float
    level: float


def reference_length(lengths: Sequence[int], trained_end: int) -> int:
    """The end of training where it was probed, else the nearest tested length below it, else the shortest."""
    below = [length for length in lengths if length <= trained_end]
    return max(below) if below else min(lengths)


def trained_end(data: Measured, run: RunFacts, where: PanelKey) -> int:
    """Where training ends: the training length, or the longest tested length of which at most BEYOND_TRAINED of the
    needle distances are longer than any in training. Distances that were not recorded set no end."""
    lengths = [n for n in data.lengths(where.task, where.format) if n <= run.context_length]
    farthest = None if run.training_data is None else run.training_data.longest
    panel = data.panels.get(where)
    if farthest is None or panel is None or not len(panel.needle_trials.distance):
        return run.context_length
    distance, at = panel.needle_trials.distance, panel.needle_trials.cell // len(panel.depths)
    inside = list(lengths)
    while inside and inside[-1] in panel.lengths:
        own = distance[at == panel.lengths.index(inside[-1])]
        if not len(own) or np.mean(own > farthest) <= BEYOND_TRAINED:
            break
        inside.pop()
    if inside == lengths:
        return run.context_length
    return inside[-1] if inside else 0


def floor_of(data: Measured, where: PanelKey) -> float:
    """The accuracy to which a model falls: the larger of stated chance and what is named without the key, means over
    lengths; zero where the value has no rival."""
    lengths, task = data.lengths(where.task, where.format), _task(data, where.task)
    parts = [data.slice(where, length) for length in lengths]
    known = [part.guessed for part in parts if isinstance(part, Slice)]
    named = _values([guessed_at(data, task, where, length) for length in lengths])
    return max(float(np.mean(rates)) if rates else 0.0 for rates in (known, named))


def base_of(data: Measured, where: PanelKey, context_length: int) -> Base | Unavailable:
    """The base of a panel: the shortest of the best lengths; unavailable where one of those is incomplete."""
    lengths, best = lengths_inside(data.lengths(where.task, where.format), context_length), None
    for length in lengths:
        part = data.slice(where, length)
        if isinstance(part, Unavailable):
            return Unavailable(f"base at {length:,} tokens: {part}")
        if best is None or part.value > best[1].value:
            best = length, part
    assert best is not None
    floor = floor_of(data, where)
    return Base(*best, floor, level_above(floor, best[1].value))


def lengths_inside(lengths: Sequence[int], trained_end: int) -> list[int]:
    """Tested lengths up to the end of training, or the shortest one."""
    return [length for length in lengths if length <= trained_end] or [min(lengths)]


def level_above(floor: float, base: FloatOrArray) -> FloatOrArray:
    """The accuracy that an effective length requires."""
    return floor + SHARE_OF_BASE * (base - floor)


def extrapolations(data: Measured, closed: Mapping[PanelKey, str], ratios: bool = True) -> list[Extrapolation]:
    """Extrapolation of every model, task and format. closed: panels that are not to be interpreted, and why. ratios:
    whether by_length has them, which is most of the time."""
    return [
        _extrapolation(data, run, task, PanelKey(run.name, task.name, format), closed, ratios)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def _extrapolation(
    data: Measured, run: RunFacts, task: TaskFacts, where: PanelKey, closed: Mapping[PanelKey, str], ratios: bool
) -> Extrapolation:
    lengths, end = data.lengths(where.task, where.format), trained_end(data, run, where)
    reference, inside = reference_length(lengths, end), lengths_inside(lengths, end)
    parts = {length: data.slice(where, length) for length in lengths}
    estimates = {length: p if isinstance(p, Unavailable) else p.estimate for length, p in parts.items()}
    ratio_of = _ratios(parts, parts[reference]) if ratios else dict.fromkeys(lengths)
    blank = Extrapolation(
        family=f"{run.name} on {task.name}",
        given=gates_of(where),
        where=where,
        context_length=run.context_length,
        trained_end=end,
        reference_length=reference,
        base=Unavailable("not tested"),
        by_length=tuple(zip(lengths, estimates.values(), ratio_of.values(), strict=True)),
    )
    for length in inside:
        if isinstance(part := parts[length], Unavailable):
            reason = f"base at {length:,} tokens: {part}"
            return replace(blank, base=Unavailable(reason), reason=reason)
    skills = skills_by_length(data, task, where)
    known = {length: skill for length in inside if isinstance(skill := skills[length], Skill)}
    if not known:
        return replace(blank, base=estimates[inside[0]], base_length=inside[0], reason=str(skills[inside[0]]))
    best = max(known, key=lambda length: (known[length].value, -length))
    guessed = known[best].guessed
    accuracy = known[best].accuracy
    blank = replace(blank, base=estimates[best], base_length=best, level=level_above(guessed, accuracy))
    if where in closed:
        return replace(blank, reason=closed[where])
    part = parts[best]
    if isinstance(part, Slice) and "floor" in (state := part.limit or ""):
        return replace(blank, reason=state)
    steps, p, remark = _sequence(skills, known, best, [n for n in lengths if n > best])
    if best > end:
        remark = "; ".join(filter(None, [f"base: {best:,} tokens, no length up to the training length", remark]))
    names = [f"{where} passes {length}" for length in steps]
    claims = [
        Claim(branch=CAN_DO, family=blank.family, p=p_step, name=name, behind=before, given=blank.given)
        for name, before, p_step in zip(names, ["", *names], steps.values(), strict=False)
    ]
    ended = next((length for length, p_step in steps.items() if p_step >= ALPHA), None)
    return replace(blank, steps=tuple(steps), parts=tuple(claims), limit=ended, p=p, remark=remark)


def skills_by_length(data: Measured, task: TaskFacts, where: PanelKey) -> dict[int, Skill | Unavailable]:
    """Skill at every length, above the larger of stated chance and what `wrong_key` names."""
    skills: dict[int, Skill | Unavailable] = {}
    last = 0.0
    for length in data.lengths(where.task, where.format):
        part, guesses = data.slice(where, length), guessed_at(data, task, where, length)
        if isinstance(part, Unavailable):
            skills[length] = part
            continue
        if isinstance(guesses, Slice):
            last = guesses.value
        guesses = max(last, part.guessed) if isinstance(guesses, Unavailable) else guesses
        skills[length] = skill_of(part, guesses, part.guessed)
    return skills


def _sequence(
    skills: dict[int, Skill | Unavailable], bases: dict[int, Skill], best: int, longer: Sequence[int]
) -> tuple[dict[int, float], float | None, str]:
    """The p that the base is above 0, and that each longer length passes, up to the first that does not at .05; the p
    that this one is below, 1 where all pass and None where the base does not; and a remark."""
    steps = {best: min(1.0, p_above_zero(bases[best]) * len(bases))}
    if steps[best] >= ALPHA:
        return steps, None, ""
    measured = {length: skill for length in longer if isinstance(skill := skills[length], Skill)}
    tests = skill_tests([[(1.0, s), (-SHARE_OF_BASE, base)] for s in measured.values() for base in bases.values()])
    of_each = {length: tests[i * len(bases) : (i + 1) * len(bases)] for i, length in enumerate(measured)}
    for length in longer:
        if isinstance(skill := skills[length], Unavailable):
            steps[length] = 1.0
            return steps, 1.0, f"{length:,} tokens: {skill}"
        known = [test for test in of_each[length] if isinstance(test, SkillTest)]
        passes = len(known) == len(bases) and min(test.value for test in known) > 0
        steps[length] = max(test.p_above for test in known) if passes else 1.0
        if steps[length] >= ALPHA:
            return steps, min([1.0, *(test.p * len(bases) for test in known if test.value < 0)]), ""
    return steps, 1.0, ""


def _task(data: Measured, name: str) -> TaskFacts:
    return next(task for task in data.tasks if task.name == name)


def _values(guesses: Sequence[Slice | float | Unavailable]) -> list[float]:
    return [g.value if isinstance(g, Slice) else g for g in guesses if not isinstance(g, Unavailable)]


def _ratios(parts: Mapping[int, Slice | Unavailable], base: Slice | Unavailable) -> dict[int, Estimate | None]:
    """Accuracy over that of the base; lengths with equally many shared samples together."""
    ratios: dict[int, Estimate | None] = dict.fromkeys(parts)
    if isinstance(base, Unavailable) or not base.hits.any():
        return ratios
    shares: dict[int, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for length, part in parts.items():
        if isinstance(part, Slice):
            shared = shared_samples([part, base])
            shares.setdefault(len(shared), {})[length] = proportions(part, shared), proportions(base, shared)
    for n, own in shares.items():
        bounds = ratio_bounds(*(np.stack(side) for side in zip(*own.values(), strict=True)))
        for length, low, high in zip(own, *(bound.tolist() for bound in bounds), strict=True):
            part = parts[length]
            assert isinstance(part, Slice)
            ratios[length] = Estimate(part.value / base.value, low, high, n, ".2f")
    return ratios
