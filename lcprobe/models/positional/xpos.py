"""xPos: RoPE whose pairs also fade with distance, the slow ones least (Sun et al. 2022, arXiv 2212.10554, eq. 5-7).

    zeta_m = (2m / head_dim + gamma) / (1 + gamma)        score = sum over pairs of zeta_m^((i - j) / scale) (rotated q_m . k_m)

Only differences of exponents count, so they are taken from the last token present: a key's factor zeta^(distance from it) is at
most 1 and goes to 0 as it should, however long the sequence; a query's is at least 1 and grows over the chunk that it comes in.
Queries are therefore met in blocks, each short enough that its factors stay below the square root of what their dtype holds (18K
tokens in float32 at the published constants, 2K in float16), and keys are cached as they come.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, Call, HeadShape, Keys
from lcprobe.models.positional.prope import series
from lcprobe.models.positional.rope import Rotary
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class XPosConfig:
    """How fast pairs turn and fade."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    gamma: float = 0.4
    """zeta of the fastest pair is gamma / (1 + gamma); below 0.01 nothing is left of it."""
    scale: float = 512.0
    """Tokens over which a pair fades by zeta; below 1 a query sees itself and nothing else."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1, gamma >= 0.01, scale >= 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.gamma", self.gamma, self.gamma >= 0.01, ">= 0.01")
        require(f"{at}.scale", self.scale, self.scale >= 1, ">= 1")


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

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend; by blocks of queries whose factors are finite."""
        seqlen, reach = q.shape[1], self._reach(q.dtype)
        if keys.consecutive and seqlen <= reach:
            return super().attend(q, keys, op, return_lse)
        asked = keys.positions[-seqlen:]
        sizes = keys.where.once(("xpos", reach), lambda: _counts((asked - asked[0]) // reach))
        outputs, totals, lo = [], [], 0
        for n in sizes:
            hi = lo + n
            part = TokenContext(asked[lo:hi], None, keys.where.length)
            where = keys.where.once(("xpos part", lo, hi), lambda part=part: part)
            o, lse = super().attend(
                q[:, lo:hi], replace(keys.of_queries(lo, hi, seqlen), where=where), op, return_lse
            )
            outputs.append(o)
            totals.append(lse)
            lo = hi
        return torch.cat(outputs, dim=1), None if totals[0] is None else torch.cat(totals, dim=1)

    def _reach(self, dtype: torch.dtype) -> int:
        """Positions over which the fastest pair's factor grows to the square root of the largest number, at least 1."""
        fastest = math.log1p(1 / self.config.gamma) / self.config.scale
        return max(1, int(min(math.log(torch.finfo(dtype).max) / 2 / fastest, 1 << 40)))

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


def _counts(numbers: Tensor) -> list[int]:
    """Lengths of the runs of equal numbers."""
    return numbers.unique_consecutive(return_counts=True)[1].tolist()
