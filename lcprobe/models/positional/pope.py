"""PoPE: content is a magnitude, position an angle (Gopalakrishnan et al. 2025, arXiv 2509.10534, eq. 5-8).

    score_ij = scale * sum over m < head_dim of softplus(q_m) softplus(k_m) cos((j - i) theta_m + delta_m)
    theta_m = base^(-m / head_dim), delta_m learned per key head, clamped to [-2 pi, 0]

Each of the head_dim entries is a polar pair of its own, so queries and keys become twice as wide; keys are cached
unrotated.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.positional.contract import AttentionCall, HeadShape, Keys, PositionalEncoding


@dataclass(frozen=True)
class PoPEConfig:
    """Frequencies of PoPE."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless base > 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class PoPE(PositionalEncoding[PoPEConfig]):
    """Polar coordinate position embedding."""

    Config = PoPEConfig
    family = "polar"
    caches_raw_keys = True

    def __init__(self, config: PoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        require("head_dim", shape.head_dim, shape.head_dim <= 128, "<= 128: queries and keys are twice as wide")
        self.phase = nn.Parameter(torch.empty(shape.n_kv_heads, shape.head_dim))

    @staticmethod
    def params(config: PoPEConfig, shape: HeadShape) -> int:
        """One phase per entry of a key head."""
        return shape.n_kv_heads * shape.head_dim

    @staticmethod
    def flops(config: PoPEConfig, shape: HeadShape, visible: float, length: int) -> float:
        """The additional half of q . k, which is twice as wide."""
        return 2 * visible * shape.n_heads * shape.head_dim

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: biases start at 0."""
        value.zero_()

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """One call on queries and keys in Cartesian coordinates."""
        seqlen, scale = q.shape[1], q.shape[3] ** -0.5
        acc_dtype = torch.promote_types(q.dtype, torch.float32)
        # the length itself in a key would have a compiled block compiled again for each
        cached = None if len(keys.positions) == len(keys.where.positions) else len(keys.positions)
        angles = keys.where.once(("pope", self.config.base, self.shape.head_dim, cached), lambda: self._angles(keys))
        phase = self.phase.to(acc_dtype).clamp(-2 * math.pi, 0.0)
        polar_q = _polar(F.softplus(q.to(acc_dtype)), angles[-seqlen:, None].to(acc_dtype))
        polar_k = _polar(F.softplus(keys.k.to(acc_dtype)), angles[:, None].to(acc_dtype) + phase)
        calls = super().calls(polar_q.to(q.dtype), replace(keys, k=polar_k.to(q.dtype)))
        return [replace(call, scale=scale) for call in calls]

    def _angles(self, keys: Keys) -> Tensor:
        """(n_keys, head_dim) float64 angles modulo 2 pi, so that float32 represents them at any position."""
        exponent = (
            torch.arange(self.shape.head_dim, dtype=torch.float64, device=keys.positions.device) / self.shape.head_dim
        )
        return (keys.positions.double()[:, None] * self.config.base**-exponent).remainder(2 * math.pi)


def _polar(size: Tensor, angle: Tensor) -> Tensor:
    """(..., d) magnitudes and angles -> (..., 2 d) Cartesian coordinates."""
    return torch.cat([size * angle.cos(), size * angle.sin()], dim=-1)
