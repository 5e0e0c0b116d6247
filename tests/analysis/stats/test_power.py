"""Detectable differences: published reference values, and a simulation of the stated power."""

import numpy as np
import pytest

from lcprobe.analysis.stats.power import (
    detectable_differences,
    ends_against_middle,
    paired_difference,
    unpaired_difference,
)
from lcprobe.analysis.stats.score_test import mean_p
from lcprobe.errors import ConfigError


@pytest.mark.parametrize(
    ("n", "apart", "same", "middle"), [(250, 12.4, 7.9, 10.8), (1000, 6.2, 4.0, 5.4), (2000, 4.4, 2.8, 3.8)]
)
def test_reference_values_in_points(n, apart, same, middle):
    detectable = 100 * unpaired_difference(n), 100 * paired_difference(n), 100 * ends_against_middle(n, 1)
    assert detectable == pytest.approx((apart, same, middle), abs=0.06)


def test_the_power_is_about_80_percent():
    n, generator = 400, np.random.default_rng(0)
    d = paired_difference(n)
    draws = generator.choice([1, -1, 0], (400, n), p=[(0.2 + d) / 2, (0.2 - d) / 2, 0.8])
    assert 0.74 <= np.mean([mean_p(row, (-1.0, 1.0)) < 0.05 for row in draws.astype(float)]) <= 0.86


def test_plain_numbers_for_every_grid():
    assert all(
        isinstance(v, float) and 0 < v <= 1
        for n in (1, 20, 500)
        for d in (1, 2, 5, 11)
        for v in detectable_differences(n, d).values()
    )
    assert "ends against middle of the context" in detectable_differences(100, 5)
    assert "ends against middle of the context" not in detectable_differences(100, 2)
    with pytest.raises(ConfigError, match="^n: given 0"):
        detectable_differences(0, 5)
