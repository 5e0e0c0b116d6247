"""xPos: RoPE whose pairs also decay with distance, low frequencies least
(Sun et al. 2022, arXiv 2212.10554, eq. 5-7).

    zeta_m = (2m / head_dim + gamma) / (1 + gamma)
    score_ij = sum over pairs m of zeta_m^((i - j) / scale) (rotated q_m . k_m)

Only differences of exponents matter, so they are relative to the last token present: a key's factor zeta^(distance
from it) is at most 1 and underflows to 0 at long distances, as it should; a query's is at least 1 and grows with the
length of the chunk. Queries are therefore processed in blocks short enough that factors stay below the square root of
their dtype's maximum (18K tokens in float32 with the published constants, 2K in float16), and keys are cached
unrotated.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, AttentionCall, HeadShape, Keys
from lcprobe.models.positional.rope import Rotary, geometric_frequencies
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class XPosConfig:
    """Frequencies and decay rates of xPos."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    gamma: float = 0.4
    """The highest-frequency pair decays by gamma / (1 + gamma) per `scale` tokens; below 0.01 it vanishes."""
    scale: float = 512.0
    """Tokens over which a pair decays by its factor zeta; below 1 a query sees only itself."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless base > 1, gamma >= 0.01 and scale >= 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.gamma", self.gamma, self.gamma >= 0.01, ">= 0.01")
        require(f"{at}.scale", self.scale, self.scale >= 1, ">= 1")


class XPos(Rotary[XPosConfig]):
    """Rotation, then a decay factor per pair and token."""

    Config = XPosConfig
    caches_raw_keys = True

    def __init__(self, config: XPosConfig, shape: HeadShape):
        super().__init__(config, shape)
        shape.check_even_head_dim()

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / head_dim)."""
        return geometric_frequencies(self.config.base, self.shape.head_dim, device)

    def key(self) -> Hashable:
        """Base and head_dim; decay is applied separately."""
        return "rope", self.config.base, self.shape.head_dim

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend; by blocks of queries whose factors are finite."""
        seqlen, reach = q.shape[1], self._reach(q.dtype)
        if keys.consecutive and seqlen <= reach:
            return super().attend(q, keys, op, return_lse)
        positions = keys.positions[-seqlen:]
        if keys.consecutive:
            sizes = [min(reach, seqlen - lo) for lo in range(0, seqlen, reach)]
        else:
            sizes = keys.where.once(("xpos", reach), lambda: _run_lengths((positions - positions[0]) // reach))
        outputs, totals, lo = [], [], 0
        for n in sizes:
            hi = lo + n
            part = TokenContext(positions[lo:hi], None, keys.where.length)
            where = keys.where.once(("xpos part", lo, hi), lambda part=part: part)
            o, lse = super().attend(
                q[:, lo:hi], replace(keys.for_queries(lo, hi, seqlen), where=where), op, return_lse
            )
            outputs.append(o)
            totals.append(lse)
            lo = hi
        return torch.cat(outputs, dim=1), None if totals[0] is None else torch.cat(totals, dim=1)

    def _reach(self, dtype: torch.dtype) -> int:
        """Positions over which the fastest pair's factor grows to the square root of the dtype's maximum; at least
        1."""
        fastest = math.log1p(1 / self.config.gamma) / self.config.scale
        return max(1, int(min(math.log(torch.finfo(dtype).max) / 2 / fastest, 1 << 40)))

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """One call on rotated and decayed queries and keys."""
        seqlen, at = q.shape[1], keys.positions
        rotated_q = self.rotated(q, at[-seqlen:], keys.where, "queries")
        rotated_k = self.rotated(keys.k, at, keys.where, "keys")
        from_last = (at - at[-1]).double()  # <= 0
        q = (rotated_q * self._decay(from_last[-seqlen:], 1, q.dtype)).to(q.dtype)
        k = (rotated_k * self._decay(from_last, -1, q.dtype)).to(q.dtype)
        return super().calls(q, replace(keys, k=k))

    def _decay(self, exponent: Tensor, sign: int, dtype: torch.dtype) -> Tensor:
        """zeta_m^(sign * exponent / scale) for both halves: (n, 1, head_dim), float32 or wider."""
        c, d = self.config, self.shape.head_dim
        zeta = (torch.arange(0, d, 2, dtype=torch.float64, device=exponent.device) / d + c.gamma) / (1 + c.gamma)
        factor = (sign * exponent[:, None] / c.scale * zeta.log()).exp()
        return torch.cat([factor, factor], dim=1)[:, None].to(torch.promote_types(dtype, torch.float32))


def _run_lengths(numbers: Tensor) -> list[int]:
    """Lengths of the runs of equal numbers. Waits for a GPU."""
    return numbers.unique_consecutive(return_counts=True)[1].tolist()
