"""T5's relative bias: one learned number per head and bucket of distances
(Raffel et al. 2019, arXiv 1910.10683, sec. 2.1).

    T[h, d] = w_h[bucket(d)]        bucket(d) = d below half = n_buckets / 2, then
    half + floor(log(d / half) / log(max_distance / half) half), at most n_buckets - 1

The causal form, in which all buckets are of the past. Scores are scaled by 1 / sqrt(head_dim), which T5 omits; each
layer has a table of its own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding


@dataclass(frozen=True)
class T5Config:
    """How T5's bias groups distances into buckets."""

    n_buckets: int = 32
    """Number of buckets: half of them hold one distance each, half are spaced logarithmically."""
    max_distance: int = 128
    """Distance from which on all share the last bucket."""

    def check(self, at: str) -> None:
        """Raises ConfigError for an odd n_buckets, and for a max_distance within the half of single distances."""
        require(
            f"{at}.n_buckets", self.n_buckets, self.n_buckets >= 2 and self.n_buckets % 2 == 0, "an even number >= 2"
        )
        half = self.n_buckets // 2
        require(f"{at}.max_distance", self.max_distance, self.max_distance > half, f"> n_buckets / 2 ({half})")


class T5(PositionalEncoding[T5Config]):
    """Bucketed relative position bias."""

    Config = T5Config
    family = "bias"

    def __init__(self, config: T5Config, shape: HeadShape):
        super().__init__(config, shape)
        self.weight = nn.Parameter(torch.empty(shape.n_heads, config.n_buckets))

    @staticmethod
    def params(config: T5Config, shape: HeadShape) -> int:
        """One per head and bucket."""
        return shape.n_heads * config.n_buckets

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Normal with standard deviation d_model^-0.5, as in transformers."""
        value.normal_(0, self.shape.d_model**-0.5, generator=generator)

    def bias(self, distance: Tensor) -> Tensor:
        """w_h[bucket(d)]."""
        acc_dtype = torch.promote_types(self.weight.dtype, torch.float32)
        return self.weight.to(acc_dtype)[:, bucket(distance, self.config.n_buckets, self.config.max_distance)]


def bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """distance: any shape, int64, >= 0 -> its bucket, int64."""
    half = n_buckets // 2
    far = (distance.clamp_min(half).double() / half).log() * (half / math.log(max_distance / half))
    far = half + (far + 1e-9).floor().to(torch.int64)  # 1e-9: an exact integer may be rounded to just below it
    return torch.where(distance < half, distance, far.clamp_max(n_buckets - 1))
