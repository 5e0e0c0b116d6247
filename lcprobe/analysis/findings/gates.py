"""Gates before any statement about context: is the task acquired, and is the key used?

Task acquired: the zero-distance control (needle directly before the question) at the reference length (the training
length or the nearest below). Its lower bound must exceed the midpoint between the score without retrieval and 1; for
a task that fails ("not acquired"), results at longer distances are not interpretable. Score without retrieval: the
larger of the no-needle control, where it was run, and stated chance, where that is below 1.

Key look-up, from the control `wrong_key` at the same length, strata and samples: the value counts although another,
absent key is queried, so that its rate is what a model names by order alone. Partly acquired: accuracy - that rate is
above 0, paired by sample, and accuracy is above stated chance. Acquired: also the lower bound of the skill exceeds
0.5 (`findings.skill`). A look-up task that has the control and was not asked it is not tested, and nothing is claimed
about its context: printing the last value is above stated chance on every grid of depths. Tasks without that control
are judged against stated chance. Whether there is something to look up is a property of task and format: where the
value has no rival (stated chance is 1: one key, and a haystack without keys) there is not, and a model that still
prints the value when an absent key is queried copies the needle without using the key.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import FLOOR, SHARE_OF_BASE, reference_length, trained_end
from lcprobe.analysis.findings.skill import Skill, SkillTest, guessed_at, skill_of, skill_test
from lcprobe.analysis.findings.slice_tests import paired_test
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.multiplicity import ALPHA

GATE_CONTROLS = ("zero_distance", "no_needle", "wrong_key", "query_only")


@dataclass(frozen=True)
class Gate:
    """Gates of one model on one task and format at `length`, its reference length.

    controls: estimates by name at the same length, absent where not planned. zero_far: the zero-distance control at
    the longest length where it was run. lookup: acquired | partly | not acquired | the reason why it cannot be
    tested; None where the task needs no look-up. skill: with its 95 % bounds, None where it cannot be tested. copies:
    whether the needle is copied whatever key is queried, None where unknown.
    """

    where: PanelKey
    length: int
    chance: float | None
    accuracy: Proportion | Unavailable
    controls: dict[str, Proportion | Unavailable]
    zero_far: tuple[int, Proportion] | None
    acquired: Literal["acquired", "not acquired", "not tested"]
    acquired_above: float
    lookup: str | None
    skill: SkillTest | None
    copies: bool | None

    @property
    def closed(self) -> str | None:
        """Why nothing can be claimed about the model's use of the context, or None."""
        if self.acquired == "not acquired":
            return "task not acquired"
        if self.lookup in (None, "acquired", "partly"):
            return None
        return "key look-up not acquired" if self.lookup == "not acquired" else self.lookup


def closed_panels(gates: list[Gate]) -> dict[PanelKey, str]:
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
    accuracy = _estimate(part)
    controls = {
        name: _estimate(data.slice(where._replace(control=name), length))
        for name in GATE_CONTROLS
        if length in data.lengths(where.task, where.format, name)
    }
    chance = part.chance if isinstance(part, Slice) and part.chance < 1 else None
    no_needle, zero_distance = controls.get("no_needle"), controls.get("zero_distance")
    without_retrieval = max(no_needle.value if isinstance(no_needle, Proportion) else 0.0, chance or 0.0)
    needed = (1 + without_retrieval) / 2
    acquired = "not tested"
    if isinstance(zero_distance, Proportion):
        acquired = "acquired" if zero_distance.low > needed else "not acquired"
    no_rival = not task.has_keys or (isinstance(part, Unavailable) and task.chance == 1)
    lookup, skill = (None, None) if no_rival else _lookup(part, guessed_at(data, task, where, length), length)
    return Gate(
        where=where,
        length=length,
        chance=chance,
        accuracy=accuracy,
        controls=controls,
        zero_far=_farthest_zero_distance(data, where, length),
        acquired=acquired,
        acquired_above=needed,
        lookup=lookup,
        skill=skill,
        copies=_copies(data, where, length, part) if lookup is None else None,
    )


def _estimate(part: Slice | Unavailable) -> Proportion | Unavailable:
    return part if isinstance(part, Unavailable) else part.estimate


def _farthest_zero_distance(data: Measured, where: PanelKey, length: int) -> tuple[int, Proportion] | None:
    zero = where._replace(control="zero_distance")
    for far in reversed(data.lengths(where.task, where.format, "zero_distance")):
        part = data.slice(zero, far) if far > length else None
        if isinstance(part, Slice):
            return far, part.estimate
    return None


def _lookup(
    part: Slice | Unavailable, guesses: Slice | float | Unavailable, length: int
) -> tuple[str | None, SkillTest | None]:
    if isinstance(part, Unavailable):
        return part.reason, None
    if not part.guessed:
        return None, None
    if isinstance(guesses, Unavailable):
        reason = f"no wrong_key control at {length} tokens" if "no wrong_key" in guesses.reason else guesses.reason
        return f"not tested ({reason})", None
    above = part.estimate.low > part.chance
    if isinstance(guesses, Slice):
        part = part.at_depths(guesses.depths)
        if not part.depths:
            return "not tested (wrong_key was asked at other depths)", None
        test = paired_test([(Fraction(1), part)], guesses)
        if isinstance(test, Unavailable):
            return test.reason, None
        above = above and test.p < ALPHA and test.difference > 0
    skill = skill_of(part, guesses, part.chance)
    tested = skill_test([(1.0, skill)]) if isinstance(skill, Skill) else skill
    known = tested if isinstance(tested, SkillTest) else None
    if not above:
        return "not acquired", known
    return "acquired" if known is not None and known.low > 0.5 else "partly", known


def _copies(data: Measured, where: PanelKey, length: int, part: Slice | Unavailable) -> bool | None:
    """Whether wrong_key's lower bound exceeds 0.85 of the accuracy at the same depths; None at the floor."""
    wrong_key = data.slice(where._replace(control="wrong_key"), length)
    if isinstance(part, Unavailable) or isinstance(wrong_key, Unavailable):
        return None
    same = part.at_depths(wrong_key.depths)
    if not same.depths or same.value < FLOOR:
        return None
    return wrong_key.estimate.low > SHARE_OF_BASE * same.value
