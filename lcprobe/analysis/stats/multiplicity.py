"""Holm's correction for many tests (1979)."""

from collections.abc import Sequence

import numpy as np

ALPHA = 0.05
"""Significance level, two-sided, after Holm's correction."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values of one family, in the order given."""
    order = np.argsort(np.asarray(p_values, float), kind="stable")
    adjusted, running = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
