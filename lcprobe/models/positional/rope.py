"""RoPE: rotate pairs of query and key dimensions by angles proportional to position (Su et al. 2021, arXiv 2104.09864).

    theta_i = base^(-2i / rotary_dim)        (q_i, q_{i + rotary_dim/2}) rotated by position * theta_i

Halves are paired (GPT-NeoX, LLaMA, mamba_ssm), not neighbours. Angles are float64, tables float32: a bfloat16 model
never casts them down.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import ConfigError, require
from lcprobe.models.where import Where


@dataclass(frozen=True)
class RoPEConfig:
    """How fast, and which part of a head."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 1.0
    """Share of head_dim that is rotated, from the front."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1 and 0 < fraction <= 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.fraction", self.fraction, 0 < self.fraction <= 1, "0 < fraction <= 1")


class RoPE(nn.Module):
    """Rotary position embedding for one head width."""

    Config = RoPEConfig

    def __init__(self, config: RoPEConfig, head_dim: int):
        super().__init__()
        self.base, self.rotary_dim = config.base, int(head_dim * config.fraction)
        if self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError("fraction", config.fraction, f"an even number of head_dim {head_dim}'s dimensions")

    def on_qk(self, qk: Tensor, where: Where) -> Tensor:
        """qk: (batch, seqlen, n_heads + n_kv_heads, head_dim) -> the same, rotated by `where.positions`."""
        cos, sin = where.once(("rope", self.base, self.rotary_dim, qk.dtype), lambda: self._tables(where, qk.dtype))
        return _Rotate.apply(qk, cos, sin)  # type: ignore[return-value]

    def _tables(self, where: Where, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        exponent = torch.arange(0, self.rotary_dim, 2, dtype=torch.float64, device=where.positions.device)
        angles = where.positions.double()[:, None] * self.base ** (-exponent / self.rotary_dim)
        wide = torch.promote_types(dtype, torch.float32)
        return angles.cos().to(wide)[:, None], angles.sin().to(wide)[:, None]  # (seqlen, 1, rotary_dim / 2)


class _Rotate(torch.autograd.Function):
    """One pass forward; backward is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        cos, sin = ctx.saved_tensors
        return _rotated(grads[0], cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    wide = x.to(cos.dtype)
    a, b = wide[..., :half], wide[..., half : 2 * half]
    first, second = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)
    out = torch.cat([first, second, wide[..., 2 * half :]], dim=-1)
    return out.to(x.dtype)
