"""Paired tests of slices: the samples that slices share, the interval of a mean difference and its p-value.

The interval and the p-value are one test (`stats.differences`): p < .05 if and only if the interval excludes zero.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.findings.cells import TOO_FEW, Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.stats.differences import Terms, contrast_bounds, contrast_p, contrast_values
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.training_seeds import welch_bounds, welch_p
from lcprobe.tasks.episode import Formats

MAX_AT_ONCE = 1 << 18
"""Samples of the pairs that are tested together."""


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


def paired_test(first: Slice, second: Slice) -> PairedTest | Unavailable:
    """Test first - second over the samples that both have."""
    return paired_tests([(first, second)])[0]


def paired_tests(pairs: Sequence[tuple[Slice, Slice]]) -> list[PairedTest | Unavailable]:
    """The same for many pairs, those with equally many shared samples together: the numbers of each are exactly those
    that it has alone."""
    found: dict[int, PairedTest | Unavailable] = {}
    shared = [shared_samples(pair) for pair in pairs]
    for n, numbers in _at_once([len(samples) for samples in shared]):
        if n < 2:
            found |= dict.fromkeys(numbers, Unavailable(TOO_FEW))
            continue
        shares = [np.stack([proportions(pairs[i][side], shared[i]) for i in numbers]) for side in (0, 1)]
        terms = [(1.0, shares[0]), (-1.0, shares[1])]
        values = contrast_values(terms).mean(axis=-1)
        columns = [column.tolist() for column in (values, *contrast_bounds(terms), contrast_p(terms))]
        for i, *numbers_of in zip(numbers, *columns, strict=True):
            first, second = pairs[i]
            found[i] = PairedTest(n, first.estimate, second.estimate, *numbers_of)
    return [found[i] for i in range(len(pairs))]


def _at_once(sizes: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Places of equal sizes, as many as fit into MAX_AT_ONCE."""
    places: dict[int, list[int]] = {}
    for i, n in enumerate(sizes):
        places.setdefault(n, []).append(i)
    for n, own in places.items():
        step = max(1, MAX_AT_ONCE // max(n, 1))
        yield from ((n, own[i : i + step]) for i in range(0, len(own), step))


def contrast_test(terms: Terms, constant: float = 0.0) -> ContrastTest:
    """Test constant + sum(weight x mean of proportions), with any real weights.

    terms: (weight, (n_samples,) proportions in 0 .. 1 of the same samples in the same order). For a statistic that is
    not linear, give the derivatives as weights and the constant that makes the sum the statistic (delta method).
    """
    return contrast_tests([(terms, constant)])[0]


def contrast_tests(sums: Sequence[tuple[Terms, float]]) -> list[ContrastTest]:
    """The same for many sums, those with equally many terms and samples together: the numbers of each are exactly
    those that it has alone."""
    alike: dict[int, list[int]] = {}
    for i, (terms, _) in enumerate(sums):
        alike.setdefault(len(terms), []).append(i)
    found: dict[int, ContrastTest] = {}
    for n_terms, places in alike.items():
        for _, own in _at_once([len(sums[i][0][0][1]) for i in places]):
            numbers = [places[i] for i in own]
            constants = np.array([sums[i][1] for i in numbers])
            of_each = [[sums[i][0][k] for i in numbers] for k in range(n_terms)]
            terms = [(np.array([w for w, _ in term]), np.stack([shares for _, shares in term])) for term in of_each]
            values = contrast_values(terms, constants).mean(axis=-1)
            columns = (values, *contrast_bounds(terms, constants), contrast_p(terms, constants))
            rows = zip(*(column.tolist() for column in columns), strict=True)
            found |= zip(numbers, (ContrastTest(*row) for row in rows), strict=True)
    return [found[i] for i in range(len(sums))]


def proportions(part: Slice, samples: np.ndarray) -> np.ndarray:
    """(n_samples,) proportion of hits of each of the given samples over all depths and queries of a slice."""
    if part.index is samples or np.array_equal(part.index, samples):
        return part.shares
    keep = np.isin(part.index, samples, assume_unique=True)
    return part.hits[:, keep].sum(axis=0) / part.trials[:, keep].sum(axis=0)


def shared_samples(parts: Sequence[Slice]) -> np.ndarray:
    """Sample numbers that all slices have, ascending."""
    return in_all([part.index for part in parts])


def in_all(indices: Sequence[np.ndarray]) -> np.ndarray:
    """Sample numbers that are in every index, ascending."""
    shared = indices[0]
    for index in indices[1:]:
        if index is not shared and not np.array_equal(index, shared):
            shared = np.intersect1d(shared, index, assume_unique=True)
    return shared


def concatenated(parts: Sequence[Slice]) -> Slice:
    """Slices as one, over the samples that all have, their depths concatenated."""
    shared = shared_samples(parts)
    keep = [np.isin(part.index, shared, assume_unique=True) for part in parts]
    hits = np.concatenate([part.hits[:, k] for part, k in zip(parts, keep, strict=True)])
    trials = np.concatenate([part.trials[:, k] for part, k in zip(parts, keep, strict=True)])
    depths = tuple(depth for part in parts for depth in part.depths)
    return Slice(depths, shared, hits, trials, sum(part.chance for part in parts) / len(parts))


class Side:
    """The runs of a group at one length, or over several. What is computed of it is computed once, with however many
    groups it is compared."""

    def __init__(self, parts: Sequence[Slice | Unavailable]):
        self.parts = tuple(parts)
        self._at: dict[float, Side] = {}

    @cached_property
    def whole(self) -> Slice | Unavailable:
        """Its runs as one slice."""
        return pooled(self.parts)

    @property
    def complete(self) -> bool:
        """Whether every run has a slice."""
        return not any(isinstance(part, Unavailable) for part in self.parts)

    def at_depth(self, depth: float) -> "Side":
        """The same runs at one depth, those that have a slice."""
        if depth not in self._at:
            self._at[depth] = Side([part.at_depths([depth]) for part in self.parts if isinstance(part, Slice)])
        return self._at[depth]


class KnownSides:
    """Groups of runs on a task, each made once."""

    def __init__(self, data: Measured, task: str):
        self.data, self.task = data, task
        self._sides: dict[tuple[str, Formats, int], Side] = {}
        self._joined: dict[tuple[str, tuple[tuple[str, int], ...]], Side] = {}

    def at(self, group: str, runs: Sequence[RunFacts], format: Formats, length: int) -> Side:
        """A group at one format and length."""
        key = group, format, length
        if key not in self._sides:
            where = [PanelKey(run.name, self.task, format) for run in runs]
            self._sides[key] = Side([self.data.slice(one, length) for one in where])
        return self._sides[key]

    def joined(self, group: str, places: Sequence[tuple[str, int]], sides: Sequence[Side]) -> Side:
        """A group over several formats and lengths at which it is complete, run by run."""
        key = group, tuple(places)
        if key not in self._joined:
            self._joined[key] = Side([_joined(parts) for parts in zip(*(side.parts for side in sides), strict=True)])
        return self._joined[key]


def _joined(parts: Sequence[Slice | Unavailable]) -> Slice | Unavailable:
    """One run over several formats and lengths: only cells that both groups have, so that their means compare."""
    joined = concatenated([part for part in parts if isinstance(part, Slice)])
    return joined if len(joined.index) > 1 else Unavailable(TOO_FEW)


def pooled(parts: Sequence[Slice | Unavailable]) -> Slice | Unavailable:
    """The runs of a group as one slice; unavailable where one run is incomplete."""
    unavailable = [part for part in parts if isinstance(part, Unavailable)]
    return unavailable[0] if unavailable else concatenated([part for part in parts if isinstance(part, Slice)])


class SeedTest(NamedTuple):
    """95 % bounds and p of a difference over training seeds."""

    low: float
    high: float
    p: float


def seed_test(sides: Sequence[Side]) -> SeedTest | None:
    """The difference of two groups over training seeds; None where a group has a single run."""
    if min(len(side.parts) for side in sides) < 2:
        return None
    groups = [[part for part in side.parts if isinstance(part, Slice)] for side in sides]
    a, b = ([part.value for part in group] for group in groups)
    n_eff = [float(np.mean([part.n_eff for part in group])) for group in groups]
    return SeedTest(*welch_bounds(a, b, n_eff[0], n_eff[1]), welch_p(a, b, n_eff[0], n_eff[1]))
