"""Fisher's exact test with the mid-p correction against scipy's hypergeometric, and the predictive likelihood."""

import math

import numpy as np
import pytest

from lcprobe.analysis.stats.intervals import wilson
from lcprobe.analysis.stats.two_samples import equal_proportions_p, interval_of_share, log_likelihood_after

TABLES = [(3, 10, 9, 12), (0, 20, 4, 25), (120, 250, 155, 250), (1, 5, 1, 400), (250, 250, 240, 250)]


@pytest.mark.parametrize("table", TABLES)
def test_p_is_fishers_with_half_of_the_observed_table(table):
    stats = pytest.importorskip("scipy.stats")
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
