"""Tests of many pairs at once: exactly the numbers that each pair has alone, by the direct form of the test."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.analysis.findings import slice_tests
from lcprobe.analysis.findings.cells import Slice, Unavailable
from lcprobe.analysis.findings.slice_tests import PairedTest, contrast_test, paired_tests
from lcprobe.analysis.stats.differences import _support, contrast_values
from lcprobe.analysis.stats.score_test import MULTIPLIER_STEPS
from lcprobe.analysis.stats.student_t import two_sided_p


def slice_of(dice: np.random.Generator) -> Slice:
    """Up to 60 of 60 samples at up to 3 depths, also all right or all wrong."""
    n, depths = int(dice.choice([1, 2, 7, 30, 60])), int(dice.integers(1, 4))
    index = np.sort(dice.choice(60, n, replace=False))
    trials = np.full((depths, n), int(dice.integers(1, 3)))
    return Slice(tuple(range(depths)), index, dice.binomial(trials, dice.choice([0.0, 0.1, 0.9, 1.0])), trials, 0.25)


def alone(first: Slice, second: Slice) -> tuple[int, float, float, float, float] | None:
    """Samples, difference, bounds and p of one pair; p by halving the range of the multiplier with plain numbers."""
    shared = sorted({*first.index.tolist()} & {*second.index.tolist()})
    if len(shared) < 2:
        return None
    keep = [[list(part.index).index(i) for i in shared] for part in (first, second)]
    own = [part.hits[:, k].sum(axis=0) / part.trials[:, k].sum(axis=0) for part, k in zip((first, second), keep, strict=True)]  # fmt: skip
    terms = [(1.0, own[0]), (-1.0, own[1])]
    test = contrast_test(terms)
    values = contrast_values(terms)
    return (
        len(shared),
        test.difference,
        test.low,
        test.high,
        _p(values, tuple(map(float, _support(terms, 0.0, values)))),
    )


def _p(values: np.ndarray, support: tuple[float, ...]) -> float:
    n, total = len(values), float(values.sum())
    if abs(total) < 1e-12 * n:
        return 1.0
    if total < 0:
        values, support, total = -values, (-support[1], -support[0]), -total
    lowest = min(float(values.min()), support[0])
    if lowest >= 0:
        return 0.0
    low, high = 0.0, -1 / lowest
    for _ in range(MULTIPLIER_STEPS):
        t = (low + high) / 2
        share = 1 + t * values
        inside = share.min() > 0 and float((values / share).sum()) > 0
        low, high = (t, high) if inside else (low, t)
    return two_sided_p(math.sqrt(low * total), n - 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([60, 200, 1 << 18]))
def test_pairs_that_are_tested_together_have_exactly_the_numbers_of_each_alone(seed, at_once):
    dice = np.random.default_rng(seed)
    slices = [slice_of(dice) for _ in range(6)]
    pairs = [(slices[i], slices[j]) for i, j in dice.integers(0, 6, (9, 2)).tolist()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_tests, "MAX_AT_ONCE", at_once)
        together = paired_tests(pairs)
    for (first, second), test in zip(pairs, together, strict=True):
        known = alone(first, second)
        if known is None:
            assert isinstance(test, Unavailable)
            continue
        assert isinstance(test, PairedTest)
        assert (test.samples, test.difference, test.low, test.high, test.p) == known
        assert (test.first, test.second) == (first.estimate, second.estimate)
