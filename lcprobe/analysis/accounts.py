"""Which change of a measurement accounts for the difference between somebody's number and ours.

Our number is compatible with theirs where two samples of one proportion would differ as much with a probability of at
least alpha (Fisher's test, mid-p; Bonferroni over their numbers). Then sampling noise is enough, and nothing else is
looked at. Otherwise a change accounts for the difference if

    - the number under it is compatible with theirs,
    - it moves our number: paired on the same samples, p < .05, where they are the same,
    - and their number is at least TEN times as likely under it as under ours.

Changes that account are ordered by how likely their number is under each (beta-binomial: what we measured has noise
too). Of many changes some come close to any number. So all of them are weighed against something else, which was not
tried: it has half of the weight before their numbers are seen, and the changes that were tried have the other half
in equal parts. Under something else

    - one number may be any from 0 to 1,
    - several are any numbers, or ours with the odds of a right answer times one factor at all lengths, or ours times
      one factor, as of a better or worse model: a third each, the first number any from 0 to 1.

A verdict that names changes needs TEN times the share of something else; below it, what fits may do so by chance.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lcprobe.analysis.stats.binomial import equal_proportions_p, log_likelihood_after, log_likelihood_of
from lcprobe.analysis.stats.differences import contrast_p
from lcprobe.analysis.stats.effective_samples import effective_sample_size
from lcprobe.analysis.stats.intervals import wilson

Verdict = Literal["noise", "one", "several", "coincidence", "none"]
MOVES = 0.05
TEN = math.log(10)
"""How much likelier, as a logarithm."""
GRID = 2000
"""Numbers from 0 to 1 over which something else is averaged."""


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
    under it. share: of what accounts and something else, its part after their numbers are seen; 0 where it does not
    account."""

    name: str
    p: float
    moves: bool
    likelihood: float
    accounts: bool
    share: float = 0.0


@dataclass(frozen=True)
class Decision:
    """verdict: noise, one change, several that cannot be told apart, some that fit as something else may do
    (coincidence), or none. accounts: of every change, the likeliest of those that account first. otherwise:
    logarithm, how likely their numbers are under something else. tried: changes among which it is decided. rest: the
    share of something else."""

    verdict: Verdict
    ours: Account
    accounts: tuple[Account, ...]
    otherwise: float = 0.0
    tried: int = 0
    rest: float = 0.0

    @property
    def named(self) -> list[Account]:
        """The changes that account for the difference."""
        return [account for account in self.accounts if account.accounts]


def compare(name: str, claims: Sequence[Claim], scores: Sequence[Scores]) -> Account:
    """Our numbers under one protocol against theirs, one for each claim."""
    ps, likelihood = [], 0.0
    for claim, own in zip(claims, scores, strict=True):
        worth = own.effective
        n, (their_k, theirs) = max(1, round(worth)), _count(claim, own)
        ps.append(equal_proportions_p(round(own.value * n), n, their_k, theirs))
        likelihood += log_likelihood_after(their_k, theirs, own.value * worth, worth)
    return Account(name, min(1.0, len(ps) * min(ps)), False, likelihood, False)


def log_likelihood_otherwise(claims: Sequence[Claim], ours: Sequence[Scores]) -> float:
    """Logarithm of how likely their numbers are where something else is the cause; see the module."""
    first = (np.arange(GRID) + 0.5) / GRID
    means = [(own.value * own.effective + 0.5) / (own.effective + 1) for own in ours]
    odds = first / (1 - first) * (1 - means[0]) / means[0]
    under: list[list[np.ndarray]] = [[], [], []]
    for claim, own, mean in zip(claims, ours, means, strict=True):
        k, n = _count(claim, own)
        by_factor = np.clip(first * mean / means[0], 1e-6, 1 - 1e-6)
        for kind, p in enumerate((first, odds * mean / (1 - mean + odds * mean), by_factor)):
            under[kind].append(log_likelihood_of(k, n, p))
    apart = sum(_log_mean(values) for values in under[0])
    together = [_log_mean(np.sum(values, axis=0)) for values in under[1:]]
    return _log_mean(np.array([apart, *together]))


def decide(
    claims: Sequence[Claim], ours: Sequence[Scores], changed: Mapping[str, Sequence[Scores]], alpha: float
) -> Decision:
    """The verdict. ours, changed: one Scores for each claim."""
    base = compare("ours", claims, ours)
    if base.p >= alpha:
        return Decision("noise", base, ())
    otherwise = log_likelihood_otherwise(claims, ours)
    found = []
    for name, scores in changed.items():
        account = compare(name, claims, scores)
        moves = any(_moves(a, b) for a, b in zip(ours, scores, strict=True))
        good = moves and account.p >= alpha and account.likelihood - base.likelihood >= TEN
        found.append(Account(name, account.p, moves, account.likelihood, good))
    return _decision(base, found, otherwise, len(found), False)


def without(decision: Decision, ruled_out: Collection[str], ours_too: bool) -> Decision:
    """The decision where facts rule changes out, which are no longer among those it is decided. ours_too: whether
    they rule our own protocol out: then something of what is left differs for certain, and what fits their numbers
    besides is no coincidence."""
    if not decision.accounts:
        return decision
    left = [replace(a, accounts=a.accounts and a.name not in ruled_out, share=0.0) for a in decision.accounts]
    tried = sum(a.name not in ruled_out for a in left)
    return _decision(decision.ours, left, decision.otherwise, tried, ours_too)


def _decision(base: Account, found: Sequence[Account], otherwise: float, tried: int, certain: bool) -> Decision:
    rest = otherwise + math.log(max(1, tried))  # in the weight of one change
    best = max([rest, *(a.likelihood for a in found if a.accounts)])
    total = math.exp(rest - best) + sum(math.exp(a.likelihood - best) for a in found if a.accounts)
    shared = [replace(a, share=math.exp(a.likelihood - best) / total) if a.accounts else a for a in found]
    shared.sort(key=lambda a: (not a.accounts, -a.likelihood))
    n, other = sum(a.accounts for a in shared), math.exp(rest - best) / total
    verdict: Verdict = "none" if n == 0 else "one" if n == 1 else "several"
    if n and not certain and 1 - other < math.exp(TEN) * other:
        verdict = "coincidence"
    return Decision(verdict, base, tuple(shared), otherwise, tried, other)


def _count(claim: Claim, own: Scores) -> tuple[int, int]:
    """Their number as a count of independent trials."""
    n = max(1, round(claim.n * own.effective / len(own.by_sample)))
    return round(claim.value * n), n


def _log_mean(logs: np.ndarray) -> float:
    return float(logs.max() + np.log(np.mean(np.exp(logs - logs.max()))))


def decimals(value: float) -> int:
    """Decimal places of a number as it is written."""
    return len(repr(float(value)).partition(".")[2])


def whole_number_fits(value: float, n: int, answers: int, digits: int) -> bool:
    """Whether a number with so many decimal places can be a mean of n samples of `answers` each."""
    of = n * answers
    return abs(round(value * of) / of - value) <= 0.5 * 10.0**-digits + 1e-12


def _moves(ours: Scores, changed: Scores) -> bool:
    if changed.paired and len(ours.by_sample) == len(changed.by_sample):
        return bool(contrast_p([(1.0, changed.by_sample), (-1.0, ours.by_sample)]) < MOVES)
    n, m = round(ours.effective), round(changed.effective)
    return equal_proportions_p(round(ours.value * n), n, round(changed.value * m), m) < MOVES
