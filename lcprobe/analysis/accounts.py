"""Which change of a measurement accounts for the difference between somebody's number and ours.

Our number is compatible with theirs where two samples of one proportion would differ as much with a probability of at
least alpha (Fisher's test, mid-p; Bonferroni over their numbers). Then sampling noise is enough, and nothing else is
looked at. Otherwise a change accounts for the difference if

    - the number under it is compatible with theirs,
    - it moves our number: paired on the same samples, p < .05, where they are the same,
    - and their number is at least TEN times as likely under it as under ours.

Changes that account are ordered by how likely their number is under each (beta-binomial: what we measured has noise
too). One number seldom tells two of them apart; the shares say how far it does.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lcprobe.analysis.stats.binomial import equal_proportions_p, log_likelihood_after
from lcprobe.analysis.stats.differences import contrast_p
from lcprobe.analysis.stats.effective_samples import effective_sample_size
from lcprobe.analysis.stats.intervals import wilson

Verdict = Literal["noise", "one", "several", "none"]
MOVES = 0.05
TEN = math.log(10)
"""How much likelier, as a logarithm."""


@dataclass(frozen=True)
class Claim:
    """Somebody's number, 0 .. 1, of n samples."""

    value: float
    n: int


@dataclass(frozen=True)
class Scores:
    """Our number. by_sample: (n,) 0 .. 1. answers: that each of them is a mean of. paired: whether the samples are
    those of our own measurement."""

    by_sample: np.ndarray
    answers: int = 1
    paired: bool = True

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.by_sample.mean())

    @property
    def effective(self) -> float:
        """Independent trials that it is worth: samples, or more where a sample has several answers."""
        hits = self.by_sample * self.answers
        return float(effective_sample_size(hits, np.full(len(hits), self.answers)))

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        low, high = wilson(self.value * self.effective, self.effective)
        return float(low), float(high)


@dataclass(frozen=True)
class Account:
    """One change against their numbers. p: that both are of one proportion. likelihood: logarithm, of their numbers
    under it. share: of the likelihood of all that account; 0 where it does not."""

    name: str
    p: float
    moves: bool
    likelihood: float
    accounts: bool
    share: float = 0.0


@dataclass(frozen=True)
class Decision:
    """verdict: noise, one change, several that cannot be told apart, or none. accounts: of ours first, then of every
    change, the likeliest of those that account first."""

    verdict: Verdict
    ours: Account
    accounts: tuple[Account, ...]

    @property
    def named(self) -> list[Account]:
        """The changes that account for the difference."""
        return [account for account in self.accounts if account.accounts]


def compare(name: str, claims: Sequence[Claim], scores: Sequence[Scores]) -> Account:
    """Our numbers under one protocol against theirs, one for each claim."""
    ps, likelihood = [], 0.0
    for claim, own in zip(claims, scores, strict=True):
        worth = own.effective
        n, theirs = max(1, round(worth)), max(1, round(claim.n * worth / len(own.by_sample)))
        k, their_k = round(own.value * n), round(claim.value * theirs)
        ps.append(equal_proportions_p(k, n, their_k, theirs))
        likelihood += log_likelihood_after(their_k, theirs, own.value * worth, worth)
    return Account(name, min(1.0, len(ps) * min(ps)), False, likelihood, False)


def decide(
    claims: Sequence[Claim], ours: Sequence[Scores], changed: Mapping[str, Sequence[Scores]], alpha: float
) -> Decision:
    """The verdict. ours, changed: one Scores for each claim."""
    base = compare("ours", claims, ours)
    if base.p >= alpha:
        return Decision("noise", base, ())
    found = []
    for name, scores in changed.items():
        account = compare(name, claims, scores)
        moves = any(_moves(a, b) for a, b in zip(ours, scores, strict=True))
        good = moves and account.p >= alpha and account.likelihood - base.likelihood >= TEN
        found.append(Account(name, account.p, moves, account.likelihood, good))
    return _decision(base, found)


def without(decision: Decision, ruled_out: Collection[str]) -> Decision:
    """The decision where something else rules changes out."""
    if not decision.accounts:
        return decision
    left = [replace(a, accounts=a.accounts and a.name not in ruled_out, share=0.0) for a in decision.accounts]
    return _decision(decision.ours, left)


def _decision(base: Account, found: Sequence[Account]) -> Decision:
    best = max((a.likelihood for a in found if a.accounts), default=0.0)
    total = sum(math.exp(a.likelihood - best) for a in found if a.accounts)
    shared = [replace(a, share=math.exp(a.likelihood - best) / total) if a.accounts else a for a in found]
    shared.sort(key=lambda a: (not a.accounts, -a.likelihood))
    n = sum(a.accounts for a in shared)
    return Decision("none" if n == 0 else "one" if n == 1 else "several", base, tuple(shared))


def decimals(value: float) -> int:
    """Decimal places of a number as it is written."""
    return len(repr(float(value)).partition(".")[2])


def whole_number_fits(value: float, n: int, answers: int, digits: int) -> bool:
    """Whether a number with so many decimal places can be a mean of n samples of `answers` each."""
    of = n * answers
    return abs(round(value * of) / of - value) <= 0.5 * 10.0**-digits + 1e-12


def _moves(ours: Scores, changed: Scores) -> bool:
    if changed.paired and len(ours.by_sample) == len(changed.by_sample):
        return contrast_p([(1.0, changed.by_sample), (-1.0, ours.by_sample)]) < MOVES
    n, m = round(ours.effective), round(changed.effective)
    return equal_proportions_p(round(ours.value * n), n, round(changed.value * m), m) < MOVES
