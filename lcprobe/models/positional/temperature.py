"""Temperatures of the softmax that depend on how many keys a query sees.

    logn    a_i = max(1, log n_i / log L)         Su 2021; Chiang & Cholak 2022 (arXiv 2202.12172)
    ssmax   a_i = s_h log n_i                     scalable softmax, s learned a head (Nakanishi 2025, arXiv 2501.19399)

    score_ij = a_i * (q_i . k_j as the encoding has it) * scale + bias + gates

All of them are published as a factor on q . k, the last as a factor on the query, in models that add nothing to it. So what an
encoding does to queries and keys (RoPE, PoPE's magnitudes, PaTH's reflections) is done before, and what it adds to scores
(ALiBi, T5, FoX ...) is not multiplied. Encodings that do more with q . k (CoPE, DAPE, stick-breaking) take none.
n_i = i + 1 keys stand before query i and with it; a window caps them (its sinks do not count). L: the training context length.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lcprobe.errors import ConfigError, require
from lcprobe.models.parameters import Parametrised
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.token_context import TokenContext


def visible(where: TokenContext, window: int | None) -> Tensor:
    """How many keys each query sees: (1 or batch, seqlen) float64."""
    n = (where.row_index + 1)[None].double()
    n = n if where.doc_starts is None else n - where.doc_starts
    return n if window is None else n.clamp_max(window)


class Temperature(Parametrised, ABC):
    """Base of all temperatures."""

    Config: ClassVar[type]

    @abstractmethod
    def __init__(self, config: Any, shape: HeadShape):
        """Raises ConfigError for settings that do not fit the layer."""
        super().__init__()

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """Trainable numbers of one layer; a test compares them with what is built."""
        return 0

    @abstractmethod
    def forward(self, where: TokenContext, window: int | None) -> Tensor:
        """The factor on q . k of each query: (1 or batch, seqlen, 1 or n_heads), float32 or wider. window: the layer's."""


@dataclass(frozen=True)
class LogNConfig:
    """Where it begins."""

    length: int | None = None
    """Queries that see more keys than this are sharpened; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a length below 2."""
        require(f"{at}.length", self.length, self.length is None or self.length >= 2, ">= 2 or null")


class LogN(Temperature):
    """a_i = max(1, log n_i / log L)."""

    Config = LogNConfig

    def __init__(self, config: LogNConfig, shape: HeadShape):
        super().__init__(config, shape)
        length = config.length or shape.context_length
        if length is None or length < 2:
            raise ConfigError("length", length, ">= 2, or a model whose training context length is known")
        self.length = length

    def forward(self, where: TokenContext, window: int | None) -> Tensor:
        """a: (1 or batch, seqlen, 1) float64."""
        return (visible(where, window).log() / math.log(self.length)).clamp_min(1.0)[..., None]


@dataclass(frozen=True)
class SSMaxConfig:
    """Where it starts."""

    initial: float = 0.43
    """s of every head at the start; the paper's own runs settle near it."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a scale that is not positive."""
        require(f"{at}.initial", self.initial, self.initial > 0, "> 0")


class SSMax(Temperature):
    """a_i = s_h log n_i; the first query, which sees itself alone, gets log 1 = 0 and loses nothing by it."""

    Config = SSMaxConfig
    no_decay = ("s",)

    def __init__(self, config: SSMaxConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.config = config
        self.s = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """One a head."""
        return shape.n_heads

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """s = initial."""
        value.fill_(self.config.initial)

    def forward(self, where: TokenContext, window: int | None) -> Tensor:
        """a: (1 or batch, seqlen, n_heads), float32 or wider."""
        acc_dtype = torch.promote_types(self.s.dtype, torch.float32)
        return visible(where, window).log().to(acc_dtype)[..., None] * self.s.to(acc_dtype)
