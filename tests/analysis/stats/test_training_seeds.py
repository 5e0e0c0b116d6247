"""Intervals of groups of training seeds: scipy's Welch interval, and simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from lcprobe.analysis.stats.student_t import Z95
from lcprobe.analysis.stats.training_seeds import welch_bounds, welch_bounds_of, welch_p


def test_welch_bounds_equal_scipy_where_values_are_no_proportions():
    a, b = [0.5, 0.62, 0.58], [0.4, 0.41, 0.47, 0.3]
    exact = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert welch_bounds(a, b, math.inf, math.inf) == pytest.approx((exact.low, exact.high))
    assert welch_bounds(a, b, 1e9, 1e9) == pytest.approx((exact.low, exact.high), abs=1e-3)


def test_equal_seeds_have_the_variance_of_their_trials():
    """Two seeds of 50 trials, all right, against two with one miss each: without the prior, a point, 0.02 to 0.02."""
    low, high = welch_bounds([1, 1], [0.98, 0.98], 50, 50)
    assert low < 0 < 0.02 < high
    p, q = (100 + Z95**2 / 2) / (100 + Z95**2), (98 + Z95**2 / 2) / (100 + Z95**2)
    a, b = p * (1 - p), q * (1 - q)
    quantile = stats.t.ppf(0.975, (a + b) ** 2 / (a**2 + b**2))
    assert high - low == pytest.approx(2 * quantile * math.sqrt((a + b) / 100))
    for a, b in (([1, 1], [1, 1]), ([0, 0, 0], [0, 0])):
        low, high = welch_bounds(a, b, 250, 250)
        assert -0.09 < low < 0 < high < 0.09
        assert welch_p(a, b, 250, 250) == 1


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("over", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("n", "p"), [(50, 0.98), (50, 0.5), (250, 0.98), (250, 0.9)])
def test_groups_of_seeds_are_covered(seeds, over, n, p):
    """4000 studies. over: how much seeds vary, in standard deviations of their trials.

    Without the known variance of the trials a tenth of the studies at .98 of 50 trials exclude the truth: those with
    equal seeds.
    """
    generator = np.random.default_rng(seeds)
    rate = np.full((2, 4000, seeds), p)
    if over:
        spread = n / over**2 - 1
        rate = generator.beta(p * spread, (1 - p) * spread, rate.shape)
    a, b = generator.binomial(n, rate) / n
    low, high = welch_bounds_of(a, b, n, n)
    covered = np.mean((low <= 0) & (high >= 0))
    assert 0.93 <= covered
    assert over <= 1 or covered <= 0.995 or p == 0.98
    assert (high > low).all()


def test_the_p_value_agrees_with_the_interval_and_is_scipys():
    generator = np.random.default_rng(0)
    for _ in range(100):
        a, b = generator.binomial(100, 0.6, 3) / 100, generator.binomial(100, 0.7, 3) / 100
        low, high = welch_bounds(a, b, 100, 100)
        assert (welch_p(a, b, 100, 100) < 0.05) == (low > 0 or high < 0)
        exact = stats.ttest_ind(a, b, equal_var=False).pvalue
        assert welch_p(a, b, math.inf, math.inf) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_small_p_values_are_as_rare_as_they_say(seeds, noise):
    """Two seeds a side that agree by luck once gave p = 1e-9 for models that do not differ."""
    generator, n, studies = np.random.default_rng(seeds), 500, 4000
    rate = np.clip(0.6 + noise * generator.normal(size=(2, studies, seeds)), 0, 1)
    a, b = generator.binomial(n, rate) / n
    p = np.array([welch_p(x, y, n, n) for x, y in zip(a, b, strict=True)])
    for level in (0.05, 0.002):
        assert (p < level).sum() <= level * studies + 3 * (level * studies) ** 0.5
