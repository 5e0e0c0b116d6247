"""What a probe grid can see before it is run: smallest differences found with 80 % power at alpha .05, two-sided.

Normal approximations (Miller 2024, arXiv 2411.00640, sec. 5; Connor 1987 for paired proportions). At 250 samples a cell:
12.4 points between two cells with different samples, 7.9 with the same samples in both and one answer in five changing.
"""

import math
from typing import Any

from lcprobe.errors import require

Z_ALPHA, Z_POWER = 1.959963984540054, 0.8416212335729143
DISCORDANT = 0.2


def detectable(n_per_cell: int, depths: int) -> dict[str, float]:
    """Smallest detectable differences, as shares, by what is compared; `depths` evenly spaced from 0 to 1.

    "At best": as if the depths of one sample were independent. The last entry is absent for grids without a depth in the
    middle third. Raises ConfigError for counts below one.
    """
    require("n", n_per_cell, n_per_cell >= 1, ">= 1")
    require("depths", depths, depths >= 1, ">= 1")
    found = {
        "two cells with different samples": unpaired(n_per_cell),
        "two lengths or models, one depth, same samples": paired(n_per_cell),
    }
    middle = sum(1 / 3 <= i / (depths - 1) <= 2 / 3 for i in range(depths)) if depths > 1 else 0
    if depths > 1:
        found[f"two lengths or models, mean of {depths} depths, same samples, at best"] = paired(n_per_cell * depths)
    if middle:
        found["ends against middle of the context"] = ends_against_middle(n_per_cell, middle)
    return found


def unpaired(n: int) -> float:
    """Two independent shares of n trials each, the lower one at 0.5."""

    def needed(d: float) -> float:
        p, mean = 0.5 + d, 0.5 + d / 2
        return (Z_ALPHA * math.sqrt(2 * mean * (1 - mean)) + Z_POWER * math.sqrt(0.25 + p * (1 - p))) / math.sqrt(n)

    return _smallest(needed, 0.5)


def paired(n: int, discordant: float = DISCORDANT) -> float:
    """The same n samples on both sides, a share `discordant` of which changes its outcome (McNemar)."""

    def needed(d: float) -> float:
        q = max(discordant, d)  # a difference of d needs at least d discordant
        return (Z_ALPHA * math.sqrt(q) + Z_POWER * math.sqrt(max(q - d * d, 0.0))) / math.sqrt(n)

    return _smallest(needed, 1.0)


def ends_against_middle(n: int, middle: int) -> float:
    """Mean of the first and the last depth minus the mean of `middle` depths between them; all near 0.5, unpaired."""
    return min(1.0, (Z_ALPHA + Z_POWER) * math.sqrt(0.25 / n * (1 / 2 + 1 / middle)))


def _smallest(needed: Any, most: float) -> float:
    """The d in 0 .. most with d = needed(d); `most` where even that is too small to be found."""
    low, high = 0.0, most
    if needed(most) >= most:
        return most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < needed(middle) else (low, middle)
    return high
