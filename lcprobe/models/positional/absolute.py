"""Absolute encodings: one vector per position, added to the embedding once, before the first block.

learned       x_t += P[t]                                              Gehring et al. 2017; a table of finite length
sinusoidal    x_t += s [sin(t w_m), cos(t w_m)], w_m = 10000^(-2m/d)   Vaswani et al. 2017, s learned, initially
d^-0.5

t counts from the first token of a document, so that outputs do not depend on where in a packed row a document is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding
from lcprobe.models.positional.rope import geometric_frequencies
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class LearnedConfig:
    """Size of the table of learned positions."""

    max_length: int | None = None
    """Number of positions in the table; longer sequences are refused; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a max_length below 1."""
        require(f"{at}.max_length", self.max_length, self.max_length is None or self.max_length >= 1, ">= 1 or null")


class Learned(PositionalEncoding[LearnedConfig]):
    """A learned table of positions. Rows beyond the training length, with a larger max_length, stay untrained."""

    Config = LearnedConfig
    family = "absolute"
    relative = False

    def __init__(self, config: LearnedConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.max_length = _rows(config, shape)
        self.rows = nn.Parameter(torch.empty(self.max_length, shape.d_model))

    @staticmethod
    def params(config: LearnedConfig, shape: HeadShape) -> int:
        """Numbers in the table."""
        return _rows(config, shape) * shape.d_model

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Normal with standard deviation 0.02, as in GPT-2."""
        value.normal_(0, 0.02, generator=generator)

    def on_embedding(self, x: Tensor, where: TokenContext) -> Tensor:
        """x: (batch, seqlen, d_model) plus the rows of its positions."""
        return x + self.rows[where.in_document].to(x.dtype)


def _rows(config: LearnedConfig, shape: HeadShape) -> int:
    return config.max_length or shape.training_length("max_length", None, ">= 1")


@dataclass(frozen=True)
class SinusoidalConfig:
    """Wavelengths of sinusoidal positions."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless base > 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class Sinusoidal(PositionalEncoding[SinusoidalConfig]):
    """Fixed sinusoids with one learned amplitude."""

    Config = SinusoidalConfig
    family = "absolute"
    relative = False

    def __init__(self, config: SinusoidalConfig, shape: HeadShape):
        super().__init__(config, shape)
        require("d_model", shape.d_model, shape.d_model % 2 == 0, "an even number")
        self.scale = nn.Parameter(torch.empty(()))

    @staticmethod
    def params(config: SinusoidalConfig, shape: HeadShape) -> int:
        """1: the amplitude."""
        return 1

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """d_model^-0.5."""
        value.fill_(self.shape.d_model**-0.5)

    def on_embedding(self, x: Tensor, where: TokenContext) -> Tensor:
        """x: (batch, seqlen, d_model) plus the sinusoids of its positions; angles in float64."""
        frequencies = geometric_frequencies(self.config.base, self.shape.d_model, x.device)
        angles = where.in_document.double()[..., None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return x + self.scale * waves.to(torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
