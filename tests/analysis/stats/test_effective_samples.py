"""Effective sample size: independent trials count in full, identical answers of a sample count once."""

import numpy as np
import pytest

from lcprobe.analysis.stats.effective_samples import effective_sample_size
from lcprobe.analysis.stats.intervals import clustered_wilson, wilson


def test_clustered_trials_count_less_than_independent_ones():
    generator = np.random.default_rng(3)
    single = generator.binomial(1, 0.6, 100)
    assert list(map(float, clustered_wilson(single, np.ones(100)))) == pytest.approx(
        [float(x) for x in wilson(single.sum(), 100)]
    )
    copied = single * 4  # four questions per sample with equal outcomes: still 100 trials
    assert effective_sample_size(copied, np.full(100, 4)) == pytest.approx(100, rel=0.02)
    independent = generator.binomial(4, 0.6, 100)
    assert 300 < effective_sample_size(independent, np.full(100, 4)) <= 400


def test_a_cluster_is_never_worth_less_than_one_trial():
    """One whole sample of a hundred wrong: n_eff was 20, from a variance with two degrees of freedom."""
    hits = np.repeat([0, 5], [1, 99])
    assert effective_sample_size(hits, np.full(100, 5)) == pytest.approx(100)
    trials = np.array([1, 2, 10])
    assert effective_sample_size(trials, trials) == pytest.approx(13**2 / 105)
    assert effective_sample_size(np.array([0, 1, 5]), trials) == pytest.approx(13)
