"""Sandwich: what sinusoidal position vectors alone say to each other (Chi et al. 2022, arXiv 2212.10356, sec. 5).

    T[h, d] = n_heads / (8 (h + 1)) sum_m cos(d w_m)        w_m = 10000^(-2m / width), m = 0 .. width / 2 - 1

Nothing is learned; the sum falls about as the logarithm of distance, and heads differ in how fast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.positional.contract import Keys, PositionalEncoding

CHUNK = 1 << 16


@dataclass(frozen=True)
class SandwichConfig:
    """Size of the position vectors."""

    width: int = 128
    """Twice the number of waves."""
    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError for odd widths and a base <= 1."""
        require(f"{at}.width", self.width, self.width >= 2 and self.width % 2 == 0, "an even number >= 2")
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class Sandwich(PositionalEncoding):
    """The inner product of two position vectors, scaled a head."""

    Config = SandwichConfig
    family = "bias"

    def bias(self, distance: Tensor) -> Tensor:
        """The sum of cosines over a head's ratio, float64."""
        exponent = torch.arange(0, self.config.width, 2, dtype=torch.float64, device=distance.device)
        waves = self.config.base ** (-exponent / self.config.width)
        unique, back = distance.reshape(-1).unique(return_inverse=True)
        sums = torch.cat([(part.double()[:, None] * waves).cos().sum(1) for part in unique.split(CHUNK)])
        ratio = (
            8
            * torch.arange(1, self.shape.n_heads + 1, dtype=torch.float64, device=distance.device)
            / self.shape.n_heads
        )
        return sums[back].view(distance.shape) / ratio.view(-1, *[1] * distance.dim())

    def table(self, n: int, keys: Keys) -> Tensor:
        """The same for all layers of a forward pass."""
        return keys.where.once(
            ("sandwich", self.config, self.shape.n_heads, n), lambda: self.bias(torch.arange(n, device=keys.k.device))
        )
