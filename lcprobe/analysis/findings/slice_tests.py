"""Paired tests of slices: the samples that slices share, exact p-values, and the interval of the mean difference."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.findings.cells import Slice, Unavailable
from lcprobe.analysis.stats.differences import difference_bounds
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.exact_tests import permutation_test, sign_flip
from lcprobe.analysis.stats.training_seeds import welch_bounds, welch_p


class PairedTest(NamedTuple):
    """first - second over shared samples, with the 95 % bounds of the difference and the exact two-sided p."""

    samples: int
    first: Proportion
    second: Proportion
    difference: float
    low: float
    high: float
    p: float


def paired_test(first: Sequence[tuple[Fraction, Slice]], second: Slice) -> PairedTest | Unavailable:
    """Test sum(weight x slice) - second over the samples that all slices have; the weights sum to one.

    Proportions of a sample are fractions with whole numerators, so the exact test runs on whole numbers.
    """
    parts = [*first, (Fraction(-1), second)]
    shared = shared_samples([part for _, part in parts])
    if len(shared) < 2:
        return Unavailable("fewer than two shared samples")
    coefficients = [weight / int(part.trials[:, 0].sum()) for weight, part in parts]
    scale = math.lcm(*(c.denominator for c in coefficients))
    whole = np.zeros(len(shared), np.int64)
    for coefficient, (_, part) in zip(coefficients, parts, strict=True):
        hits = part.hits.sum(axis=0)[np.isin(part.index, shared, assume_unique=True)]
        whole += int(coefficient * scale) * hits
    difference = whole / scale
    low, high = difference_bounds(difference)
    return PairedTest(
        samples=len(shared),
        first=concatenated([part for _, part in first]).estimate,
        second=second.estimate,
        difference=float(difference.mean()),
        low=float(low),
        high=float(high),
        p=sign_flip(whole),
    )


def depth_permutation_p(whole: Slice, ends: Sequence[Sequence[float]], middle: Sequence[float]) -> float:
    """p that a sample's answers do not depend on depth, for the contrast mean of ends - middle.

    Ends and middle differ in size, so that the signs of differences are not equally likely and a sign-flip test does
    not do.
    """
    groups = [*ends, middle]
    sides = [next((i for i, group in enumerate(groups) if depth in group), None) for depth in whole.depths]
    used = [at for at, side in enumerate(sides) if side is not None]
    shares = [Fraction(1, len(ends) * len(group)) for group in ends] + [Fraction(-1, len(middle))]
    scale = math.lcm(*(share.denominator for share in shares))
    weights = [int(share * scale) for share in shares]
    return permutation_test(whole.hits[used].T, [side for side in sides if side is not None], weights)


def shared_samples(parts: Sequence[Slice]) -> np.ndarray:
    """Sample numbers that all slices have, ascending."""
    shared = parts[0].index
    for part in parts[1:]:
        shared = np.intersect1d(shared, part.index, assume_unique=True)
    return shared


def concatenated(parts: Sequence[Slice]) -> Slice:
    """Slices as one, over the samples that all have, their depths concatenated."""
    shared = shared_samples(parts)
    keep = [np.isin(part.index, shared, assume_unique=True) for part in parts]
    hits = np.concatenate([part.hits[:, k] for part, k in zip(parts, keep, strict=True)])
    trials = np.concatenate([part.trials[:, k] for part, k in zip(parts, keep, strict=True)])
    depths = tuple(depth for part in parts for depth in part.depths)
    return Slice(depths, shared, hits, trials, sum(part.chance for part in parts) / len(parts))


def pooled(parts: Sequence[Slice | Unavailable]) -> Slice | Unavailable:
    """The runs of a group as one slice; unavailable where one run is incomplete."""
    unavailable = [part for part in parts if isinstance(part, Unavailable)]
    return unavailable[0] if unavailable else concatenated([part for part in parts if isinstance(part, Slice)])


class SeedTest(NamedTuple):
    """95 % bounds and p of a difference over training seeds."""

    low: float
    high: float
    p: float


def seed_test(sides: Sequence[Sequence[Slice | Unavailable]]) -> SeedTest | None:
    """The difference of two groups over training seeds; None where a group has a single run."""
    if min(len(side) for side in sides) < 2:
        return None
    groups = [[part for part in side if isinstance(part, Slice)] for side in sides]
    a, b = ([part.value for part in group] for group in groups)
    n_eff = [float(np.mean([part.n_eff for part in group])) for group in groups]
    return SeedTest(*welch_bounds(a, b, n_eff[0], n_eff[1]), welch_p(a, b, n_eff[0], n_eff[1]))
