"""Gates before any statement about context: is the task acquired, and is the key used?

Task acquired: the zero-distance control (needle directly before the question) at the reference length (the training
length or the nearest below). Its lower bound must exceed the midpoint between the score without retrieval and 1; for
a task that fails ("not acquired"), results at longer distances are not interpretable. Score without retrieval: the
larger of the no-needle control, where it was run, and stated chance, where the task needs look-up.

Key look-up, from the skill (acc - chance) / (1 - chance) at the same length: acquired when its lower bound exceeds
0.5, partly when accuracy is above chance, else not acquired. Tasks with one value in the context need none; there, a
model that still prints the value when an absent key is queried (wrong_key) copies the needle without using the key.
"""

from dataclasses import dataclass
from typing import Literal

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import FLOOR, SHARE_OF_BASE, reference_length
from lcprobe.analysis.inputs import TaskFacts
from lcprobe.analysis.stats.estimates import Proportion

GATE_CONTROLS = ("zero_distance", "no_needle", "wrong_key", "query_only")


@dataclass(frozen=True)
class Gate:
    """Gates of one model on one task and format at `length`, its reference length.

    controls: estimates by name at the same length, absent where not planned. zero_far: the zero-distance control at
    the longest length where it was run. lookup: acquired | partly | not acquired | the reason why it cannot be
    tested; None where the task needs no look-up. copies: whether the needle is copied whatever key is queried, None
    where unknown.
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
    copies: bool | None

    @property
    def skill(self) -> tuple[float, float, float] | None:
        """Skill with its bounds; None without an accuracy or a chance level below 1."""
        if self.chance is None or isinstance(self.accuracy, Unavailable):
            return None
        a = self.accuracy
        value, low, high = ((x - self.chance) / (1 - self.chance) for x in (a.value, a.low, a.high))
        return value, low, high


def gates(data: Measured) -> list[Gate]:
    """Gates of every model, task and format."""
    return [
        _gate(data, PanelKey(run.name, task.name, format), task, run.context_length)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def _gate(data: Measured, where: PanelKey, task: TaskFacts, context_length: int) -> Gate:
    length = reference_length(data.lengths(where.task, where.format), context_length)
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
    return Gate(
        where=where,
        length=length,
        chance=chance,
        accuracy=accuracy,
        controls=controls,
        zero_far=_farthest_zero_distance(data, where, length),
        acquired=acquired,
        acquired_above=needed,
        lookup=_lookup(accuracy, chance) if task.needs_lookup else None,
        copies=None if task.needs_lookup else _copies(data, where, length, part),
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


def _lookup(accuracy: Proportion | Unavailable, chance: float | None) -> str:
    if isinstance(accuracy, Unavailable):
        return accuracy.reason
    if chance is None:
        return "not testable (no chance level)"
    if (accuracy.low - chance) / (1 - chance) > 0.5:
        return "acquired"
    return "partly" if accuracy.low > chance else "not acquired"


def _copies(data: Measured, where: PanelKey, length: int, part: Slice | Unavailable) -> bool | None:
    """Whether wrong_key's lower bound exceeds 0.85 of the accuracy at the same depths; None at the floor."""
    wrong_key = data.slice(where._replace(control="wrong_key"), length)
    if isinstance(part, Unavailable) or isinstance(wrong_key, Unavailable):
        return None
    same = part.at_depths(wrong_key.depths)
    if not same.depths or same.value < FLOOR:
        return None
    return wrong_key.estimate.low > SHARE_OF_BASE * same.value
