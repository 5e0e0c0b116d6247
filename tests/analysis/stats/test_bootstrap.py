"""The cluster bootstrap: its draws are a function of the number of clusters, its interval is that of a mean."""

import math

import numpy as np
import pytest

from lcprobe.analysis.stats.bootstrap import bootstrap_mean, resample_weights


def test_draws_depend_on_nothing_but_n():
    first = resample_weights(37).copy()
    resample_weights.cache_clear()
    np.random.seed(4)
    assert np.array_equal(first, resample_weights(37))
    assert (first.sum(axis=1) == 37).all()


def test_the_interval_of_a_mean_is_students_up_to_the_bootstrap():
    values = np.random.default_rng(2).normal(3, 1, 60)
    mean = bootstrap_mean(np.append(values, math.nan))
    assert mean is not None
    assert (mean.value, mean.n) == (pytest.approx(values.mean()), 60)
    half = 2.0 * values.std(ddof=1) / math.sqrt(60)
    assert (mean.low, mean.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert bootstrap_mean(np.array([math.nan])) is None
