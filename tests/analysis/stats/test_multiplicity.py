"""Holm's correction by hand."""

import pytest

from lcprobe.analysis.stats.multiplicity import holm


def test_holm_by_hand():
    # sorted: .01 x 4, .02 x 3, .025 x 2 = .05 but never below the one before, .5 x 1
    assert holm([0.5, 0.01, 0.025, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == []
