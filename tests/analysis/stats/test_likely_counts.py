"""How many comparisons agree by chance, against simulation with the project's own intervals."""

import numpy as np
import pytest
from scipy.stats import binom

from lcprobe.analysis.stats.binomial import agreement_probability, likely_counts
from lcprobe.analysis.stats.intervals import Part, sum_bounds, wilson


@pytest.mark.parametrize(("n", "other", "share"), [(250, 250, 0.5), (40, 250, 0.9), (250, 750, 0.01), (2, 250, 0.3)])
def test_the_probability_is_the_share_of_simulated_pairs_whose_interval_has_zero(n, other, share):
    rng, draws = np.random.default_rng(0), 4000
    agree = 0
    for k, j in zip(rng.binomial(n, share, draws), rng.binomial(other, share, draws), strict=True):
        sides = [(1.0, k, n), (-1.0, j, other)]
        low, high = sum_bounds([Part(sign, x / of, *map(float, wilson(x, of))) for sign, x, of in sides])
        agree += low <= 0 <= high
    assert agreement_probability(n, other, share) == pytest.approx(agree / draws, abs=0.015)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_draws_of_nothing_or_of_all_agree_always(share):
    assert agreement_probability(250, 40, share) == pytest.approx(1)


def test_counts_of_equal_probabilities_are_binomial():
    assert likely_counts([0.95] * 81) == (int(binom.ppf(0.025, 81, 0.95)), int(binom.ppf(0.975, 81, 0.95)))
    assert likely_counts([1.0] * 30 + [0.95] * 81) == tuple(30 + x for x in likely_counts([0.95] * 81))
    assert likely_counts([]) == (0, 0)
