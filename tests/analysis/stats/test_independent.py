"""Proportions of different samples."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from lcprobe.analysis.stats.intervals import Part, proportion_part, sum_bounds, two_proportions_p


@pytest.mark.parametrize(
    ("k1", "n1", "k2", "n2", "low", "high"),
    [
        (56, 70, 48, 80, 0.0524, 0.3339),  # Newcombe 1998, table II, method 10
        (9, 10, 3, 10, 0.1705, 0.8090),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (10, 10, 0, 10, 0.6075, 1.0),
    ],
)
def test_newcombes_published_intervals(k1, n1, k2, n2, low, high):
    assert sum_bounds([proportion_part(1, k1, n1), proportion_part(-1, k2, n2)]) == pytest.approx(
        (low, high), abs=1e-4
    )


def test_z_test_is_the_chi_square_test_without_correction():
    for k1, n1, k2, n2 in ((3, 50, 12, 60), (200, 250, 180, 250), (0, 40, 9, 40)):
        expected = chi2_contingency([[k1, n1 - k1], [k2, n2 - k2]], correction=False)[1]
        assert two_proportions_p(k1, n1, k2, n2) == pytest.approx(expected, rel=1e-10)
    assert two_proportions_p(0, 10, 0, 20) == 1.0


def test_interval_of_a_difference_covers():
    """Of differences of two proportions from 250 samples each, 93 to 97 % contain the true one."""
    rng = np.random.default_rng(5)
    for p, q in ((0.5, 0.5), (0.9, 0.7), (0.05, 0.02)):
        draws = zip(rng.binomial(250, p, 1500), rng.binomial(250, q, 1500), strict=True)
        bounds = [sum_bounds([proportion_part(1, a, 250), proportion_part(-1, b, 250)]) for a, b in draws]
        assert 0.93 <= np.mean([low <= p - q <= high for low, high in bounds]) <= 0.98


def test_a_mean_of_equal_parts_is_as_narrow_as_their_number_allows():
    one = Part(1, 0.5, 0.4, 0.6)
    low, high = sum_bounds([one._replace(weight=1 / 4)] * 4)
    assert (low, high) == pytest.approx((0.45, 0.55))
