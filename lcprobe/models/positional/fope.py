"""FoPE: each rotary pair is encoded by a learned mixture of frequencies
(Hua et al. 2024, arXiv 2412.17739, sec. 3.3).

    cos'_p(t) = sum_m C[m, p] cos(theta_m t) / sum_m C[m, p]          sin'_p likewise with S
    q'_p = q_p cos'_p - q_{p+half} sin'_p ...      only frequencies that complete a full turn in the training length

C and S start near the identity, which is RoPE without its slowest pairs. As in the public code, coefficients are
normalised over the frequencies; here all heads of a layer share them, so that grouped keys can use them too, and a
pair without a frequency is left unchanged (cos' = 1, sin' = 0). Mixtures are not rotations: scores depend on
positions and not only on their differences; positions count from the first token of a document.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding
from lcprobe.models.positional.rope import apply_rotary, geometric_frequencies
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class FoPEConfig:
    """Frequencies of FoPE, and the initial mixture."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    length: int | None = None
    """Tokens; frequencies below one turn in this length are left out; null: the training context length."""
    gain: float = 0.3
    """Gain of the Xavier-normal noise that is added to the identity at initialisation."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless base > 1, length >= 2 and gain >= 0."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.length", self.length, self.length is None or self.length >= 2, ">= 2 or null")
        require(f"{at}.gain", self.gain, self.gain >= 0, ">= 0")


class FoPE(PositionalEncoding[FoPEConfig]):
    """Fourier position embedding."""

    Config = FoPEConfig
    family = "fourier"
    relative = False

    def __init__(self, config: FoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        shape.check_even_head_dim()
        self.pairs = _pairs(config, shape)
        self.cos_mix = nn.Parameter(torch.empty(self.pairs, self.pairs))
        self.sin_mix = nn.Parameter(torch.empty(self.pairs, self.pairs))

    @staticmethod
    def params(config: FoPEConfig, shape: HeadShape) -> int:
        """Two square matrices over the frequencies that are kept."""
        return 2 * _pairs(config, shape) ** 2

    @staticmethod
    def flops(config: FoPEConfig, shape: HeadShape, visible: float, length: int) -> float:
        """Two products of tables and mixtures at each position."""
        return 4 * _pairs(config, shape) ** 2

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """The identity plus Xavier-normal noise."""
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        spread = self.config.gain * math.sqrt(2 / (2 * self.pairs))
        value.copy_(torch.eye(self.pairs, dtype=torch.float64) + spread * noise)

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode both by the mixtures at their positions in their documents."""
        acc_dtype = torch.promote_types(q.dtype, torch.float32)

        def cos_and_sin() -> tuple[Tensor, Tensor]:
            theta = geometric_frequencies(self.config.base, self.shape.head_dim, where.positions.device)[: self.pairs]
            angles = where.in_document.double()[..., None] * theta
            return angles.cos().to(acc_dtype), angles.sin().to(acc_dtype)

        tables = where.once(("fope", self.config.base, self.shape.head_dim, self.pairs, acc_dtype), cos_and_sin)
        mixes = (self.cos_mix.to(acc_dtype), self.sin_mix.to(acc_dtype))
        cos, sin = (t @ (m / m.sum(0)) for t, m in zip(tables, mixes, strict=True))
        rest = self.shape.head_dim // 2 - self.pairs
        cos, sin = (nn.functional.pad(t, (0, rest), value=v)[..., None, :] for t, v in ((cos, 1.0), (sin, 0.0)))
        return apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)


def _pairs(config: FoPEConfig, shape: HeadShape) -> int:
    """Number of pairs that complete a full turn within the length; at least 1."""
    length = config.length or shape.training_length("length", None, ">= 2")
    theta = geometric_frequencies(config.base, shape.head_dim, torch.device("cpu"))
    return max(1, int((theta >= 2 * math.pi / length).sum()))
