"""Whether a stated chance level is honest: policies that never look up what is asked must not score above it.

For each policy, task, format and length: the range around the stated chance in which 95 % of the outcomes of such a guess
lie (binomial, with the effective number of trials where a sample asks several questions), and the exact one-sided p of
scoring as high as was scored. p-values are adjusted by Holm over the whole table: of a thousand honest cells some fifty lie
outside of their range, and at most one table in twenty holds a cell that is said to exceed chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcprobe.analysis.contrasts import ALPHA
from lcprobe.analysis.intervals import binomial_range, binomial_tail, effective_trials, holm


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


@dataclass(frozen=True)
class Judged:
    """One cell of the table. low, high: the 95 % range around chance. verdict: at chance | below | above its range | EXCEEDS.

    Below: a worse policy than guessing. Above its range: as 2.5 % of honest cells are; EXCEEDS: after Holm too.
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


def judged(cells: Sequence[Guessed]) -> list[Judged]:
    """All cells of one table, in their order."""
    tests = [_tested(cell) for cell in cells]
    return [
        _judged(cell, bounds, p, p_holm)
        for cell, (bounds, p), p_holm in zip(cells, tests, holm([p for _, p in tests]), strict=True)
    ]


def in_words(table: Sequence[Judged]) -> str:
    """One sentence about a whole table."""
    exceeding = [f"{c.policy} on {c.task} {c.format} at {c.length} ({c.accuracy:.2f}, chance {c.chance:.2f})" for c in table
                 if c.verdict == "EXCEEDS"]  # fmt: skip
    above = sum(c.accuracy > c.high for c in table)
    text = f"{len(table)} cells: {above} above their own 95 % range ({0.025 * len(table):.0f} expected at most)"
    if exceeding:
        return f"{text}; {len(exceeding)} exceed chance after Holm: {'; '.join(exceeding)}"
    return f"{text}; none exceeds chance after Holm over the table"


def _tested(cell: Guessed) -> tuple[tuple[float, float], float]:
    share, worth = float(cell.hits.sum() / cell.trials.sum()), max(1, round(effective_trials(cell.hits, cell.trials)))
    return binomial_range(worth, cell.chance), binomial_tail(round(share * worth), worth, cell.chance)


def _judged(cell: Guessed, bounds: tuple[float, float], p: float, p_holm: float) -> Judged:
    n, share = int(cell.trials.sum()), float(cell.hits.sum() / cell.trials.sum())
    verdict = "EXCEEDS" if p_holm < ALPHA else "above its range" if share > bounds[1] else "at chance"
    verdict = "below" if share < bounds[0] else verdict
    return Judged(
        cell.policy, cell.task, cell.format, cell.length, len(cell.hits), n, share, cell.chance, *bounds, p, p_holm, verdict
    )
