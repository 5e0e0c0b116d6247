"""Estimates as text, and proportions of clusters by hand."""

import numpy as np
import pytest

from lcprobe.analysis.stats.estimates import Estimate, proportion_of
from lcprobe.analysis.stats.intervals import wilson


def test_estimates_are_written_with_their_interval():
    assert str(Estimate(0.51234, 0.4, 0.625, 20)) == "0.512 (0.4–0.625)"
    assert str(Estimate(0.51234, 0.4, float("inf"), 20, ".2f")) == "0.51 (0.40–inf)"


def test_a_proportion_of_single_trials_has_wilsons_interval():
    x = proportion_of(np.repeat([1, 0], [30, 70]), np.ones(100))
    low, high = wilson(30, 100)
    assert (x.k, x.n, x.samples, x.value) == (30, 100, 100, 0.3)
    assert (x.low, x.high) == pytest.approx((float(low), float(high)))
    assert str(x) == f"0.30 (30/100, {x.low:.2f}–{x.high:.2f})"


def test_clusters_without_a_trial_do_not_count():
    x = proportion_of(np.array([2, 0, 4]), np.array([4, 0, 4]))
    assert (x.k, x.n, x.samples) == (6, 8, 2)
