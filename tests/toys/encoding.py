"""A toy positional encoding: every head subtracts strength * log(1 + distance) from its scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.models.positional.contract import PositionalEncoding


@dataclass(frozen=True)
class LogDistanceConfig:
    """Settings of the toy encoding."""

    strength: float = 1.0
    """Factor on log(1 + distance)."""


class LogDistance(PositionalEncoding[LogDistanceConfig]):
    """A fixed logarithmic penalty on distance."""

    Config = LogDistanceConfig
    family = "bias"

    def bias(self, distance: Tensor) -> Tensor:
        """See PositionalEncoding."""
        penalty = -self.config.strength * torch.log1p(distance.float())
        return penalty.expand(self.shape.n_heads, *distance.shape)
