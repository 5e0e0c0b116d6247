"""Whether a stated chance level is honest: policies that never look up what is asked must not score above it.

For each policy, task, format and length: the range around the stated chance in which 95 % of the outcomes of such a guess
lie (binomial, with the effective number of trials where a sample asks several questions), and the exact one-sided p of
scoring as high as was scored. p-values are adjusted by Holm over the whole table: of a thousand honest cells some fifty lie
outside of their range, and at most one table in twenty holds a cell that is said to exceed chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lcprobe.analysis.findings.contrasts import ALPHA
from lcprobe.analysis.stats.intervals import binomial_range, binomial_tail, effective_trials, holm


@dataclass(frozen=True)
class Guessed:
    """What one policy made of a task. hits, trials: (n_samples,) sums over the questions of a sample; chance: their mean."""

    policy: str
    task: str
    format: str
    length: int
    hits: np.ndarray
    trials: np.ndarray
    chance: float
    same_as: str = ""
    """A policy before it in the same row that printed the very same."""
    is_the_task: bool = False
    """It does just what is asked: shown, not judged."""


@dataclass(frozen=True)
class Judged:
    """One cell of the table. low, high: the 95 % range around chance. p: one-sided, of as high a score; p_holm: over the table.
    verdict: at chance | below | above its range | EXCEEDS | the task.

    Below: a worse policy than guessing. Above its range: as 2.5 % of honest cells are; EXCEEDS: after Holm too. The task: the
    policy does what is asked, and is not among the tests. detectable: the accuracy that would be said to exceed in 80 % of
    tables.
    """

    policy: str
    task: str
    format: str
    length: int
    samples: int
    n: int
    accuracy: float
    chance: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str
    same_as: str
    detectable: float


def judged(cells: Sequence[Guessed]) -> list[Judged]:
    """All cells of one table, in their order."""
    tests = [_tested(cell) for cell in cells]
    held = [i for i, cell in enumerate(cells) if not cell.is_the_task]
    adjusted = dict(zip(held, holm([tests[i][1] for i in held]), strict=True))
    level = ALPHA / max(1, len(held))  # what Holm asks of the first cell to exceed
    return [
        _judged(cell, bounds, p, adjusted.get(i, 1.0), detectable(worth, cell.chance, level))
        for i, (cell, (bounds, p, worth)) in enumerate(zip(cells, tests, strict=True))
    ]


@lru_cache(maxsize=4096)
def detectable(n: int, chance: float, level: float, power: float = 0.8) -> float:
    """The least accuracy that is told from chance at a one-sided level with that power by n trials; 1 if none is."""
    few, many = 0, n + 1  # the least count that is significant
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if binomial_tail(middle, n, chance) < level else (middle + 1, many)
    low, high = chance, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if binomial_tail(few, n, middle) >= power else (middle, high)
    return high


def in_words(table: Sequence[Judged]) -> str:
    """One sentence about a whole table, and how it was judged."""
    held = [c for c in table if c.verdict != "the task"]
    exceeding = [f"{c.policy} on {c.task} {c.format} at {c.length} ({c.accuracy:.2f}, chance {c.chance:.2f})" for c in held
                 if c.verdict == "EXCEEDS"]  # fmt: skip
    above, below = (sum(c.accuracy > c.high for c in held), sum(c.accuracy < c.low for c in held))
    repeats = sum(bool(c.same_as) for c in held)
    excess = [c.detectable - c.chance for c in held] or [float("nan")]
    text = (
        f"{len(held)} cells, {repeats} of them repeat another policy's answers: {above} above their own 95 % range, "
        f"{below} below ({0.025 * len(held):.0f} expected of each at most); "
        f"judged one-sided, exact binomial, Holm over the whole table at {ALPHA:g}; with 80 % power an excess of "
        f"{np.median(excess):.2f} over chance is found (median cell; {max(excess):.2f} in the least sensitive)"
    )
    if exceeding:
        return f"{text}; {len(exceeding)} exceed chance after Holm: {'; '.join(exceeding)}"
    return f"{text}; none exceeds chance after Holm over the table"


def _tested(cell: Guessed) -> tuple[tuple[float, float], float, int]:
    share, worth = float(cell.hits.sum() / cell.trials.sum()), max(1, round(effective_trials(cell.hits, cell.trials)))
    return binomial_range(worth, cell.chance), binomial_tail(round(share * worth), worth, cell.chance), worth


def _judged(cell: Guessed, bounds: tuple[float, float], p: float, p_holm: float, least: float) -> Judged:
    n, share = int(cell.trials.sum()), float(cell.hits.sum() / cell.trials.sum())
    verdict = "EXCEEDS" if p_holm < ALPHA else "above its range" if share > bounds[1] else "at chance"
    verdict = "the task" if cell.is_the_task else "below" if share < bounds[0] else verdict
    where = cell.policy, cell.task, cell.format, cell.length, len(cell.hits), n
    return Judged(*where, share, cell.chance, *bounds, p, p_holm, verdict, cell.same_as, least)
