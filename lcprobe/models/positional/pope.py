"""PoPE: content is a magnitude, position an angle (Gopalakrishnan et al. 2025, arXiv 2509.10534, eq. 5-8).

    score_ij = scale * sum over m < head_dim of softplus(q_m) softplus(k_m) cos((j - i) theta_m + delta_m)
    theta_m = base^(-m / head_dim), delta_m learned a key head, clamped to [-2 pi, 0]

Each of the head_dim entries is a polar pair of its own, so queries and keys are twice as wide; keys are cached as they come.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.positional.contract import Call, HeadShape, Keys, PositionalEncoding


@dataclass(frozen=True)
class PoPEConfig:
    """How fast entries turn."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class PoPE(PositionalEncoding):
    """Polar coordinate position embedding."""

    Config = PoPEConfig
    family = "polar"
    caches_raw_keys = True

    def __init__(self, config: PoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        require("head_dim", shape.head_dim, shape.head_dim <= 128, "<= 128: queries and keys are twice as wide")
        self.phase = nn.Parameter(torch.empty(shape.n_kv_heads, shape.head_dim))

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """A phase for each entry of a key head."""
        return shape.n_kv_heads * shape.head_dim

    @staticmethod
    def flops(config: Any, shape: HeadShape, visible: float, length: int) -> float:
        """q . k is twice as wide."""
        return 2 * visible * shape.n_heads * shape.head_dim

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Phases start at 0."""
        value.zero_()

    def calls(self, q: Tensor, keys: Keys) -> list[Call]:
        """One call on queries and keys in Cartesian coordinates."""
        seqlen, scale = q.shape[1], q.shape[3] ** -0.5
        acc_dtype = torch.promote_types(q.dtype, torch.float32)
        at = keys.where.once(
            ("pope", self.config.base, self.shape.head_dim, len(keys.positions)), lambda: self._turns(keys)
        )
        phase = self.phase.to(acc_dtype).clamp(-2 * math.pi, 0.0)
        turned_q = _polar(F.softplus(q.to(acc_dtype)), at[-seqlen:, None].to(acc_dtype))
        turned_k = _polar(F.softplus(keys.k.to(acc_dtype)), at[:, None].to(acc_dtype) + phase)
        made = super().calls(turned_q.to(q.dtype), replace(keys, k=turned_k.to(q.dtype)))
        return [replace(call, scale=scale) for call in made]

    def _turns(self, keys: Keys) -> Tensor:
        """(n_keys, head_dim) float64 angles, modulo a whole turn, so that float32 holds them at any position."""
        exponent = (
            torch.arange(self.shape.head_dim, dtype=torch.float64, device=keys.positions.device) / self.shape.head_dim
        )
        return (keys.positions.double()[:, None] * self.config.base**-exponent).remainder(2 * math.pi)


def _polar(size: Tensor, angle: Tensor) -> Tensor:
    """(..., d) magnitudes and angles -> (..., 2 d) Cartesian."""
    return torch.cat([size * angle.cos(), size * angle.sin()], dim=-1)
