"""Leakage check: no-retrieval (shortcut) policies must not score above stated chance.

For each policy, task, format and length: the range around the stated chance that has 95 % of the outcomes of guessing
(binomial, at the effective sample size where a sample has several questions), and the exact one-sided p of a score as
high as the observed one. p-values are adjusted by Holm over the whole table: of a thousand honest cells some fifty
are outside their range, but at most one honest table in twenty has a cell that is reported to exceed chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lcprobe.analysis.stats.binomial import binomial_range, binomial_tail, detectable_accuracy
from lcprobe.analysis.stats.effective_samples import effective_sample_size
from lcprobe.analysis.stats.intervals import Bounds
from lcprobe.analysis.stats.multiplicity import ALPHA, holm

Verdict = Literal["at chance", "below", "above its range", "EXCEEDS", "the task"]


@dataclass(frozen=True)
class PolicyScores:
    """Scores of one policy on one task, format and length.

    hits, trials: (n_samples,) sums over the questions of a sample. chance: mean stated chance of its questions.
    """

    policy: str
    task: str
    format: str
    length: int
    hits: np.ndarray
    trials: np.ndarray
    chance: float
    same_as: str = ""
    """An earlier policy of the same row that gave identical answers."""
    is_the_task: bool = False
    """Whether the policy solves the task as intended: shown, but not tested."""


@dataclass(frozen=True)
class LeakageCell:
    """One cell of the table.

    low, high: the 95 % range around chance. p: one-sided, of a score as high; p_holm: adjusted over the table.
    verdict: `below` its range (a policy worse than guessing); `above its range` (as 2.5 % of honest cells are);
    `EXCEEDS` after Holm too; `the task`: the policy solves the task as intended, and is not among the tests.
    detectable: the accuracy that is reported to exceed chance in 80 % of tables.
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
    verdict: Verdict
    same_as: str
    detectable: float


def leakage_table(scores: Sequence[PolicyScores]) -> list[LeakageCell]:
    """Test all cells of one table, in their order."""
    n_eff = [max(1, round(float(effective_sample_size(s.hits, s.trials)))) for s in scores]
    p_values = [binomial_tail(round(_accuracy(s) * n), n, s.chance) for s, n in zip(scores, n_eff, strict=True)]
    tested = [i for i, s in enumerate(scores) if not s.is_the_task]
    adjusted = dict(zip(tested, holm([p_values[i] for i in tested]), strict=True))
    level = ALPHA / max(1, len(tested))  # the level of the first cell that Holm rejects
    cells = []
    for i, (s, n) in enumerate(zip(scores, n_eff, strict=True)):
        low, high = binomial_range(n, s.chance)
        cells.append(
            LeakageCell(
                policy=s.policy,
                task=s.task,
                format=s.format,
                length=s.length,
                samples=len(s.hits),
                n=int(s.trials.sum()),
                accuracy=_accuracy(s),
                chance=s.chance,
                low=low,
                high=high,
                p=p_values[i],
                p_holm=adjusted.get(i, 1.0),
                verdict=_verdict(s, (low, high), adjusted.get(i, 1.0)),
                same_as=s.same_as,
                detectable=detectable_accuracy(n, s.chance, level),
            )
        )
    return cells


def leakage_summary(table: Sequence[LeakageCell]) -> str:
    """One sentence about a whole table, and how it was tested."""
    tested = [c for c in table if c.verdict != "the task"]
    exceeding = [
        f"{c.policy} on {c.task} {c.format} at {c.length} ({c.accuracy:.2f}, chance {c.chance:.2f})"
        for c in tested
        if c.verdict == "EXCEEDS"
    ]
    above, below = (sum(c.accuracy > c.high for c in tested), sum(c.accuracy < c.low for c in tested))
    repeats = sum(bool(c.same_as) for c in tested)
    excess = [c.detectable - c.chance for c in tested] or [float("nan")]
    text = (
        f"{len(tested)} cells, {repeats} of them repeat another policy's answers: {above} above their own 95 % range"
        f", {below} below ({0.025 * len(tested):.0f} expected of each at most); "
        f"tested one-sided, exact binomial, Holm over the whole table at {ALPHA:g}; with 80 % power an excess of "
        f"{np.median(excess):.2f} over chance is detected (median cell; {max(excess):.2f} in the least sensitive)"
    )
    if exceeding:
        return f"{text}; {len(exceeding)} exceed chance after Holm: {'; '.join(exceeding)}"
    return f"{text}; none exceeds chance after Holm over the table"


def _accuracy(scores: PolicyScores) -> float:
    return float(scores.hits.sum() / scores.trials.sum())


def _verdict(scores: PolicyScores, chance_range: Bounds, p_holm: float) -> Verdict:
    accuracy = _accuracy(scores)
    if scores.is_the_task:
        return "the task"
    if accuracy < chance_range[0]:
        return "below"
    if p_holm < ALPHA:
        return "EXCEEDS"
    return "above its range" if accuracy > chance_range[1] else "at chance"
