"""T5's relative bias: one learned number a head and bucket of distances (Raffel et al. 2019, arXiv 1910.10683, sec. 2.1).

    T[h, d] = w_h[bucket(d)]        bucket(d) = d below half = n_buckets / 2, then
    half + floor(log(d / half) / log(max_distance / half) half), at most n_buckets - 1

The causal form: all buckets look back. Scores keep their 1 / sqrt(head_dim), which T5 leaves out; each layer has its own table.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding


@dataclass(frozen=True)
class T5Config:
    """How distances are grouped."""

    n_buckets: int = 32
    """Half of them for a distance each, half spaced logarithmically."""
    max_distance: int = 128
    """All distances from here on share the last bucket."""

    def check(self, at: str) -> None:
        """Raises ConfigError for odd counts and a max_distance within the exact half."""
        require(
            f"{at}.n_buckets", self.n_buckets, self.n_buckets >= 2 and self.n_buckets % 2 == 0, "an even number >= 2"
        )
        half = self.n_buckets // 2
        require(f"{at}.max_distance", self.max_distance, self.max_distance > half, f"> n_buckets / 2 ({half})")


class T5(PositionalEncoding):
    """Bucketed relative position bias."""

    Config = T5Config
    family = "bias"

    def __init__(self, config: T5Config, shape: HeadShape):
        super().__init__(config, shape)
        self.weight = nn.Parameter(torch.empty(shape.n_heads, config.n_buckets))

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """One a head and bucket."""
        return shape.n_heads * config.n_buckets

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Normal with standard deviation d_model^-0.5, as in transformers."""
        value.normal_(0, self.shape.d_model**-0.5, generator=generator)

    def bias(self, distance: Tensor) -> Tensor:
        """w_h[bucket(d)]."""
        acc_dtype = torch.promote_types(self.weight.dtype, torch.float32)
        return self.weight.to(acc_dtype)[:, bucket(distance, self.config.n_buckets, self.config.max_distance)]


def bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """distance: any shape, int64, >= 0 -> bucket of each, int64."""
    half = n_buckets // 2
    far = (distance.clamp_min(half).double() / half).log() * (half / math.log(max_distance / half))
    far = half + (far + 1e-9).floor().to(torch.int64)  # 1e-9: a logarithm that should be whole may lie below
    return torch.where(distance < half, distance, far.clamp_max(n_buckets - 1))
