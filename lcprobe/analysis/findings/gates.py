"""Gates before any statement about context: is the task acquired, is the key looked up, what is scored without retrieval.

Task acquired: the zero-distance control (needle directly before the question) at the base length. Its lower bound must exceed
the middle between what is scored without retrieval and 1; a task that fails is "not acquired", and what happens at longer
distances says nothing. Scored without retrieval: the larger of the no-needle control, where it was run, and stated chance,
where the task needs look-up.

Key look-up, from the skill (acc - chance) / (1 - chance) at the base length: acquired when its lower bound exceeds 0.5, partly
when accuracy is above chance, else not acquired. Tasks with one value in the context need none; there, a model that still
prints the value when an absent key is asked for (wrong_key) copies the needle without looking at the key.
"""

from dataclasses import dataclass

from lcprobe.analysis.findings.cells import Estimate, Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE, base_length
from lcprobe.analysis.inputs import TaskFacts

CONTROLS = ("zero_distance", "no_needle", "wrong_key", "query_only")


@dataclass(frozen=True)
class Gate:
    """What one model shows on one task and format at `length`, its base.

    controls: estimates by name at the same length, absent where not planned. zero_far: the zero-distance control at the longest
    length where it was run. acquired: acquired | not acquired | not tested. lookup: acquired | partly | not acquired, None
    where the task needs no look-up. copies: whether the needle is copied whatever key is asked for, None where not known.
    """

    where: PanelKey
    length: int
    chance: float | None
    accuracy: Estimate | Unavailable
    controls: dict[str, Estimate | Unavailable]
    zero_far: tuple[int, Estimate] | None
    acquired: str
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
    """For every model, task and format."""
    return [
        _gate(data, PanelKey(run.name, task.name, format), task, run.context_length)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def _gate(data: Measured, where: PanelKey, task: TaskFacts, context_length: int) -> Gate:
    length = base_length(data.lengths(where.task, where.format), context_length)
    part = data.slice(where, length)
    accuracy = part if isinstance(part, Unavailable) else part.estimate
    controls: dict[str, Estimate | Unavailable] = {}
    for name in CONTROLS:
        if length in data.lengths(where.task, where.format, name):
            found = data.slice(where._replace(control=name), length)
            controls[name] = found if isinstance(found, Unavailable) else found.estimate
    chance = part.chance if isinstance(part, Slice) and part.chance < 1 else None
    none, zero = controls.get("no_needle"), controls.get("zero_distance")
    without = max(none.value if isinstance(none, Estimate) else 0.0, chance or 0.0)
    needed = (1 + without) / 2
    acquired = "not tested"
    if isinstance(zero, Estimate):
        acquired = "acquired" if zero.low > needed else "not acquired"
    return Gate(
        where,
        length,
        chance,
        accuracy,
        controls,
        _far(data, where, length),
        acquired,
        needed,
        _lookup(accuracy, chance) if task.needs_lookup else None,
        _copies(data, where, length, part) if not task.needs_lookup else None,
    )


def _far(data: Measured, where: PanelKey, length: int) -> tuple[int, Estimate] | None:
    zero = where._replace(control="zero_distance")
    for far in reversed(data.lengths(where.task, where.format, "zero_distance")):
        part = data.slice(zero, far) if far > length else None
        if isinstance(part, Slice):
            return far, part.estimate
    return None


def _lookup(accuracy: Estimate | Unavailable, chance: float | None) -> str:
    if isinstance(accuracy, Unavailable):
        return accuracy.reason
    if chance is None:
        return "not testable (no chance level)"
    if (accuracy.low - chance) / (1 - chance) > 0.5:
        return "acquired"
    return "partly" if accuracy.low > chance else "not acquired"


def _copies(data: Measured, where: PanelKey, length: int, part: Slice | Unavailable) -> bool | None:
    """Whether wrong_key's lower bound exceeds 0.85 of the accuracy at the same depths; None below an accuracy of 0.05."""
    wrong = data.slice(where._replace(control="wrong_key"), length)
    if isinstance(part, Unavailable) or isinstance(wrong, Unavailable):
        return None
    same = part.only(wrong.depths)
    if not same.depths or same.value < 0.05:
        return None
    return wrong.estimate.low > SHARE_OF_BASE * same.value
