"""Half-life: how fast accuracy above the floor decays with the distance in tokens.

The fit is stats.exponential_fit. The floor is that of the reach: chance for look-up tasks, else zero. A half-life is
given only where a reach within the distances tested is a finding of the report, and where an exponential describes
the curve: a window that ends sharply, or accuracy that stays up and then falls, has none, by the misfit (chi-square
over the bins of distance).
"""

import math
from dataclasses import dataclass

from lcprobe.analysis.findings.cells import Measured, PanelKey
from lcprobe.analysis.findings.extrapolation import floor_of
from lcprobe.analysis.findings.reach import Reach, distance_sums
from lcprobe.analysis.stats.distance_bins import misfit
from lcprobe.analysis.stats.exponential_fit import fit_decay

MISFIT_Z = 3.0902
"""One-sided normal quantile of .001: the misfit from which the curve is taken for another shape."""


@dataclass(frozen=True)
class HalfLife:
    """Half-life of one model, task and format, in tokens, with its 95 % interval; refused: why there is none.

    top: accuracy at distance zero, by the fit. high: None for beyond twice the longest distance tested.
    """

    where: PanelKey
    tokens: float | None = None
    low: float | None = None
    high: float | None = None
    top: float | None = None
    refused: str | None = None

    def __str__(self) -> str:
        if self.refused is not None or self.tokens is None or self.low is None:
            return self.refused or ""
        high = f"{self.high:,.0f}" if self.high is not None else "beyond the distances tested"
        return f"{self.tokens:,.0f} tokens ({self.low:,.0f}–{high})"


def half_lives(data: Measured, reaches: list[Reach]) -> list[HalfLife]:
    """One half-life per reach, in their order."""
    return [_half_life(data, reach) for reach in reaches]


def _half_life(data: Measured, reach: Reach) -> HalfLife:
    if reach.refused is not None:
        return HalfLife(reach.where, refused=reach.refused)
    if not reach.is_found:
        return HalfLife(reach.where, refused=str(reach))
    distance, hits, trials = distance_sums(data.panels[reach.where])
    floor = floor_of(data, reach.where)
    tokens, low, high, amplitude = fit_decay(distance, hits, trials, floor)
    if math.isinf(tokens):
        return HalfLife(reach.where, refused="beyond twice the longest distance tested")
    expected = floor + amplitude * 2.0 ** (-distance / tokens)
    if misfit(reach.bins, distance, trials.sum(axis=0), expected) > MISFIT_Z:
        return HalfLife(reach.where, refused="none: the fall is not exponential")
    return HalfLife(reach.where, tokens, low, None if math.isinf(high) else high, floor + amplitude)
