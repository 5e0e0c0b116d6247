"""Censored regression: least squares where nothing is censored, the likelihood's maximum elsewhere, and its coverage."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from lcprobe.analysis.stats.censored_line import censored_line

X = np.repeat([6.0, 7.0, 8.0, 9.0], 3)


def line(y, limit=math.inf, least_sd=1e-3):
    result = censored_line(X.tolist(), np.minimum(y, limit).tolist(), (y > limit).tolist(), least_sd)
    assert result is not None
    return result


def test_without_censoring_it_is_least_squares():
    y = X + np.random.default_rng(0).normal(0, 0.3, 12)
    fitted, expected = line(y), stats.linregress(X, y)
    half = stats.t.ppf(0.975, 10) * expected.stderr
    assert fitted.slope == pytest.approx((expected.slope, expected.slope - half, expected.slope + half), abs=1e-6)
    assert fitted.level.value == pytest.approx(y.mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_censoring_it_is_the_maximum_of_the_likelihood(seed):
    y, limit = X + 1 + np.random.default_rng(seed).normal(0, 0.3, 12), 9.2
    cut, known = y > limit, np.minimum(y, limit)

    def loss(p):
        r = (known - p[0] - p[1] * (X - X.mean())) / math.exp(p[2])
        return -np.where(cut, stats.norm.logsf(r), stats.norm.logpdf(r) - p[2]).sum()

    best = optimize.minimize(loss, [8.5, 1, -1], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    fitted = line(y, limit)
    assert cut.any()
    assert (fitted.level.value, fitted.slope.value) == pytest.approx(tuple(best.x[:2]), abs=1e-3)
    assert fitted.slope.low < fitted.slope.value < fitted.slope.high


def test_censoring_does_not_bias_the_slope_and_the_interval_covers_it():
    """50 lines of slope 1, a quarter of the runs censored: bounds taken for values give slopes near 0.7."""
    generator, fitted, naive = np.random.default_rng(0), [], []
    for _ in range(50):
        y = X - X.mean() + generator.normal(0, 0.2, 12)
        fitted.append(line(y, 0.9).slope)
        naive.append(np.polyfit(X, np.minimum(y, 0.9), 1)[0])
    assert np.mean(naive) < 0.9
    assert abs(np.median([s.value for s in fitted]) - 1) < 0.05
    assert sum(s.low <= 1 <= s.high for s in fitted) >= 44  # 95 % less two standard errors


def test_what_cannot_be_known_is_unbounded():
    assert censored_line([1, 2], [3, 4], [True, True], 0.1) is None
    assert censored_line([1, 1], [3, 4], [False, False], 0.1) is None
    two = censored_line([1, 2], [3, 4], [False, False], 0.1)
    assert two is not None
    assert two.slope == (1.0, -math.inf, math.inf)
    only_short = censored_line([6, 6, 6, 9, 9, 9], [7, 7.1, 6.9, 9, 9, 9], [False] * 3 + [True] * 3, 0.1)
    assert only_short is not None
    assert (only_short.slope.low > 0.4, only_short.slope.high) == (True, math.inf)


def test_values_that_agree_by_luck_have_the_least_error():
    assert line(X * 1.0, least_sd=0.1).slope.high - 1 == pytest.approx(stats.t.ppf(0.975, 10) * 0.1 / math.sqrt(15))
