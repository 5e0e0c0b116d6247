"""Paired tests of slices: the samples that slices share, the interval of a mean difference and its p-value.

The interval and the p-value are one test (`stats.differences`): p < .05 if and only if the interval excludes zero.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.findings.cells import TOO_FEW, Slice, Unavailable
from lcprobe.analysis.stats.differences import Terms, contrast_bounds, contrast_p, contrast_values
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.training_seeds import welch_bounds, welch_p


class PairedTest(NamedTuple):
    """first - second over shared samples, with the 95 % bounds of the difference and the two-sided p."""

    samples: int
    first: Proportion
    second: Proportion
    difference: float
    low: float
    high: float
    p: float


class ContrastTest(NamedTuple):
    """A weighted contrast of samples, with its 95 % bounds and the two-sided p that it is zero."""

    difference: float
    low: float
    high: float
    p: float


def paired_test(first: Sequence[tuple[Fraction, Slice]], second: Slice) -> PairedTest | Unavailable:
    """Test sum(weight x slice) - second over the samples that all slices have; the weights sum to one."""
    parts = [*first, (Fraction(-1), second)]
    shared = shared_samples([part for _, part in parts])
    if len(shared) < 2:
        return Unavailable(TOO_FEW)
    test = contrast_test([(float(weight), proportions(part, shared)) for weight, part in parts])
    return PairedTest(len(shared), concatenated([part for _, part in first]).estimate, second.estimate, *test)


def contrast_test(terms: Terms, constant: float = 0.0) -> ContrastTest:
    """Test constant + sum(weight x mean of proportions), with any real weights.

    terms: (weight, (n_samples,) proportions in 0 .. 1 of the same samples in the same order). For a statistic that is
    not linear, give the derivatives as weights and the constant that makes the sum the statistic (delta method).
    """
    low, high = contrast_bounds(terms, constant)
    value = float(contrast_values(terms, constant).mean())
    return ContrastTest(value, float(low), float(high), contrast_p(terms, constant))


def proportions(part: Slice, samples: np.ndarray) -> np.ndarray:
    """(n_samples,) proportion of hits of each of the given samples over all depths and queries of a slice."""
    keep = np.isin(part.index, samples, assume_unique=True)
    return part.hits[:, keep].sum(axis=0) / part.trials[:, keep].sum(axis=0)


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
