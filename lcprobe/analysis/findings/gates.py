"""Gates before any statement about context: is the task acquired, and is the key used?

Task acquired: the zero-distance control (needle directly before the question) at the reference length (the training
length or the nearest below) is above the midpoint between the score without retrieval and 1; for a task that fails
("not acquired"), results at longer distances are not interpretable. Score without retrieval: the larger of the
no-needle control, where it was run, and stated chance, where that is below 1.

Key look-up, from the control `wrong_key` at the same length, strata and samples: the value counts although another,
absent key is queried, so that its rate is what a model names by order alone. Partly acquired: accuracy - that rate is
above 0, paired by sample, and accuracy is above stated chance. Acquired: also the skill is above 0.5
(`findings.skill`). A look-up task that has the control and was not asked it is not tested, and nothing is claimed
about its context: printing the last value is above stated chance on every grid of depths. Tasks without that control
are judged against stated chance. Whether there is something to look up is a property of task and format: where the
value has no rival (stated chance is 1: one key, and a haystack without keys) there is not, and a model that still
prints the value when an absent key is queried copies the needle without using the key.

All of these are claims of the report (`findings.families`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from lcprobe.analysis.findings.cells import FLOOR, Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import CAN_DO, SHARE_OF_BASE, reference_length, trained_end
from lcprobe.analysis.findings.families import Claim, gates_of
from lcprobe.analysis.findings.skill import Skill, SkillTest, guessed_at, skill_of, skill_test
from lcprobe.analysis.findings.slice_tests import paired_test, proportions, shared_samples
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.differences import contrast_p, contrast_values
from lcprobe.analysis.stats.estimates import Proportion

HALF = 0.5
"""Skill above which key look-up is acquired and not only partly."""
GATE_CONTROLS = ("zero_distance", "no_needle", "wrong_key", "query_only")
Kind = Literal["task", "look-up", "half", "breaks down", "copies"]


@dataclass(frozen=True, kw_only=True)
class GateClaim(Claim):
    """One claim of a gate: the task is acquired | the key is looked up | its skill is above HALF | the zero-distance
    control fails at the longest length | the needle is copied whatever key is queried."""

    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Gate(Claim):
    """Gates of one model on one task and format at `length`, its reference length; its parts are GateClaims.

    controls: estimates by name at the same length, absent where not planned. zero_far: the zero-distance control at
    the longest length where it was run. rivals: whether there is a key to look up. untested: why look-up cannot be
    tested. skill: with its 95 % bounds, None where it cannot be tested.
    """

    where: PanelKey
    length: int
    chance: float | None
    accuracy: Proportion | Unavailable
    controls: dict[str, Proportion | Unavailable]
    zero_far: tuple[int, Proportion] | None
    acquired_above: float
    rivals: bool
    untested: str | None
    skill: SkillTest | None

    def holds_that(self, kind: Kind) -> bool | None:
        """Whether a claim is a finding; None where it is not tested."""
        own = [part.holds for part in self.parts if isinstance(part, GateClaim) and part.kind == kind]
        return own[0] if own else None

    @property
    def acquired(self) -> Literal["acquired", "not acquired", "not tested"]:
        """Whether the task is."""
        found = self.holds_that("task")
        return "not tested" if found is None else "acquired" if found else "not acquired"

    @property
    def lookup(self) -> str | None:
        """acquired | partly | not acquired | the reason why it cannot be tested; None where there is none."""
        if not self.rivals or self.untested is not None:
            return self.untested
        if not self.holds_that("look-up"):
            return "not acquired"
        return "acquired" if self.holds_that("half") else "partly"

    @property
    def copies(self) -> bool | None:
        """Whether the needle is copied whatever key is queried, None where unknown."""
        return self.holds_that("copies")

    @property
    def closed(self) -> str | None:
        """Why nothing can be claimed about the model's use of the context, or None."""
        if self.acquired == "not acquired":
            return "task not acquired"
        if self.lookup in (None, "acquired", "partly"):
            return None
        return "key look-up not acquired" if self.lookup == "not acquired" else self.lookup


class Lookup(NamedTuple):
    """What is known about key look-up. p: of it, and of a skill above HALF; None where not tested."""

    rivals: bool
    untested: str | None = None
    skill: SkillTest | None = None
    p: float | None = None
    p_half: float | None = None


def closed_panels(gates: Sequence[Gate]) -> dict[PanelKey, str]:
    """Panels whose gate is closed, and why."""
    return {gate.where: reason for gate in gates if (reason := gate.closed) is not None}


