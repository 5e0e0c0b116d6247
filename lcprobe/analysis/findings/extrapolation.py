"""Past the training length: accuracy relative to the base, and the effective length.

Base: accuracy at the training length; where that was not probed, at the nearest tested length below it, which the
note reports. Effective length: the longest tested length whose lower bound exceeds 0.85 x the model's own base (the
rule of NoLiMa, arXiv 2502.05167; RULER's constant of 85.6 % is one model's score and out of reach for small ones). It
is a limit only where the upper bound of a longer length is below that; otherwise it is reported as "at least".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.stats.differences import ratio_bounds
from lcprobe.analysis.stats.estimates import Estimate, Proportion
from lcprobe.analysis.stats.intervals import wilson

SHARE_OF_BASE = 0.85
FLOOR, CEILING = 0.05, 0.95


@dataclass(frozen=True)
class Extrapolation:
    """One model, task and format over lengths.

    by_length: length, accuracy, and its ratio to the base. effective: effective length, None where `note` has the
    reason. at_least: whether the true one may be longer, since no longer length is below the rule by its upper bound.
    """

    where: PanelKey
    context_length: int
    base_length: int
    base: Proportion | Unavailable
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


def base_length(lengths: Sequence[int], context_length: int) -> int:
    """The training length where it was probed, else the nearest tested length below it, else the shortest."""
    below = [length for length in lengths if length <= context_length]
    return max(below) if below else min(lengths)


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
    base = base_length(lengths, context_length)
    parts = {length: data.slice(where, length) for length in lengths}
    estimates = {length: p if isinstance(p, Unavailable) else p.estimate for length, p in parts.items()}
    rows = tuple((length, estimates[length], _ratio(parts[length], parts[base])) for length in lengths)
    effective, at_least, note = _effective(estimates, base, parts[base])
    if base != context_length and effective is not None:
        note = "; ".join(filter(None, [f"base: {base} tokens, the training length was not probed", note]))
    return Extrapolation(where, context_length, base, estimates[base], rows, effective, at_least, note)


def _ratio(part: Slice | Unavailable, base: Slice | Unavailable) -> Estimate | None:
    if isinstance(part, Unavailable) or isinstance(base, Unavailable) or not base.hits.any():
        return None
    shared = np.intersect1d(part.index, base.index, assume_unique=True)
    low, high = ratio_bounds(_accuracy_by_sample(part, shared), _accuracy_by_sample(base, shared))
    return Estimate(part.value / base.value, low, high, len(shared), ".2f")


def _accuracy_by_sample(part: Slice, samples: np.ndarray) -> np.ndarray:
    keep = np.isin(part.index, samples, assume_unique=True)
    return part.hits[:, keep].sum(axis=0) / part.trials[:, keep].sum(axis=0)


def _effective(
    estimates: dict[int, Proportion | Unavailable], base: int, part: Slice | Unavailable
) -> tuple[int | None, bool, str]:
    """Effective length, whether it is a lower bound only, and a note."""
    own = estimates[base]
    if isinstance(part, Unavailable) or isinstance(own, Unavailable):
        return None, False, f"base at {base} tokens: {own}"
    state = floor_or_ceiling(part)
    if state is not None and "floor" in state:
        return None, False, state
    needed = SHARE_OF_BASE * own.value
    tested = {length: e for length, e in estimates.items() if length >= base and isinstance(e, Proportion)}
    passing = [length for length, e in tested.items() if e.low > needed]
    if not passing:
        return None, False, f"not resolved: too few samples to place {base} tokens above {SHARE_OF_BASE:g} x base"
    effective = max(passing)
    gaps = [str(length) for length in tested if length < effective and length not in passing]
    notes = [f"but {', '.join(gaps)} does not pass"] if gaps else []
    longer = {length: e for length, e in tested.items() if length > effective}
    at_least = all(e.high >= needed for e in longer.values())
    if longer and at_least:
        notes.append(f"{', '.join(map(str, longer))} not resolved: too few samples")
    return effective, at_least, "; ".join(notes)
