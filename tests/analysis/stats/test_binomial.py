"""The exact binomial against scipy, and the power of its one-sided test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.binomial import binomial_range, binomial_tail, detectable_accuracy


@given(n=st.integers(1, 2000), p=st.floats(0, 1), k=st.integers(0, 2001))
def test_binomial_tail_equals_scipy(n, p, k):
    k = min(k, n + 1)
    assert binomial_tail(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-9, abs=1e-12)


@given(n=st.integers(1, 800), p=st.floats(0.001, 0.999))
def test_the_range_has_at_least_95_percent_and_cannot_be_narrower(n, p):
    low, high = (round(x * n) for x in binomial_range(n, p))
    assert stats.binom.cdf(low - 1, n, p) <= 0.025 + 1e-9
    assert stats.binom.sf(high, n, p) <= 0.025 + 1e-9
    assert stats.binom.cdf(low, n, p) > 0.025 - 1e-9
    assert stats.binom.sf(high - 1, n, p) >= 0.025 - 1e-9


def test_certain_levels():
    assert binomial_range(50, 1.0) == (1.0, 1.0)
    assert binomial_range(50, 0.0) == (0.0, 0.0)
    assert binomial_tail(1, 50, 0.0) == 0.0
    assert binomial_tail(50, 50, 1.0) == 1.0


def test_the_detectable_accuracy_has_a_power_of_80_percent():
    for n, chance, level in ((400, 0.25, 0.05 / 200), (400, 0.008, 0.05 / 200), (80, 0.5, 0.05)):
        accuracy = detectable_accuracy(n, chance, level)
        count = int(stats.binom.isf(level, n, chance)) + 1  # the smallest count whose tail is below the level
        assert stats.binom.sf(count - 1, n, chance) < level
        assert stats.binom.sf(count - 1, n, accuracy) == pytest.approx(0.8, abs=1e-4)
    assert detectable_accuracy(1, 0.5, 1e-3) == 1.0
