"""Past the training length: accuracy relative to the training length, and the effective length.

Effective length: the longest tested length whose lower bound exceeds floor + 0.85 x (base - floor). The base is the
model's best accuracy at any tested length up to its training length, as NoLiMa's base score is that of short contexts
(arXiv 2502.05167). Accuracy at the training length itself would be too lenient where a model already fails there: one
with a fixed reach would seem to have an effective length in proportion to what it was trained on. The floor is chance
for look-up tasks, else zero. RULER's constant of 85.6 % is one model's score and out of reach for small ones. The
effective length is a limit only where the upper bound of a longer length is below the level; otherwise it is reported
as "at least".

Reference length, of ratios, tests of lengths and gates: the training length, or the nearest tested length below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.stats.differences import ratio_bounds
from lcprobe.analysis.stats.estimates import Estimate, Proportion
from lcprobe.analysis.stats.intervals import wilson

SHARE_OF_BASE = 0.85
FLOOR, CEILING = 0.05, 0.95


FloatOrArray = TypeVar("FloatOrArray", float, np.ndarray)


@dataclass(frozen=True)
class Extrapolation:
    """One model, task and format over lengths.

    by_length: length, accuracy, and its ratio to accuracy at the reference length. base: best accuracy up to the
    training length, at base_length. level: accuracy that the effective length requires. effective: effective length,
    None where `note` has the reason. at_least: whether the true one may be longer, since no longer length is below
    the level by its upper bound.
    """

    where: PanelKey
    context_length: int
    reference_length: int
    base_length: int | None
    base: Proportion | Unavailable
    level: float | None
    by_length: tuple[tuple[int, Proportion | Unavailable, Estimate | None], ...]
    effective: int | None
    at_least: bool
    note: str

    @property
    def multiple(self) -> float | None:
        """Effective length over training length."""
        return None if self.effective is None else self.effective / self.context_length

    def __str__(self) -> str:
        if self.effective is None:
            return self.note
        least = ">= " if self.at_least else ""
        note = f" ({self.note})" if self.note else ""
        return f"{least}{self.effective} tokens = {least}{self.multiple:g} x the training length{note}"


class Base(NamedTuple):
    """The best accuracy up to the training length. level: what an effective length requires."""

    length: int
    part: Slice
    floor: float
    level: float


def reference_length(lengths: Sequence[int], context_length: int) -> int:
    """The training length where it was probed, else the nearest tested length below it, else the shortest."""
    below = [length for length in lengths if length <= context_length]
    return max(below) if below else min(lengths)


def floor_of(data: Measured, where: PanelKey) -> float:
    """The accuracy to which a model falls: chance where it is below 1, else zero (one value in the context)."""
    parts = [data.slice(where, length) for length in data.lengths(where.task, where.format)]
    chances = [part.chance for part in parts if isinstance(part, Slice)]
    return float(np.mean(chances)) if chances and max(chances) < 1 else 0.0


def base_of(data: Measured, where: PanelKey, context_length: int) -> Base | Unavailable:
    """The base of a panel: the shortest of the best lengths; unavailable where one of those is incomplete."""
    lengths, best = lengths_inside(data.lengths(where.task, where.format), context_length), None
    for length in lengths:
        part = data.slice(where, length)
        if isinstance(part, Unavailable):
            return Unavailable(f"base at {length} tokens: {part}")
        if best is None or part.value > best[1].value:
            best = length, part
    assert best is not None
    floor = floor_of(data, where)
    return Base(*best, floor, level_above(floor, best[1].value))


def lengths_inside(lengths: Sequence[int], context_length: int) -> list[int]:
    """Tested lengths up to the training length, or the shortest one."""
    return [length for length in lengths if length <= context_length] or [min(lengths)]


def level_above(floor: float, base: FloatOrArray) -> FloatOrArray:
    """The accuracy that an effective length requires."""
    return floor + SHARE_OF_BASE * (base - floor)


def floor_or_ceiling(part: Slice) -> str | None:
    """Why differences inside a slice cannot be tested, or None.

    At the floor: the mean is below 0.05, or, for tasks with a chance level below 1, no depth is above chance by its
    Wilson bound (each depth by itself, as a model that retrieves the last needle alone has a mean near chance).
    """
    if part.value > CEILING:
        return "not testable (ceiling)"
    if part.value < FLOOR:
        return "not testable (floor)"
    lower_bounds = wilson(part.hits.sum(axis=1), part.trials.sum(axis=1))[0]
    if part.chance < 1 and max(lower_bounds) <= part.chance:
        return "not testable (floor: no depth above chance)"
    return None


def extrapolations(data: Measured) -> list[Extrapolation]:
    """Extrapolation of every model, task and format."""
    return [
        _extrapolation(data, PanelKey(run.name, task.name, format), run.context_length)
        for task in data.tasks
        for format in data.formats(task.name)
        for run in data.study.runs
    ]


def _extrapolation(data: Measured, where: PanelKey, context_length: int) -> Extrapolation:
    lengths = data.lengths(where.task, where.format)
    reference, base = reference_length(lengths, context_length), base_of(data, where, context_length)
    parts = {length: data.slice(where, length) for length in lengths}
    estimates = {length: p if isinstance(p, Unavailable) else p.estimate for length, p in parts.items()}
    rows = tuple((length, estimates[length], _ratio(parts[length], parts[reference])) for length in lengths)
    if isinstance(base, Unavailable):
        return Extrapolation(where, context_length, reference, None, base, None, rows, None, False, str(base))
    effective, at_least, note = _effective(estimates, base)
    if base.length > context_length and effective is not None:
        note = "; ".join(filter(None, [f"base: {base.length} tokens, no length up to the training length", note]))
    return Extrapolation(
        where, context_length, reference, base.length, base.part.estimate, base.level, rows, effective, at_least, note
    )


def _ratio(part: Slice | Unavailable, base: Slice | Unavailable) -> Estimate | None:
    if isinstance(part, Unavailable) or isinstance(base, Unavailable) or not base.hits.any():
        return None
    shared = np.intersect1d(part.index, base.index, assume_unique=True)
    low, high = ratio_bounds(_accuracy_by_sample(part, shared), _accuracy_by_sample(base, shared))
    return Estimate(part.value / base.value, low, high, len(shared), ".2f")


def _accuracy_by_sample(part: Slice, samples: np.ndarray) -> np.ndarray:
    keep = np.isin(part.index, samples, assume_unique=True)
    return part.hits[:, keep].sum(axis=0) / part.trials[:, keep].sum(axis=0)


def _effective(estimates: dict[int, Proportion | Unavailable], base: Base) -> tuple[int | None, bool, str]:
    """Effective length, whether it is a lower bound only, and a note."""
    state = floor_or_ceiling(base.part)
    if state is not None and "floor" in state:
        return None, False, state
    tested = {length: e for length, e in estimates.items() if length >= base.length and isinstance(e, Proportion)}
    passing = [length for length, e in tested.items() if e.low > base.level]
    if not passing:
        return None, False, f"not resolved: too few samples to place {base.length} tokens above the level"
    effective = max(passing)
    gaps = [str(length) for length in tested if length < effective and length not in passing]
    notes = [f"but {', '.join(gaps)} does not pass"] if gaps else []
    longer = {length: e for length, e in tested.items() if length > effective}
    at_least = all(e.high >= base.level for e in longer.values())
    if longer and at_least:
        notes.append(f"{', '.join(map(str, longer))} not resolved: too few samples")
    return effective, at_least, "; ".join(notes)
