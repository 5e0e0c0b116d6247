"""Sandwich: inner products of sinusoidal position vectors as a bias (Chi et al. 2022, arXiv 2212.10356, sec. 5).

    T[h, d] = n_heads / (8 (h + 1)) sum_m cos(d w_m)        w_m = 10000^(-2m / width), m = 0 .. width / 2 - 1

Nothing is learned; the sum decreases roughly with the logarithm of distance, at a rate that differs between heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.positional.contract import Keys, PositionalEncoding
from lcprobe.models.positional.rope import geometric_frequencies

DISTANCES_PER_BLOCK = 1 << 16
"""Distances whose sums are computed at once, which bounds memory."""


@dataclass(frozen=True)
class SandwichConfig:
    """The sinusoidal position vectors of Sandwich."""

    width: int = 128
    """Dimension of the position vectors: twice the number of sinusoids."""
    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError for an odd width and for a base <= 1."""
        require(f"{at}.width", self.width, self.width >= 2 and self.width % 2 == 0, "an even number >= 2")
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class Sandwich(PositionalEncoding[SandwichConfig]):
    """The inner product of two position vectors, scaled per head."""

    Config = SandwichConfig
    family = "bias"

    def bias(self, distance: Tensor) -> Tensor:
        """The sum of cosines divided by a head's ratio, float64. Distances that occur more than once are summed once,
        which waits for a GPU, to count them."""
        unique, back = distance.reshape(-1).unique(return_inverse=True)
        return self._of_heads(self._sums(unique)[back].view(distance.shape))

    def _sums(self, distances: Tensor) -> Tensor:
        """distances: (n,) -> their sums of cosines (n,), float64."""
        frequencies = geometric_frequencies(self.config.base, self.config.width, distances.device)
        blocks = distances.split(DISTANCES_PER_BLOCK)
        return torch.cat([(block.double()[:, None] * frequencies).cos().sum(1) for block in blocks])

    def _of_heads(self, sums: Tensor) -> Tensor:
        """Sums of any shape -> (n_heads, *shape), divided by each head's ratio."""
        heads = torch.arange(1, self.shape.n_heads + 1, dtype=torch.float64, device=sums.device)
        ratio = 8 * heads / self.shape.n_heads
        return sums / ratio.view(-1, *[1] * sums.dim())

    @torch.compiler.disable(reason="sums the distances that occur once each")
    def table(self, n: int, keys: Keys) -> Tensor:
        """See PositionalEncoding; computed once per forward pass for all layers. Lengths are in a dict of their own:
        compiled blocks are guarded by the names of what is computed once."""
        tables = keys.where.once(("sandwich", self.config, self.shape.n_heads), dict[int, Tensor])
        if n not in tables:
            tables[n] = self._of_heads(self._sums(torch.arange(n, device=keys.k.device)))
        return tables[n]
