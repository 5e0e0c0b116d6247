"""When a soak says that something grows, stated before it runs.

A round is one study, trained, probed and reported from nothing; it counts once, with the median of its samples, as
samples within a round see different parts of the same work. The first half of the rounds is warm-up: caches fill,
and malloc's heaps find their size. A straight line through the second half has a slope, and Student's 95 % interval.

**Grows**: the interval is above zero, and DAY rounds at that slope add more than SHARE: of resident memory where it
is memory, of its own level else. The interval alone would call ten kilobytes an hour growth if only they are regular;
the share alone would take noise for it. A leak of 5 kB a round in a process of 1 GB is found.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.command import Rows
from lcprobe.analysis.stats.student_t import t_quantile

RESIDENT = "resident memory, MB"
IN_HEAPS, IN_V8, ELSEWHERE = "of it in malloc's heaps, MB", "of it in V8, MB", "of it elsewhere, MB"
HEAPS, ALLOCATED = "size of malloc's heaps, MB", "handed out by malloc, MB"
OPEN_FILES, THREADS, OBJECTS, BLOCKS = "open files", "threads", "objects", "Python's blocks"
DAY = 20_000
"""Rounds: a day on an idle core, where one takes four seconds."""
SHARE = 0.1


@dataclass(frozen=True)
class Sample:
    """round: number of the study; values by name."""

    round: int
    values: dict[str, float]


def table(samples: Sequence[Sample]) -> Rows:
    """A row for each quantity. samples: of at least eight rounds, with each quantity in every round that is in
    any."""
    rounds = 1 + max(sample.round for sample in samples)
    names = dict.fromkeys(name for sample in samples for name in sample.values)
    return [_row(name, samples, rounds) for name in names]


def slope_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least-squares slope of y over x, and half of its 95 % interval: Student's t with n - 2 degrees of freedom."""
    n = len(x)
    if n < 3:
        raise ValueError("a slope with an interval needs three points")
    dx = x - x.mean()
    slope = float((dx * y).sum() / (dx * dx).sum())
    rest = y - y.mean() - slope * dx
    error = float(np.sqrt((rest @ rest) / (n - 2) / (dx * dx).sum()))
    return slope, t_quantile(0.975, n - 2) * error


def grows(slope: float, half: float, whole: float) -> bool:
    """Whether the interval is above zero and DAY rounds add more than SHARE of the whole. half: of the interval."""
    return slope - half > 0 and slope * DAY > SHARE * whole


def _row(name: str, samples: Sequence[Sample], rounds: int) -> dict[str, Any]:
    middle = rounds // 2
    levels = _levels(name, samples, rounds)
    whole = (_levels(RESIDENT, samples, rounds) if name.endswith(", MB") else levels)[middle]
    before, _ = slope_of(np.arange(1, middle), levels[1:middle])
    slope, half = slope_of(np.arange(middle, rounds), levels[middle:])
    return {
        "what": name,
        "rounds": rounds,
        "first round": round(float(levels[0]), 1),
        "begin": round(float(levels[middle]), 1),
        "end": round(float(levels[-1]), 1),
        "largest": round(max(s.values[name] for s in samples if name in s.values), 1),
        "first half": _figure(1000 * before),
        "per 1,000 rounds": _figure(1000 * slope),
        "low": _figure(1000 * (slope - half)),
        "high": _figure(1000 * (slope + half)),
        f"{DAY:,} rounds": f"{DAY * slope / whole:+.1%}",
        "verdict": "grows" if grows(slope, half, whole) else "flat",
    }


def _levels(name: str, samples: Sequence[Sample], rounds: int) -> np.ndarray:
    """(rounds,) medians."""
    of_round = [[s.values[name] for s in samples if s.round == n and name in s.values] for n in range(rounds)]
    return np.array([statistics.median(own) for own in of_round])


def _figure(value: float) -> float:
    return round(value, 3) + 0.0  # no -0.0
