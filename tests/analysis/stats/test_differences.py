"""Intervals of differences and ratios: published values, brute force, and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from lcprobe.analysis.stats.differences import (
    difference_bounds,
    ratio_bounds,
    ratio_side,
    tango_score,
)
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.analysis.stats.student_t import Z95


def pairs(up: int, down: int, n: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [up, down, n - up - down])


def test_the_score_is_at_its_quantile_at_tangos_published_bounds():
    """Fagerland, Lydersen & Laake 2014, their first example: 1 and 7 of 21 pairs change, -0.517 to -0.026."""
    scores = tango_score(np.array(1.0), np.array(7.0), np.array(21.0), np.array([-0.5172, -0.0260]))
    assert scores == pytest.approx([Z95, -Z95], abs=0.001)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(3, 40), data=st.data(), d=st.floats(-0.9, 0.9))
def test_the_score_takes_the_constrained_maximum_of_likelihood(n, data, d):
    """By brute force over the proportion that goes down."""
    up = data.draw(st.integers(0, n))
    down = data.draw(st.integers(0, n - up))

    def loss(q: float) -> float:
        shares = (q + d, q, 1 - 2 * q - d)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip((up, down, n - up - down), shares, strict=True) if k)

    largest = (1 - d) / 2
    q = optimize.minimize_scalar(loss, bounds=(max(0.0, -d), largest), method="bounded", options={"xatol": 1e-10}).x
    q = min((q, max(0.0, -d), largest), key=loss)
    variance = n * (2 * q + d - d * d)
    if variance > 1e-6:
        assert tango_score(*map(np.array, (up, down, n, d))) == pytest.approx(
            (up - down - n * d) / variance**0.5, rel=1e-3, abs=1e-4
        )


@pytest.mark.parametrize(("up", "down", "n"), [(1, 7, 21), (60, 40, 200), (3, 0, 500), (0, 0, 90), (200, 0, 200)])
def test_bounds_of_single_trials_are_tangos_with_t_for_z(up, down, n):
    """n_eff is (n - 1) (z / t)^2 where changes go both ways; where none occurs, n."""
    low, high = difference_bounds(pairs(up, down, n))
    assert low <= (up - down) / n <= high
    n_eff = (n - 1) * (Z95 / stats.t.ppf(0.975, n - 1)) ** 2
    if 0 < down < up < n:
        went_down, went_up = np.array(down / n * n_eff), np.array(up / n * n_eff)
        assert np.abs(tango_score(went_up, went_down, np.array(n_eff), np.array([low, high]))) == pytest.approx(
            [Z95, Z95], rel=0.02
        )
    lower, upper = map(float, wilson(up, n))
    if up == down == 0:
        assert (float(low), float(high)) == pytest.approx((-upper, upper), abs=1e-6)
    if up == n:  # all changes go up: a proportion of changes between (1 + low) / 2 and 1
        assert (float(low), float(high)) == pytest.approx((2 * lower - 1, 1), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), questions=st.sampled_from([1, 2, 5]))
def test_exchanged_sides_exchange_the_bounds(seed, questions):
    generator = np.random.default_rng(seed)
    difference = (
        generator.binomial(questions, 0.7, (3, 30)) - generator.binomial(questions, 0.4, (3, 30))
    ) / questions
    low, high = difference_bounds(difference)
    less, more = difference_bounds(-difference)
    assert low == pytest.approx(-more)
    assert high == pytest.approx(-less)
    assert (low >= -1).all()
    assert (high <= 1).all()
    for i in range(3):
        assert [float(x) for x in difference_bounds(difference[i])] == pytest.approx([low[i], high[i]])


@pytest.mark.parametrize(
    ("questions", "n", "proportions"),
    [(1, 50, (0.1, 0.5, 0.9)), (5, 50, (0.05, 0.1, 0.5, 0.9)), (5, 100, (0.02, 0.5, 0.95))],
)
@pytest.mark.parametrize("factor", [1.0, 0.8, 0.3])
def test_differences_are_covered(questions, n, proportions, factor):
    """4000 studies, each sample with its own rate: within 93 to 98.5 %, less two standard errors."""
    for p in proportions:
        generator = np.random.default_rng(11)
        rate = generator.beta(p * 2.33, (1 - p) * 2.33, (4000, n))
        difference = (generator.binomial(questions, rate) - generator.binomial(questions, rate * factor)) / questions
        low, high = difference_bounds(difference)
        covered = np.mean((low <= p * (1 - factor)) & (p * (1 - factor) <= high))
        assert 0.923 <= covered <= 0.985, (p, covered)


@pytest.mark.parametrize(("p", "factor"), [(0.1, 0.5), (0.5, 0.8), (0.9, 0.95), (0.98, 0.5)])
def test_ratios_are_covered(p, factor):
    """4000 studies of 100 samples with 5 questions per side."""
    generator = np.random.default_rng(5)
    rate = generator.beta(p * 2.33, (1 - p) * 2.33, (4000, 100))
    top, bottom = generator.binomial(5, rate * factor) / 5, generator.binomial(5, rate) / 5
    assert 0.923 <= np.mean(ratio_side(top, bottom, factor) == 0) <= 0.98


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    p=st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    factor=st.sampled_from([0.5, 0.9, 0.97, 1.0]),
    questions=st.sampled_from([1, 5]),
)
def test_a_ratio_never_contradicts_its_difference(seed, p, factor, questions):
    """Includes a perfect base, where bounds from Wilson's interval of the base would contradict the difference."""
    generator = np.random.default_rng(seed)
    rate = np.full(100, p) if p == 1 else generator.beta(p * 2.33, (1 - p) * 2.33, 100)
    top, bottom = (
        generator.binomial(questions, rate * factor) / questions,
        generator.binomial(questions, rate) / questions,
    )
    (low, high), (less, more) = ratio_bounds(top, bottom), difference_bounds(top - bottom)
    assert low <= (top.mean() / bottom.mean() if bottom.any() else 0) <= high
    if bottom.any():
        assert (low < 1 < high) == (less < 0 < more)
        for r in (0.3, 0.7, 1.0, 1.6):
            if min(abs(r - low), abs(r - high)) > 1e-6:
                assert ratio_side(top, bottom, r) == (-1 if r < low else 1 if r > high else 0)


def test_nothing_to_resample_gives_an_open_interval_and_not_a_point():
    low, high = difference_bounds(np.zeros(100))
    assert 0.0369 < high == -low < 0.06, "at least what Wilson allows for a change that never occurs"
    low, high = ratio_bounds(np.zeros(100), np.ones(100))
    assert low == 0
    assert 0.03 < high < 0.06
    assert ratio_bounds(np.ones(10), np.zeros(10))[1] == math.inf
    assert [float(x) for x in difference_bounds(np.ones(1))] == [-1, 1]