def gates(data: Measured) -> list[Gate]:
    """Gates of every model, task and format."""
    return [
        _gate(data, PanelKey(run.name, task.name, format), task, run)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def _gate(data: Measured, where: PanelKey, task: TaskFacts, run: RunFacts) -> Gate:
    length = reference_length(data.lengths(where.task, where.format), trained_end(data, run, where))
    part = data.slice(where, length)
    asked = {
        name: data.slice(where._replace(control=name), length)
        for name in GATE_CONTROLS
        if length in data.lengths(where.task, where.format, name)
    }
    no_needle, zero, wrong_key = (asked.get(name) for name in ("no_needle", "zero_distance", "wrong_key"))
    chance = part.guessed if isinstance(part, Slice) else 0.0
    needed = (1 + max(no_needle.value if isinstance(no_needle, Slice) else 0.0, chance)) / 2
    no_rival = not task.has_keys or (isinstance(part, Unavailable) and task.chance == 1)
    lookup = Lookup(False) if no_rival else _lookup(part, guessed_at(data, task, where, length), length)
    far = _farthest_zero_distance(data, where, length)
    p_values: dict[Kind, float | None] = {
        "task": _p(zero, needed) if isinstance(zero, Slice) else None,
        "look-up": lookup.p,
        "half": lookup.p_half,
        "breaks down": _p(far[1], needed, -1.0) if far is not None and isinstance(zero, Slice) else None,
        "copies": None if lookup.rivals else _copies(part, wrong_key),
    }
    task_name, lookup_name = gates_of(where)
    names, behind = {"task": task_name, "look-up": lookup_name}, {"half": lookup_name, "breaks down": task_name}
    family = f"{where.model} on {where.task}"
    return Gate(
        where=where,
        length=length,
        chance=chance or None,
        accuracy=_estimate(part),
        controls={name: _estimate(own) for name, own in asked.items()},
        zero_far=None if far is None else (far[0], far[1].estimate),
        acquired_above=needed,
        rivals=lookup.rivals,
        untested=lookup.untested,
        skill=lookup.skill,
        parts=tuple(
            GateClaim(
                kind=kind, branch=CAN_DO, family=family, p=p, name=names.get(kind, ""), behind=behind.get(kind, "")
            )
            for kind, p in p_values.items()
            if p is not None
        ),
    )


def _estimate(part: Slice | Unavailable) -> Proportion | Unavailable:
    return part if isinstance(part, Unavailable) else part.estimate


def _p(part: Slice, level: float, sign: float = 1.0) -> float:
    """Two-sided p that accuracy is a level; 1 where it is not above it (sign 1), or below (sign -1)."""
    terms = [(1.0, proportions(part, part.index))]
    return float(contrast_p(terms, -level)) if sign * float(contrast_values(terms, -level).mean()) > 0 else 1.0


def _farthest_zero_distance(data: Measured, where: PanelKey, length: int) -> tuple[int, Slice] | None:
    zero = where._replace(control="zero_distance")
    for far in reversed(data.lengths(where.task, where.format, "zero_distance")):
        part = data.slice(zero, far) if far > length else None
        if isinstance(part, Slice):
            return far, part
    return None


def _lookup(part: Slice | Unavailable, guesses: Slice | float | Unavailable, length: int) -> Lookup:
    if isinstance(part, Unavailable):
        return Lookup(True, part.reason)
    if not part.guessed:
        return Lookup(False)
    if isinstance(guesses, Unavailable):
        reason = f"no wrong_key control at {length:,} tokens" if "no wrong_key" in guesses.reason else guesses.reason
        return Lookup(True, f"not tested ({reason})")
    p = _p(part, part.chance)
    if isinstance(guesses, Slice):
        part = part.at_depths(guesses.depths)
        if not part.depths:
            return Lookup(True, "not tested (wrong_key was asked at other depths)")
        test = paired_test(part, guesses)
        if isinstance(test, Unavailable):
            return Lookup(True, test.reason)
        p = max(p, test.p if test.difference > 0 else 1.0)
    skill = skill_of(part, guesses, part.chance)
    tested = skill_test([(1.0, skill)]) if isinstance(skill, Skill) else skill
    if not isinstance(skill, Skill) or not isinstance(tested, SkillTest):
        return Lookup(True, p=p)
    above = skill_test([(1.0, replace(skill, value=skill.value - HALF, constant=skill.constant - HALF))])
    p_half = above.p_above if isinstance(above, SkillTest) else 1.0
    return Lookup(True, skill=tested, p=p, p_half=p_half)


def _copies(part: Slice | Unavailable, wrong_key: Slice | Unavailable | None) -> float | None:
    """The p that wrong_key's rate is above 0.85 of the accuracy at the same depths; None at the floor."""
    if not isinstance(part, Slice) or not isinstance(wrong_key, Slice):
        return None
    same = part.at_depths(wrong_key.depths)
    if not same.depths or same.value < FLOOR:
        return None
    shared = shared_samples([wrong_key, same])
    if len(shared) < 2:
        return None
    terms: list[tuple[float, np.ndarray]]
    terms = [(1.0, proportions(wrong_key, shared)), (-SHARE_OF_BASE, proportions(same, shared))]
    return float(contrast_p(terms)) if float(contrast_values(terms).mean()) > 0 else 1.0
