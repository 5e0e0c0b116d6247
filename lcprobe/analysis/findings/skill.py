"""Skill: accuracy corrected for what a model names without using the key, with tests that are paired by sample.

    skill = (accuracy - guessed) / (1 - guessed)

guessed: the rate at which the target value is named although the key in the question is absent (control `wrong_key`),
over the same strata of depth and samples; for tasks without that control, stated chance; zero where the value has no
rival: where stated chance is 1, by the number of keys and the haystack. A model that finds the value with probability
p and else names the first, the last or the nearest value has skill p in every stratum, though its accuracy depends on
depth.

Tests are of sums of weight x skill over groups of cells. Where guessing is a known rate, they are contrasts of the
samples' proportions under the test of all paired differences. Where it was measured, skill is a ratio: samples
contribute by the derivatives of right and guessed answers (delta method), and their mean is tested by Student's t
with the degrees of freedom of its variance. Two samples that differ by one trial are added per skill (Bonett & Price
2012): where guessing leaves few samples to be found, those that agree are no variance of zero. The score test of the
same contributions found a false recency in 27 of 100 studies of a model with skill .1 that else names the last value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.findings.cells import TOO_FEW, Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.slice_tests import contrast_tests, in_all, proportions
from lcprobe.analysis.inputs import TaskFacts
from lcprobe.analysis.stats.differences import contrast_p, contrast_values
from lcprobe.analysis.stats.effective_samples import degrees_of_freedom
from lcprobe.analysis.stats.score_test import least_p
from lcprobe.analysis.stats.student_t import t975, two_sided_p

WRONG_KEY = "wrong_key"
Weighted = Sequence[tuple[float, np.ndarray]]
"""Weights, and the shares of the same samples that they weigh."""
EQUAL = 1e-12
"""Range of the contributions of samples that agree."""
MOST_GUESSED = 0.95
"""Rate of guessing above which nothing is left to be found."""


@dataclass(frozen=True)
class Skill:
    """Skill over a group of cells.

    index: (n_samples,) sample numbers. terms: proportions of samples and their weights, by which, with the constant,
    every sample contributes to the value. trial: contribution of one trial of a sample. measured: whether the rate of
    guessing was. accuracy, guessed: of which it is made.
    """

    index: np.ndarray
    value: float
    terms: tuple[tuple[float, np.ndarray], ...]
    constant: float
    trial: float
    measured: bool
    accuracy: float
    guessed: float


class SkillTest(NamedTuple):
    """A sum of weight x skill with its 95 % bounds and two-sided p of zero, which agree with each other.

    p_above: p that it is above zero, of claims in which a better model must not have a larger p. Where hardly any
    sample has a wrong answer, the p of the variance jumps: of 50 samples with five right answers each it is .015, and
    with one wrong answer among the 250 it is 5e-10, as if a sample never had two. p_above is never less than what the
    samples can show whatever the answers to one sample have in common (`least_p`), and is that where all samples
    agree.
    """

    samples: int
    value: float
    low: float
    high: float
    p: float
    p_above: float


def needs_wrong_key(data: Measured, task: TaskFacts) -> bool:
    """Whether guessing by order is to be measured where a value has rivals: a task that has the control."""
    planned = any(name == task.name and control == WRONG_KEY for name, _, control in data.planned)
    return task.has_keys and (planned or WRONG_KEY in task.controls)


def guessed_at(data: Measured, task: TaskFacts, where: PanelKey, length: int) -> Slice | float | Unavailable:
    """What is named without the key at a length: the slice of `wrong_key`, or a known rate where there is none to
    measure. Unavailable where it was to be measured and was not."""
    answers = data.slice(where, length)
    if isinstance(answers, Unavailable) or not answers.guessed or not needs_wrong_key(data, task):
        return answers if isinstance(answers, Unavailable) else answers.guessed
    part = data.slice(where._replace(control=WRONG_KEY), length)
    if isinstance(part, Unavailable) and part.reason == "not planned":
        return Unavailable("no wrong_key control at this length")
    return Unavailable(f"wrong_key control: {part}") if isinstance(part, Unavailable) else part


def skill_of(answers: Slice, guesses: Slice | float, at_least: float = 0.0) -> Skill | Unavailable:
    """Skill of answers over all their cells. at_least: known rate of guessing that replaces a measured one below it.

    Only cells and samples that answers and guesses share count.
    """
    named, known = None, 0.0
    if isinstance(guesses, Slice):
        shared = [depth for depth in answers.depths if depth in guesses.depths]
        if not shared:
            return Unavailable("not testable (wrong_key was asked at other depths)")
        answers, guesses = answers.at_depths(shared), guesses.at_depths(shared)
        index = np.intersect1d(answers.index, guesses.index, assume_unique=True)
        named = proportions(guesses, index)
    else:
        index, known = answers.index, guesses
    if len(index) < 2:
        return Unavailable(TOO_FEW)
    right = proportions(answers, index)
    accuracy, guessed = float(right.mean()), known if named is None else float(named.mean())
    if guessed < at_least:
        guessed, named = at_least, None
    if guessed > MOST_GUESSED:
        return Unavailable(f"not testable (the value is named in {guessed:.2f} without its key)")
    left = 1 - guessed
    value, slope = (accuracy - guessed) / left, -(1 - accuracy) / left**2
    terms = ((1 / left, right),) if named is None else ((1 / left, right), (slope, named))
    constant = value - sum(weight * float(shares.mean()) for weight, shares in terms)
    trial = 1 / left / math.sqrt(float(answers.trials.sum(axis=0).mean()))
    return Skill(index, value, terms, constant, trial, named is not None, accuracy, guessed)


def skill_test(terms: Sequence[tuple[float, Skill]]) -> SkillTest | Unavailable:
    """The sum of weight x skill, over the samples that all have."""
    return skill_tests([terms])[0]


def skill_tests(sums: Sequence[Sequence[tuple[float, Skill]]]) -> list[SkillTest | Unavailable]:
    """The same for many sums: those of known rates of guessing are tested together."""
    found: dict[int, SkillTest | Unavailable] = {}
    known: dict[int, tuple[Weighted, float]] = {}
    for i, terms in enumerate(sums):
        index = in_all([skill.index for _, skill in terms])
        if len(index) < 2:
            found[i] = Unavailable(TOO_FEW)
            continue
        weighted = [
            (w * weight, shares if len(shares) == len(index) else shares[np.isin(s.index, index, assume_unique=True)])
            for w, s in terms
            for weight, shares in s.terms
        ]
        if any(skill.measured for _, skill in terms):
            found[i] = _test_of_measured(terms, weighted)
        else:
            known[i] = weighted, sum(w * s.constant for w, s in terms)
    for (i, (weighted, constant)), test in zip(known.items(), contrast_tests([*known.values()]), strict=True):
        found[i] = SkillTest(len(weighted[0][1]), *test, _p_above(weighted, constant, test.difference, test.p))
    return [found[i] for i in range(len(sums))]


def _p_above(weighted: Weighted, constant: float, value: float, p: float) -> float:
    """See SkillTest. p: of the variance, two-sided."""
    if value <= 0:
        return 1.0
    lowest = constant + sum(min(weight, 0.0) for weight, _ in weighted)
    least = float(least_p(value, lowest, len(weighted[0][1])))
    values = contrast_values(weighted, constant)
    return least if np.ptp(values) < EQUAL else max(p, least)


def _test_of_measured(terms: Sequence[tuple[float, Skill]], weighted: Weighted) -> SkillTest:
    """A sum in which a rate of guessing was measured."""
    n = len(weighted[0][1])
    value = sum(w * s.value for w, s in terms)
    influence = sum(weight * (shares - shares.mean()) for weight, shares in weighted)
    trial = sum((w * s.trial) ** 2 for w, s in terms)
    squares = np.append(np.square(influence), [trial, trial])
    error = math.sqrt(float(squares.sum()) / n / (n - 1))
    df = float(min(degrees_of_freedom(squares, n), n - 1))
    half = float(t975(df)) * error
    p = two_sided_p(value / error, df)
    above = _p_above(weighted, sum(w * s.constant for w, s in terms), value, p)
    return SkillTest(n, value, value - half, value + half, p, above)


def p_above_zero(skill: Skill) -> float:
    """Two-sided p that a skill is zero; 1 where it is not positive.

    A rate of guessing that is zero by assumption counts as one that was seen in none of the samples: else a single
    right answer would show a skill.
    """
    if skill.value <= 0:
        return 1.0
    if skill.measured:
        test = skill_test([(1.0, skill)])
        return test.p if isinstance(test, SkillTest) else 1.0
    unseen = [] if skill.guessed else [(-1.0, np.zeros(len(skill.index)))]
    return float(contrast_p([*skill.terms, *unseen], skill.constant))
