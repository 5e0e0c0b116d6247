"""RoPE: rotate pairs of query and key dimensions by angles proportional to position
(Su et al. 2021, arXiv 2104.09864).

    theta_m = base^(-2m / rotary_dim)        (q_m, q_{m + rotary_dim/2}) rotated by position * theta_m

Dimensions are paired by halves (GPT-NeoX, LLaMA, mamba_ssm), not as neighbours. Angles are float64 and tables
float32, also in a bfloat16 model. Post-hoc changes of frequencies (position interpolation, NTK, YaRN) are a `Scaling`
that is set on the trained module; no parameter changes.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lcprobe.errors import ConfigError, require
from lcprobe.models.positional.contract import ConfigT, HeadShape, PositionalEncoding
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class RoPEConfig:
    """Frequencies of RoPE, and the share of a head that is rotated."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 1.0
    """Fraction of head_dim that is rotated, counted from the first dimension."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1 and 0 < fraction <= 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.fraction", self.fraction, 0 < self.fraction <= 1, "0 < fraction <= 1")


class Scaling(Protocol):
    """A post-hoc change of trained frequencies; hashable, since layers share tables by it."""

    @property
    def needs_length(self) -> bool:
        """Whether the new frequencies depend on the length of the whole sequence."""
        ...

    def __call__(self, frequencies: Tensor, length: int | None) -> tuple[Tensor, float]:
        """frequencies: (pairs,) float64, radians per token; length: declared length of the whole sequence.
        -> the new frequencies, and a factor on cos and sin (scores are multiplied by its square)."""
        ...

    def __hash__(self) -> int: ...


class Rotary(PositionalEncoding[ConfigT]):
    """Base of encodings that rotate pairs at fixed frequencies, which a subclass gives."""

    family = "rotary"
    same_for_heads = True
    scaling: Scaling | None = None

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether the frequencies depend on the length of the whole sequence."""
        return self.scaling is not None and self.scaling.needs_length

    def frequencies(self, device: torch.device) -> Tensor:
        """The trained frequencies: (pairs,) float64, radians per token."""
        raise NotImplementedError

    def key(self) -> Hashable:
        """What the tables depend on in addition to positions; layers with equal keys share their tables."""
        raise NotImplementedError

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rotate both by `where.positions`, in one pass."""
        both = self.rotated(torch.cat([q, k], dim=2), where.positions, where)
        return both[:, :, : q.shape[2]], both[:, :, q.shape[2] :]

    def rotated(self, x: Tensor, positions: Tensor, where: TokenContext, name: str = "") -> Tensor:
        """x: (batch, n, heads, head_dim) rotated by positions (n,), int64 or float64. name: identifies positions
        other than `where.positions` in the cache of tables."""
        cos, sin = where.once(
            (
                "rotary",
                self.key(),
                self.scaling,
                where.length if self.needs_length else None,
                x.dtype,
                name,
                # the length itself in a key would have a compiled block compiled again for each
                None if len(positions) == len(where.positions) else len(positions),
            ),
            lambda: self.angles(positions, where.length, x.dtype),
        )
        if not torch.is_grad_enabled():  # an autograd function takes longer than the rotation of one token
            return apply_rotary(x, cos, sin)
        return _Rotate.apply(x, cos, sin)  # type: ignore[return-value]

    def angles(self, positions: Tensor, length: int | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each (n, 1, pairs), float32 or wider; angles are computed in float64."""
        theta, factor = self.frequencies(positions.device), 1.0
        if self.scaling is not None:
            theta, factor = self.scaling(theta, length)
        angles = positions.double()[:, None] * theta
        acc_dtype = torch.promote_types(dtype, torch.float32)
        return (angles.cos() * factor).to(acc_dtype)[:, None], (angles.sin() * factor).to(acc_dtype)[:, None]


class RoPE(Rotary[RoPEConfig]):
    """Rotary position embedding."""

    Config = RoPEConfig

    def __init__(self, config: RoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.base, self.rotary_dim = config.base, int(shape.head_dim * config.fraction)
        if config.fraction == 1:
            shape.check_even_head_dim()
        if self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError(
                "fraction", config.fraction, f"an even number of head_dim {shape.head_dim}'s dimensions"
            )

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / rotary_dim)."""
        return geometric_frequencies(self.base, self.rotary_dim, device)

    def key(self) -> Hashable:
        """Base and number of rotated dimensions."""
        return "rope", self.base, self.rotary_dim


class _Rotate(torch.autograd.Function):
    """Rotation with a backward pass of its own: the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return apply_rotary(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        cos, sin = ctx.saved_tensors
        return apply_rotary(grads[0], cos, -sin), None, None


def geometric_frequencies(base: float, width: int, device: torch.device) -> Tensor:
    """(width / 2,) float64: base^(-2m / width), radians per token."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device)
    return base ** (-exponent / width)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: (..., width), its first 2 * pairs dimensions rotated, paired by halves; cos and sin: (..., pairs),
    broadcast."""
    half = cos.shape[-1]
    wide = x.to(cos.dtype)
    a, b = wide[..., :half], wide[..., half : 2 * half]
    first, second = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)
    out = torch.cat([first, second, wide[..., 2 * half :]], dim=-1)
    return out.to(x.dtype)
