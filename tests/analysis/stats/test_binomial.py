"""The exact binomial and Fisher's test with mid-p against scipy, power, and the predictive likelihood."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.binomial import (
    binomial_range,
    binomial_tail,
    detectable_accuracy,
    equal_proportions_p,
    interval_of_share,
    log_likelihood_after,
)
from lcprobe.analysis.stats.intervals import wilson

TABLES = [(3, 10, 9, 12), (0, 20, 4, 25), (120, 250, 155, 250), (1, 5, 1, 400), (250, 250, 240, 250)]


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


@pytest.mark.parametrize("table", TABLES)
def test_p_is_fishers_with_half_of_the_observed_table(table):
    k, n, other, m = table
    chances = stats.hypergeom(n + m, k + other, n).pmf(np.arange(0, n + 1))
    own = chances[k]
    tied = np.isclose(chances, own, rtol=1e-9)
    exact = stats.fisher_exact([[k, n - k], [other, m - other]]).pvalue
    assert equal_proportions_p(*table) == pytest.approx(exact - 0.5 * chances[tied].sum(), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("table", TABLES)
def test_p_is_symmetric(table):
    k, n, other, m = table
    assert equal_proportions_p(*table) == pytest.approx(equal_proportions_p(other, m, k, n))
    assert equal_proportions_p(*table) == pytest.approx(equal_proportions_p(n - k, n, m - other, m))


def test_p_of_equal_shares_is_one_and_of_no_count_an_error():
    assert equal_proportions_p(50, 100, 250, 500) == 1 == equal_proportions_p(0, 10, 0, 7)
    with pytest.raises(ValueError, match="11 of 10"):
        equal_proportions_p(11, 10, 0, 7)


def test_likelihoods_of_all_counts_add_up_to_one():
    assert sum(math.exp(log_likelihood_after(k, 40, 13, 50)) for k in range(41)) == pytest.approx(1)
    assert sum(math.exp(log_likelihood_after(k, 40, 0, 50)) for k in range(41)) == pytest.approx(1)


def test_the_interval_of_a_share_is_wilsons():
    assert interval_of_share(0.62, 250) == pytest.approx([float(b) for b in wilson(155, 250)])
