"""Smallest differences that a probe grid detects with 80 % power at alpha .05, two-sided: known before it is run.

Normal approximations (Miller 2024, arXiv 2411.00640, sec. 5; Connor 1987 for paired proportions). At 250 samples per
cell: 12.4 points between two cells with different samples, 7.9 with the same samples in both and one answer in five
changing.
"""

import math
from collections.abc import Callable

from lcprobe.analysis.stats.student_t import Z95
from lcprobe.errors import require

Z_POWER = 0.8416212335729143
"""80 % quantile of the normal distribution."""
DISCORDANT = 0.2


def detectable_differences(n_per_cell: int, depths: int) -> dict[str, float]:
    """Smallest detectable differences of proportions, by comparison; `depths` strata of equal width.

    "At best": as if the depths of one sample were independent. The last entry is absent for grids without a depth in
    the middle half. Raises ConfigError for counts below one.
    """
    require("n", n_per_cell, n_per_cell >= 1, ">= 1")
    require("depths", depths, depths >= 1, ">= 1")
    smallest = {
        "two cells with different samples": unpaired_difference(n_per_cell),
        "two lengths or models, one depth, same samples": paired_difference(n_per_cell),
    }
    middle = sum(1 / 4 <= (i + 0.5) / depths <= 3 / 4 for i in range(depths)) if depths > 2 else 0
    if depths > 1:
        name = f"two lengths or models, mean of {depths} depths, same samples, at best"
        smallest[name] = paired_difference(n_per_cell * depths)
    if middle:
        smallest["ends against middle of the context"] = ends_against_middle(n_per_cell, middle)
    return smallest


def unpaired_difference(n: int) -> float:
    """Smallest detectable difference of two independent proportions of n trials each, the lower one at 0.5."""

    def needed(d: float) -> float:
        p, mean = 0.5 + d, 0.5 + d / 2
        return (Z95 * math.sqrt(2 * mean * (1 - mean)) + Z_POWER * math.sqrt(0.25 + p * (1 - p))) / math.sqrt(n)

    return _fixed_point(needed, 0.5)


def paired_difference(n: int, discordant: float = DISCORDANT) -> float:
    """Smallest detectable difference on the same n samples (McNemar); discordant: proportion that changes."""

    def needed(d: float) -> float:
        q = max(discordant, d)  # a difference of d needs at least d discordant
        return (Z95 * math.sqrt(q) + Z_POWER * math.sqrt(max(q - d * d, 0.0))) / math.sqrt(n)

    return _fixed_point(needed, 1.0)


def ends_against_middle(n: int, middle: int) -> float:
    """Smallest detectable difference between the ends and `middle` depths between them.

    Mean of the first and last depth against the mean of the middle; all proportions near 0.5, unpaired.
    """
    return min(1.0, (Z95 + Z_POWER) * math.sqrt(0.25 / n * (1 / 2 + 1 / middle)))


def _fixed_point(needed: Callable[[float], float], largest: float) -> float:
    """The d in 0 .. largest with d = needed(d); `largest` where even that cannot be detected."""
    low, high = 0.0, largest
    if needed(largest) >= largest:
        return largest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < needed(middle) else (low, middle)
    return high
