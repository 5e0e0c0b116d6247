"""RoPE: rotate pairs of query and key dimensions by angles proportional to position (Su et al. 2021, arXiv 2104.09864).

    theta_m = base^(-2m / rotary_dim)        (q_m, q_{m + rotary_dim/2}) rotated by position * theta_m

Halves are paired (GPT-NeoX, LLaMA, mamba_ssm), not neighbours. Angles are float64, tables float32: a bfloat16 model
never casts them down. What rescales frequencies afterwards (position interpolation, NTK, YaRN) is a `Scaling`, set on the
trained module: no parameter changes.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lcprobe.errors import ConfigError, require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding
from lcprobe.models.token_context import TokenContext


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


class Scaling(Protocol):
    """A change of trained frequencies, hashable."""

    @property
    def needs_length(self) -> bool:
        """Whether they depend on the length of the whole sequence."""
        ...

    def __call__(self, frequencies: Tensor, length: int | None) -> tuple[Tensor, float]:
        """frequencies: (pairs,) float64, radians a token; length: of the whole sequence, declared in advance.
        -> changed ones, and a factor on cos and sin (scores get its square)."""
        ...

    def __hash__(self) -> int: ...


class Rotary(PositionalEncoding):
    """What rotates pairs by fixed frequencies; a subclass says which frequencies."""

    family = "rotary"
    scaling: Scaling | None = None

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether the frequencies depend on the length of the whole sequence."""
        return self.scaling is not None and self.scaling.needs_length

    def frequencies(self, device: torch.device) -> Tensor:
        """(pairs,) float64, radians a token, as trained."""
        raise NotImplementedError

    def key(self) -> Hashable:
        """What the tables depend on beside positions: layers that share it compute them once."""
        raise NotImplementedError

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both rotated by `where.positions`, in one pass."""
        both = self.rotated(torch.cat([q, k], dim=2), where.positions, where)
        return both[:, :, : q.shape[2]], both[:, :, q.shape[2] :]

    def rotated(self, x: Tensor, positions: Tensor, where: TokenContext, name: str = "") -> Tensor:
        """x: (batch, n, heads, head_dim) rotated by positions (n,), int64 or float64. name: tells positions other than
        `where.positions` apart."""
        cos, sin = where.once(
            (
                "rotary",
                self.key(),
                self.scaling,
                where.length if self.needs_length else None,
                x.dtype,
                name,
                len(positions),
            ),
            lambda: self.angles(positions, where.length, x.dtype),
        )
        return _Rotate.apply(x, cos, sin)  # type: ignore[return-value]

    def angles(self, positions: Tensor, length: int | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each (n, 1, pairs), float32 or wider; angles are formed in float64."""
        theta, factor = self.frequencies(positions.device), 1.0
        if self.scaling is not None:
            theta, factor = self.scaling(theta, length)
        turns = positions.double()[:, None] * theta
        acc_dtype = torch.promote_types(dtype, torch.float32)
        return (turns.cos() * factor).to(acc_dtype)[:, None], (turns.sin() * factor).to(acc_dtype)[:, None]


class RoPE(Rotary):
    """Rotary position embedding for one head width."""

    Config = RoPEConfig

    def __init__(self, config: RoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.base, self.rotary_dim = config.base, int(shape.head_dim * config.fraction)
        if config.fraction == 1:
            require("head_dim", shape.head_dim, shape.head_dim % 2 == 0, "an even number")
        if self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError(
                "fraction", config.fraction, f"an even number of head_dim {shape.head_dim}'s dimensions"
            )

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / rotary_dim)."""
        exponent = torch.arange(0, self.rotary_dim, 2, dtype=torch.float64, device=device)
        return self.base ** (-exponent / self.rotary_dim)

    def key(self) -> Hashable:
        """Base and width."""
        return "rope", self.base, self.rotary_dim


class _Rotate(torch.autograd.Function):
    """One pass forward; backward is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return apply_rotary(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        cos, sin = ctx.saved_tensors
        return apply_rotary(grads[0], cos, -sin), None, None


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: (..., width), its first 2 * pairs dimensions turned as halves; cos and sin: (..., pairs) that broadcast."""
    half = cos.shape[-1]
    wide = x.to(cos.dtype)
    a, b = wide[..., :half], wide[..., half : 2 * half]
    first, second = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)
    out = torch.cat([first, second, wide[..., 2 * half :]], dim=-1)
    return out.to(x.dtype)
