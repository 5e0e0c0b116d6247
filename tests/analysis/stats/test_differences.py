"""Intervals and tests of differences, contrasts and ratios: published values, coverage, level, and agreement."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.differences import (
    contrast_bounds,
    contrast_p,
    contrast_side,
    difference_bounds,
    mean_bounds_at,
    ratio_bounds,
    ratio_side,
)
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.analysis.stats.score_test import excess
from lcprobe.analysis.stats.student_t import Z95
from validation.coverage_pairs import clustered_rates


def pairs(up: int, down: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n samples of one trial per side, of which `up` gain and `down` lose; the others are half right, half wrong."""
    first, second = np.zeros((2, n))
    first[:up], second[up : up + down] = 1, 1
    first[up + down : up + down + (n - up - down) // 2] = second[up + down : up + down + (n - up - down) // 2] = 1
    return first, second


def test_the_score_is_at_its_quantile_at_tangos_published_bounds():
    """Fagerland, Lydersen & Laake 2014, their first example: 1 and 7 of 21 pairs change, -0.517 to -0.026."""
    first, second = pairs(1, 7, 21)
    for bound, sign in ((-0.5172, 1), (-0.0260, -1)):
        values = sign * (first - second - bound)
        assert excess(values, np.inf, Z95 - 0.002) > 0 > excess(values, np.inf, Z95 + 0.002)


@pytest.mark.parametrize(("up", "down", "n"), [(1, 7, 21), (60, 40, 200), (3, 0, 500), (0, 0, 90), (200, 0, 200)])
def test_bounds_of_single_trials_are_tangos_with_t_for_z(up, down, n):
    low, high = map(float, difference_bounds(*pairs(up, down, n)))
    assert low <= (up - down) / n <= high
    critical = float(stats.t.ppf(0.975, n - 1))
    lower, upper = map(float, wilson(up, n, critical))
    if up == down == 0:
        assert (low, high) == pytest.approx((-upper, upper), abs=1e-6)
    if up == n:  # all changes go up: a proportion of changes between (1 + low) / 2 and 1
        assert (low, high) == pytest.approx((2 * lower - 1, 1), abs=1e-6)
    for bound in (low, high):  # Tango's statistic, with his root of the constrained likelihood
        if 0 < down:
            b, c = (2 * n - up + down) * bound - up - down, -down * bound * (1 - bound)
            q = (math.sqrt(b * b - 8 * n * c) - b) / (4 * n)
            score = (up - down - n * bound) / math.sqrt(n * (2 * q + bound * (1 - bound)))
            assert abs(score) == pytest.approx(critical, rel=1e-5)


@given(up=st.integers(0, 60), down=st.integers(0, 60), ties=st.integers(2, 40))
def test_single_trials_are_mcnemars_test_with_t_for_z(up, down, ties):
    n = up + down + ties
    first, second = pairs(up, down, n)
    z = abs(up - down) / max(up + down, 1) ** 0.5
    assert contrast_p([(1.0, first), (-1.0, second)]) == pytest.approx(2 * stats.t.sf(z, n - 1), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), asked=st.sampled_from([1, 2, 5]))
def test_exchanged_sides_exchange_the_bounds(seed, asked):
    generator = np.random.default_rng(seed)
    first, second = generator.binomial(asked, [[[0.7]], [[0.4]]], (2, 3, 30)) / asked
    low, high = difference_bounds(first, second)
    less, more = difference_bounds(second, first)
    assert low == pytest.approx(-more)
    assert high == pytest.approx(-less)
    assert (low >= -1).all()
    assert (high <= 1).all()
    for i in range(3):
        assert [float(x) for x in difference_bounds(first[i], second[i])] == pytest.approx([low[i], high[i]])


@pytest.mark.parametrize(("asked", "n", "proportions"), [(1, 50, (0.1, 0.5, 0.9)), (5, 50, (0.05, 0.5, 0.9))])
@pytest.mark.parametrize("factor", [1.0, 0.8, 0.3])
def test_differences_are_covered(asked, n, proportions, factor):
    """2000 studies, each sample with its own rate on both sides: within 93 to 98.5 %, less two standard errors."""
    for p in proportions:
        generator = np.random.default_rng(11)
        rate = clustered_rates(generator, p, 0.3, (2000, n))
        first, second = generator.binomial(asked, rate) / asked, generator.binomial(asked, rate * factor) / asked
        low, high = difference_bounds(first, second)
        covered = np.mean((low <= p * (1 - factor)) & (p * (1 - factor) <= high))
        assert 0.92 <= covered <= 0.99, (p, covered)


@pytest.mark.parametrize("correlations", [(0.0, 0.0), (0.0, 1.0), (0.5, 1.0)])
@pytest.mark.parametrize("n", [25, 50, 100])
def test_the_level_holds_where_one_side_is_all_or_nothing_and_the_other_is_not(n, correlations):
    """Signs of such differences are not equally likely: a sign-flip test rejects up to 23 % at n = 25; 2000 studies."""
    for p in (0.1, 0.5, 0.9):
        for asked in (5, 20):
            generator = np.random.default_rng(2)
            first, second = (
                generator.binomial(asked, clustered_rates(generator, p, rho, (2000, n))) / asked
                for rho in correlations
            )
            low, high = difference_bounds(first, second)
            assert np.mean((low > 0) | (high < 0)) <= 0.062, (p, asked)


