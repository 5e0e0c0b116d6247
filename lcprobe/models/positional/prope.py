"""Rotary encodings that rotate only the high-frequency pairs of a head and leave the others without position.

    prope   the highest `fraction` of frequencies is kept, the others are 0   Barbero et al. 2024, arXiv 2410.06205
    hope    frequencies whose wavelength exceeds the training length are 0    Chen et al. 2024, arXiv 2410.21216

Unlike `rope` with a fraction, the frequencies are those of the whole head: theta_m = base^(-2m / head_dim).
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.rope import Rotary, geometric_frequencies


@dataclass(frozen=True)
class PRoPEConfig:
    """Frequencies of p-RoPE, and the fraction of pairs that are rotated."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 0.75
    """Fraction of the pairs that are rotated, highest frequencies first: at least one pair, or 0, which is `none`."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1 and 0 <= fraction <= 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.fraction", self.fraction, 0 <= self.fraction <= 1, "0 .. 1")


class PRoPE(Rotary[PRoPEConfig]):
    """Rotates the int(fraction * head_dim / 2) pairs with the highest frequencies."""

    Config = PRoPEConfig

    def __init__(self, config: PRoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        shape.check_even_head_dim()
        self.base, self.kept = config.base, int(config.fraction * shape.head_dim / 2)
        allowed = f"0, or >= {2 / shape.head_dim:g}: one of {shape.head_dim // 2} pairs"
        require("fraction", config.fraction, self.kept > 0 or config.fraction == 0, allowed)

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / head_dim) for the first pairs, 0 for the others."""
        theta = geometric_frequencies(self.base, self.shape.head_dim, device)
        return torch.where(torch.arange(len(theta), device=device) < self.kept, theta, 0.0)

    def key(self) -> Hashable:
        """Base, head_dim and number of rotated pairs."""
        return "prope", self.base, self.shape.head_dim, self.kept


@dataclass(frozen=True)
class HoPEConfig:
    """Frequencies of HoPE, and the wavelength beyond which pairs are not rotated."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""
    length: int | None = None
    """Tokens; pairs with a longer wavelength are not rotated; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside base > 1 and length >= 2."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")
        require(f"{at}.length", self.length, self.length is None or self.length >= 2, ">= 2 or null")


class HoPE(Rotary[HoPEConfig]):
    """Rotates the pairs that complete a full turn within the training length."""

    Config = HoPEConfig

    def __init__(self, config: HoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        shape.check_even_head_dim()
        self.base, self.length = config.base, config.length or shape.training_length("length", None, ">= 2")

    def frequencies(self, device: torch.device) -> Tensor:
        """base^(-2m / head_dim) where its wavelength is at most the length, else 0."""
        theta = geometric_frequencies(self.base, self.shape.head_dim, device)
        return torch.where(theta >= 2 * math.pi / self.length, theta, 0.0)

    def key(self) -> Hashable:
        """Base, head_dim and length."""
        return "hope", self.base, self.shape.head_dim, self.length
