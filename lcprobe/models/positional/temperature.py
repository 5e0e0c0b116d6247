"""Softmax temperatures that depend on the number of keys visible to a query.

    logn    a_i = max(1, log n_i / log L)      Su 2021; Chiang & Cholak 2022 (arXiv 2202.12172)
    ssmax   a_i = s_h log n_i                  scalable softmax, s learned per head (Nakanishi 2025, arXiv 2501.19399)

    score_ij = a_i * (q_i . k_j with the encoding applied) * scale + bias + gates

Both are published as a factor on q . k (ssmax on the query) in models that add nothing to it. Hence the factor
applies after transformations of queries and keys (RoPE, PoPE's magnitudes, PaTH's reflections), and not to terms that
are added to scores (ALiBi, T5, FoX ...). Encodings that use q . k otherwise (CoPE, DAPE, stick-breaking) take no
temperature. n_i = i + 1: the keys up to and including query i, capped by a window (sinks are not counted). L: the
training context length.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic

import torch
from torch import Tensor, nn

from lcprobe.errors import ConfigError, require
from lcprobe.models.parameters import Parametrised
from lcprobe.models.positional.contract import ConfigT, HeadShape
from lcprobe.models.token_context import TokenContext


def visible_keys(where: TokenContext, window: int | None) -> Tensor:
    """Number of keys visible to each query: (1 or batch, seqlen) float64."""
    n = (where.row_index + 1)[None].double()
    n = n if where.doc_starts is None else n - where.doc_starts
    return n if window is None else n.clamp_max(window)


class Temperature(Parametrised, ABC, Generic[ConfigT]):
    """Base of all temperatures: a factor on q . k."""

    Config: ClassVar[type]

    @abstractmethod
    def __init__(self, config: ConfigT, shape: HeadShape):
        """Raises ConfigError for settings that do not fit the layer."""
        super().__init__()

    @staticmethod
    def params(config: ConfigT, shape: HeadShape) -> int:
        """Number of trainable parameters of one layer; a test compares it with the built module."""
        return 0

    @abstractmethod
    def forward(self, where: TokenContext, window: int | None) -> Tensor:
        """The factor on q . k per query: (1 or batch, seqlen, 1 or n_heads), float32 or wider. window: the layer's
        window."""


@dataclass(frozen=True)
class LogNConfig:
    """The length from which log-n scaling acts."""

    length: int | None = None
    """Number of visible keys above which the softmax is sharpened; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a length below 2."""
        require(f"{at}.length", self.length, self.length is None or self.length >= 2, ">= 2 or null")


class LogN(Temperature[LogNConfig]):
    """a_i = max(1, log n_i / log L)."""

    Config = LogNConfig

    def __init__(self, config: LogNConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.length = config.length or shape.training_length("length", None, ">= 2")
        if self.length < 2:
            raise ConfigError("length", self.length, ">= 2, or a model whose training context length is known")

    def forward(self, where: TokenContext, window: int | None) -> Tensor:
        """a: (1 or batch, seqlen, 1) float64."""
        return (visible_keys(where, window).log() / math.log(self.length)).clamp_min(1.0)[..., None]


@dataclass(frozen=True)
class SSMaxConfig:
    """Initial scale of SSMax."""

    initial: float = 0.43
    """Initial s of every head; it converges to about this value in the paper's runs."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a scale that is not positive."""
        require(f"{at}.initial", self.initial, self.initial > 0, "> 0")


class SSMax(Temperature[SSMaxConfig]):
    """a_i = s_h log n_i; the first query sees only itself, so that its factor log 1 = 0 changes nothing."""

    Config = SSMaxConfig
    no_decay = ("s",)

    def __init__(self, config: SSMaxConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.config = config
        self.s = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: SSMaxConfig, shape: HeadShape) -> int:
        """One per head."""
        return shape.n_heads

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """s = initial."""
        value.fill_(self.config.initial)

    def forward(self, where: TokenContext, window: int | None) -> Tensor:
        """a: (1 or batch, seqlen, n_heads), float32 or wider."""
        acc_dtype = torch.promote_types(self.s.dtype, torch.float32)
        return visible_keys(where, window).log().to(acc_dtype)[..., None] * self.s.to(acc_dtype)
