"""Absolute encodings: a vector a position, added to the embedding once, before the first block.

learned       x_t += P[t]                                              Gehring et al. 2017; the table ends somewhere
sinusoidal    x_t += s [sin(t w_m), cos(t w_m)], w_m = 10000^(-2m/d)   Vaswani et al. 2017, s learned, at first d^-0.5

t counts from the first token of a document, so that a document reads the same wherever it stands in a packed row.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import ConfigError, require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding
from lcprobe.models.positional.prope import series
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class LearnedConfig:
    """Size of the table."""

    max_length: int | None = None
    """Positions in the table; a longer sequence is refused. null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1."""
        require(f"{at}.max_length", self.max_length, self.max_length is None or self.max_length >= 1, ">= 1 or null")


class Learned(PositionalEncoding):
    """A table of positions; rows beyond the training length exist only where max_length says so, and stay untrained."""

    Config = LearnedConfig
    family = "absolute"
    relative = False

    def __init__(self, config: LearnedConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.max_length = _rows(config, shape)
        self.rows = nn.Parameter(torch.empty(self.max_length, shape.d_model))

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """The table."""
        return _rows(config, shape) * shape.d_model

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Normal with standard deviation 0.02, as GPT-2's."""
        value.normal_(0, 0.02, generator=generator)

    def on_embedding(self, x: Tensor, where: TokenContext) -> Tensor:
        """x: (batch, seqlen, d_model)."""
        return x + self.rows[where.in_document].to(x.dtype)


def _rows(config: LearnedConfig, shape: HeadShape) -> int:
    rows = config.max_length or shape.context_length
    if rows is None:
        raise ConfigError("max_length", None, ">= 1, or a model whose training context length is known")
    return rows


@dataclass(frozen=True)
class SinusoidalConfig:
    """Wavelengths."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class Sinusoidal(PositionalEncoding):
    """Fixed waves with one learned amplitude."""

    Config = SinusoidalConfig
    family = "absolute"
    relative = False

    def __init__(self, config: SinusoidalConfig, shape: HeadShape):
        super().__init__(config, shape)
        require("d_model", shape.d_model, shape.d_model % 2 == 0, "an even number")
        self.scale = nn.Parameter(torch.empty(()))

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """The amplitude."""
        return 1

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """d_model^-0.5."""
        value.fill_(self.shape.d_model**-0.5)

    def on_embedding(self, x: Tensor, where: TokenContext) -> Tensor:
        """x: (batch, seqlen, d_model); angles in float64."""
        turns = where.in_document.double()[..., None] * series(self.config.base, self.shape.d_model, x.device)
        waves = torch.cat([turns.sin(), turns.cos()], dim=-1)
        return x + self.scale * waves.to(torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
