"""The score test: known special cases, the tilt by brute force, and monotone bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from lcprobe.analysis.stats.intervals import wilson
from lcprobe.analysis.stats.score_test import critical_value, excess, least_p, mean_bounds, mean_p, upper_bound
from lcprobe.analysis.stats.student_t import Z95


def support_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.min(axis=-1), values.max(axis=-1)


@given(n=st.integers(2, 300), share=st.floats(0, 1), critical=st.sampled_from([Z95, 2.5]))
def test_the_bound_of_zeros_and_ones_is_wilsons(n, share, critical):
    values = np.repeat([1.0, 0.0], [round(share * n), n - round(share * n)])
    bound = upper_bound(values, 1.0, np.array(1.0), critical, (values.mean(), 1.0))
    assert float(bound) == pytest.approx(float(wilson(values.sum(), n, critical)[1]), abs=1e-8)


@given(up=st.integers(0, 40), down=st.integers(0, 40), ties=st.integers(0, 30))
def test_the_p_value_of_single_trials_is_mcnemars_with_t_for_z(up, down, ties):
    n = up + down + ties
    if n < 2:
        return
    values = np.repeat([1.0, -1.0, 0.0], [up, down, ties])
    z = abs(up - down) / max(up + down, 1) ** 0.5
    expected = 2 * stats.t.sf(z, n - 1)
    assert mean_p(values, (-1.0, 1.0)) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 12))
def test_the_variance_is_that_of_the_most_likely_weights_with_mean_zero(seed, n):
    """Against a general optimiser of the empirical likelihood."""
    values = np.random.default_rng(seed).uniform(-0.5, 1, n)
    if not (values.min() < -0.05 and values.mean() > 0.02):
        return
    best = optimize.minimize(
        lambda w: -np.log(w).sum(),
        np.full(n, 1 / n),
        jac=lambda w: -1 / w,
        bounds=[(1e-9, 1)] * n,
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
            {"type": "eq", "fun": lambda w: w @ values, "jac": lambda w: values},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    if not best.success:
        return
    statistic = values.mean() / (best.x @ values**2 / n) ** 0.5
    assert mean_p(values, support_of(values)) == pytest.approx(2 * stats.t.sf(statistic, n - 1), rel=2e-3)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), kind=st.sampled_from(["uniform", "rare", "few values"]))
def test_p_is_below_05_if_and_only_if_the_interval_excludes_zero(seed, n, kind):
    generator = np.random.default_rng(seed)
    values = generator.uniform(-0.4, 0.8, n)
    if kind == "rare":
        values = np.where(generator.random(n) < 0.1, 0.9, -0.1)
    if kind == "few values":
        values = generator.integers(-2, 4, n) / 4
    support = values.min() - 0.1, values.max() + 0.1
    low, high = mean_bounds(values, tuple(map(np.asarray, support)), (-1.0, 1.0))
    p = mean_p(values, support)
    assert low <= values.mean() <= high
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (low > 0 or high < 0)
    if -0.9 < low:  # at a bound that is not the end of the range, the test of that mean has p = .05
        assert mean_p(values - float(low), (support[0] - float(low), support[1] - float(low))) == pytest.approx(
            0.05, abs=1e-4
        )


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 15), gain=st.floats(0, 0.5), largest=st.booleans())
def test_no_bound_falls_when_a_value_grows(seed, n, gain, largest):
    """An interval of mean and standard deviation widens to both sides when the largest value grows."""
    generator = np.random.default_rng(seed)
    values = np.where(generator.random(n) < 0.5, generator.uniform(-0.3, 0.5, n), 0.1)
    more = values.copy()
    more[values.argmax() if largest else generator.integers(n)] += gain
    ends = np.array(-1.0), np.array(1.0)
    (low, high), (low_more, high_more) = (mean_bounds(x, ends, (-1.0, 1.0)) for x in (values, more))
    assert low_more >= low - 1e-8
    assert high_more >= high - 1e-8


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_bound_is_where_the_statistic_crosses_its_quantile(seed):
    """The search agrees with plain halving, in a batch of skewed samples."""
    generator = np.random.default_rng(seed)
    values = generator.beta(0.3, 2, (6, 20))
    highest, critical = np.ones(6), critical_value(20)
    bound = upper_bound(values, 1.0, highest, critical, (values.mean(axis=-1), 1.0))
    low, high = values.mean(axis=-1), np.ones(6)
    for _ in range(40):
        middle = (low + high) / 2
        outside = excess(middle[:, None] - values, middle - highest, critical) > 0
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    assert bound == pytest.approx(high, abs=1e-8)


def test_one_value_and_values_that_are_all_zero_say_nothing():
    assert mean_p(np.ones(1), (-1.0, 1.0)) == 1.0
    assert mean_p(np.zeros(9), (-1.0, 1.0)) == 1.0
    assert critical_value(1) == np.inf


@given(n=st.integers(2, 60), equal=st.floats(0.05, 2), lowest=st.floats(-3, -0.05))
def test_the_least_p_is_the_chance_of_the_worst_distribution_of_two_values(n, equal, lowest):
    """Mean zero, on `lowest` and on the value that all n have; of a share that is right in n of n, (share tested)^n."""
    chance = -lowest / (equal - lowest)
    assert chance * equal + (1 - chance) * lowest == pytest.approx(0, abs=1e-12)
    assert least_p(equal, lowest, n) == pytest.approx(min(1.0, 2 * chance**n))
    assert least_p(1 - 0.85, -0.85, n) == pytest.approx(min(1.0, 2 * 0.85**n))
    assert least_p(equal, lowest, n) <= least_p(equal / 2, lowest, n)
    assert (least_p(-equal, lowest, n), least_p(equal, 0.0, n)) == (1.0, 0.0)
