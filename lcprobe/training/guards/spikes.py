"""Losses that stand out from those of the steps before, by median and median absolute deviation, which a few bad
values do not move."""

import math
from collections.abc import Iterable
from statistics import median

WINDOW, LEAST = 128, 32
"""Finite losses that one is compared with, at most and at least: before that, none is a spike."""
SIGMA_OF_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_SIGMA = 0.01
"""Of the median: where the losses of a toy hardly differ, noise is no spike."""


class RecentLosses:
    """The finite losses of the last steps. before: those of a run that goes on."""

    def __init__(self, before: Iterable[float] = ()):
        self.values = list(before)[-WINDOW:]

    def sigmas(self, loss: float) -> float:
        """How far a loss is above the median of the steps before, in standard deviations; 0 where there are too few,
        or it is not finite. It then counts as one of those before."""
        if not math.isfinite(loss):
            return 0.0
        above = 0.0
        if len(self.values) >= LEAST:
            middle = median(self.values)
            sigma = SIGMA_OF_MAD * median(abs(value - middle) for value in self.values)
            above = (loss - middle) / max(sigma, LEAST_SIGMA * abs(middle), 1e-12)
        self.values = [*self.values[-WINDOW + 1 :], loss]
        return above