@pytest.mark.parametrize("level", [0.01, 0.001])
def test_the_level_holds_for_one_depth_against_three_where_holm_needs_it(level):
    """20,000 studies of 30 samples, flat at .9: one condition against the mean of three is skewed."""
    generator = np.random.default_rng(4)
    first = generator.binomial(1, 0.9, (20_000, 30)).astype(float)
    second = generator.binomial(3, 0.9, (20_000, 30)) / 3
    rejected = np.mean(contrast_side([(1.0, first), (-1.0, second)], level=level) != 0)
    assert rejected <= level * 1.1


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([2, 5, 25, 100]), asked=st.sampled_from([1, 5]))
def test_p_agrees_with_the_interval(seed, n, asked):
    """Also for contrasts of any weights, all right, all wrong, and copies of a side."""
    generator = np.random.default_rng(seed)
    p = generator.choice([0.0, 0.05, 0.5, 0.9, 1.0], 3)
    terms = [
        (float(weight), generator.binomial(asked, share, n) / asked)
        for weight, share in zip(generator.choice([-1.7, -1.0, -0.5, 0.5, 1.0], 3), p, strict=True)
    ]
    if generator.random() < 0.2:
        terms[1] = (-terms[0][0], terms[0][1])
    constant = float(generator.choice([0.0, 0.0, -0.1]))
    low, high = map(float, contrast_bounds(terms, constant))
    p_value = contrast_p(terms, constant)
    assert 0 <= p_value <= 1
    if abs(p_value - 0.05) > 1e-6:
        assert (p_value < 0.05) == (low > 0 or high < 0)
    for at in (-0.3, 0.0, 0.2) if not constant else ():
        if min(abs(at - low), abs(at - high)) > 1e-6:
            assert contrast_side(terms, at) == (-1 if at < low else 1 if at > high else 0)


def test_a_contrast_of_equal_weights_is_the_difference():
    generator = np.random.default_rng(1)
    a, b, c = generator.binomial(1, 0.6, (3, 80)).astype(float)
    low, high = contrast_bounds([(0.5, a), (0.5, b), (-1.0, c)])
    less, more = difference_bounds((a + b) / 2, c)
    assert (float(low), float(high)) == pytest.approx((float(less), float(more)), abs=1e-8)
    scaled = contrast_bounds([(1.0, a), (1.0, b), (-2.0, c)])
    assert [float(x) / 2 for x in scaled] == pytest.approx([float(low), float(high)], abs=1e-8)


@pytest.mark.parametrize(("p", "factor"), [(0.1, 0.5), (0.5, 0.8), (0.9, 0.95), (0.98, 0.5)])
def test_ratios_are_covered(p, factor):
    """4000 studies of 100 samples with 5 questions per side."""
    generator = np.random.default_rng(5)
    rate = clustered_rates(generator, p, 0.3, (4000, 100))
    top, bottom = generator.binomial(5, rate * factor) / 5, generator.binomial(5, rate) / 5
    assert 0.923 <= np.mean(ratio_side(top, bottom, factor) == 0) <= 0.98


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    p=st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    factor=st.sampled_from([0.5, 0.9, 0.97, 1.0]),
    asked=st.sampled_from([1, 5]),
)
def test_a_ratio_never_contradicts_its_difference(seed, p, factor, asked):
    """Includes a perfect base, where bounds from Wilson's interval of the base would contradict the difference."""
    generator = np.random.default_rng(seed)
    rate = np.full(100, p) if p == 1 else generator.beta(p * 2.33, (1 - p) * 2.33, 100)
    top, bottom = generator.binomial(asked, rate * factor) / asked, generator.binomial(asked, rate) / asked
    (low, high), (less, more) = ratio_bounds(top, bottom), difference_bounds(top, bottom)
    assert low <= (top.mean() / bottom.mean() if bottom.any() else 0) <= high
    if bottom.any():
        assert (low < 1 < high) == (less < 0 < more)
        for r in (0.3, 0.7, 1.0, 1.6):
            if min(abs(r - low), abs(r - high)) > 1e-6:
                assert ratio_side(top, bottom, r) == (-1 if r < low else 1 if r > high else 0)


def test_nothing_that_changes_gives_an_open_interval_and_not_a_point():
    zeros, ones = np.zeros(100), np.ones(100)
    low, high = difference_bounds(zeros, zeros)
    assert 0.0369 < high == -low < 0.06, "at least what Wilson allows for a change that never occurs"
    assert contrast_p([(1.0, zeros), (-1.0, zeros)]) == 1
    low, high = difference_bounds(np.full(100, 0.6), np.full(100, 0.4))
    assert 0 < low < 0.2 < high < 0.25, "equal differences of all samples are no error of zero"
    low, high = ratio_bounds(zeros, ones)
    assert low == 0
    assert 0.03 < high < 0.06
    assert ratio_bounds(np.ones(10), np.zeros(10))[1] == math.inf
    assert [float(x) for x in difference_bounds(np.ones(1), np.zeros(1))] == [-1, 1]


@pytest.mark.parametrize("level", [0.05, 0.01, 1e-4])
@pytest.mark.parametrize(("k", "n"), [(39, 50), (0, 20), (20, 20), (3, 8)])
def test_bounds_at_a_level_exclude_what_the_test_does(k, n, level):
    shares = np.repeat([1.0, 0.0], [k, n - k])
    low, high = mean_bounds_at(shares, level)
    assert low <= k / n <= high
    for at in (low - 1e-5, low + 1e-5, high - 1e-5, high + 1e-5):
        if 0 < at < 1 and abs(at - k / n) > 1e-4:
            assert (contrast_p([(1.0, shares)], -at) < level) == (not low < at < high)
    if level == 0.05 and 0 < k < n:
        assert (low, high) == pytest.approx([float(x) for x in contrast_bounds([(1.0, shares)])], abs=1e-6)
    assert mean_bounds_at(shares[:1], level) == (0.0, 1.0)
