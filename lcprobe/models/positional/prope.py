"""Rotary encodings that turn only the fast pairs of a head and leave the slow ones without position.

    prope   the highest `fraction` of frequencies is kept, the others are 0      p-RoPE, Barbero et al. 2024, arXiv 2410.06205
    hope    frequencies whose wavelength exceeds the training length are 0       HoPE, Chen et al. 2024, arXiv 2410.21216

Unlike `rope` with a fraction, the series of frequencies is that of the whole head: theta_m = base^(-2m / head_dim).
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.errors import ConfigError, require
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.rope import Rotary


@dataclass(frozen=True)
class PRoPEConfig:
    """How fast, and how many pairs turn."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 0.75
    """Share of the pairs that turn, the fastest ones: at least one pair, or 0, which is `none`."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1 and 0 <= fraction <= 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.fraction", self.fraction, 0 <= self.fraction <= 1, "0 .. 1")


class PRoPE(Rotary):
    """The fastest int(fraction * head_dim / 2) pairs turn."""

    Config = PRoPEConfig

    def __init__(self, config: PRoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        if shape.head_dim % 2:
            raise ConfigError("head_dim", shape.head_dim, "an even number")
        self.base, self.kept = config.base, int(config.fraction * shape.head_dim / 2)
        least = f"0, or >= {2 / shape.head_dim:g}: one of {shape.head_dim // 2} pairs"
        require("fraction", config.fraction, self.kept > 0 or config.fraction == 0, least)

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / head_dim) for the first pairs, 0 for the others."""
        theta = series(self.base, self.shape.head_dim, device)
        return torch.where(torch.arange(len(theta), device=device) < self.kept, theta, 0.0)

    def key(self) -> Hashable:
        """Base, width and how many turn."""
        return "prope", self.base, self.shape.head_dim, self.kept


@dataclass(frozen=True)
class HoPEConfig:
    """How fast, and from which wavelength on nothing turns."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    length: int | None = None
    """Pairs with a longer wavelength do not turn; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1 and length >= 2."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.length", self.length, self.length is None or self.length >= 2, ">= 2 or null")


class HoPE(Rotary):
    """Pairs that make a whole turn within the training length turn."""

    Config = HoPEConfig

    def __init__(self, config: HoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        if shape.head_dim % 2:
            raise ConfigError("head_dim", shape.head_dim, "an even number")
        length = config.length or shape.context_length
        if length is None:
            raise ConfigError("length", None, ">= 2, or a model whose training context length is known")
        self.base, self.length = config.base, length

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / head_dim) where its wavelength is at most the length, else 0."""
        theta = series(self.base, self.shape.head_dim, device)
        return torch.where(theta >= 2 * math.pi / self.length, theta, 0.0)

    def key(self) -> Hashable:
        """Base, width and length."""
        return "hope", self.base, self.shape.head_dim, self.length


def series(base: float, head_dim: int, device: torch.device) -> Tensor:
    """(head_dim / 2,) float64: base^(-2m / head_dim)."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    return base ** (-exponent / head_dim)
