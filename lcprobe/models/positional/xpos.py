"""xPos: RoPE whose pairs also fade with distance, the slow ones least (Sun et al. 2022, arXiv 2212.10554, eq. 5-7).

    zeta_m = (2m / head_dim + gamma) / (1 + gamma)        score = sum over pairs of zeta_m^((i - j) / scale) (rotated q_m . k_m)

Only differences of exponents count, so they are taken from the last token present: a key's factor zeta^(distance from it) is at
most 1 and goes to 0 as it should, however long the sequence; a query's is at least 1 and bounded by the chunk it comes in
(float32 holds 32K tokens a chunk at the published constants). Keys are therefore cached as they come.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.positional.contract import Call, HeadShape, Keys
from lcprobe.models.positional.prope import series
from lcprobe.models.positional.rope import Rotary


@dataclass(frozen=True)
class XPosConfig:
    """How fast pairs turn and fade."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    gamma: float = 0.4
    """zeta of the fastest pair is gamma / (1 + gamma)."""
    scale: float = 512.0
    """Tokens over which a pair fades by zeta."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1, gamma > 0, scale > 0."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.gamma", self.gamma, self.gamma > 0, "> 0")
        require(f"{at}.scale", self.scale, self.scale > 0, "> 0")


class XPos(Rotary):
    """Rotation, then a factor a pair and token."""

    Config = XPosConfig
    caches_raw_keys = True

    def __init__(self, config: XPosConfig, shape: HeadShape):
        super().__init__(config, shape)
        require("head_dim", shape.head_dim, shape.head_dim % 2 == 0, "an even number")

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / head_dim)."""
        return series(self.config.base, self.shape.head_dim, device)

    def key(self) -> Hashable:
        """Base and width; the fading is applied apart."""
        return "rope", self.config.base, self.shape.head_dim

    def calls(self, q: Tensor, keys: Keys) -> list[Call]:
        """One call on rotated and faded queries and keys."""
        seqlen, at = q.shape[1], keys.positions
        turned_q = self.rotated(q, at[-seqlen:], keys.where, "queries")
        turned_k = self.rotated(keys.k, at, keys.where, "keys")
        back = (at - at[-1]).double()  # <= 0
        q = (turned_q * self._fade(back[-seqlen:], 1, q.dtype)).to(q.dtype)
        k = (turned_k * self._fade(back, -1, q.dtype)).to(q.dtype)
        return super().calls(q, replace(keys, k=k))

    def _fade(self, exponent: Tensor, sign: int, dtype: torch.dtype) -> Tensor:
        """zeta_m^(sign * exponent / scale) for both halves: (n, 1, head_dim), float32 or wider."""
        c, d = self.config, self.shape.head_dim
        zeta = (torch.arange(0, d, 2, dtype=torch.float64, device=exponent.device) / d + c.gamma) / (1 + c.gamma)
        factor = (sign * exponent[:, None] / c.scale * zeta.log()).exp()
        return torch.cat([factor, factor], dim=1)[:, None].to(torch.promote_types(dtype, torch.float32))
