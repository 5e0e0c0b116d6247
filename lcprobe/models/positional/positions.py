"""Positions that training draws instead of counting: models learn distances that their training length does not hold.

    randomized   a sorted random subset of 0 .. max_length - 1            Ruoss et al. 2023, arXiv 2305.16843
    pose         the sequence in chunks, a random skip before each        Zhu et al. 2023, arXiv 2309.10400

One draw a micro-batch, from torch's generator, which training seeds by step. At evaluation positions are counted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.errors import ConfigError, require

POSITIONS = {
    "randomized": "lcprobe.models.positional.positions:Randomized",
    "pose": "lcprobe.models.positional.positions:PoSE",
}


@dataclass(frozen=True)
class RandomizedConfig:
    """How far positions go."""

    max_length: int
    """Positions are below this."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 2."""
        require(f"{at}.max_length", self.max_length, self.max_length >= 2, ">= 2")


class Randomized:
    """A sorted random subset."""

    Config = RandomizedConfig

    def __init__(self, config: RandomizedConfig):
        self.config = config

    def draw(self, seqlen: int, device: torch.device) -> Tensor:
        """(seqlen,) int64, ascending. Raises ConfigError when there are fewer positions than tokens."""
        _fits(seqlen, self.config.max_length)
        return torch.randperm(self.config.max_length)[:seqlen].sort().values.to(device)


@dataclass(frozen=True)
class PoSEConfig:
    """How far positions go, and in how many pieces."""

    max_length: int
    """Positions are below this."""
    chunks: int = 2
    """Pieces of a sequence; positions are neighbours within one."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 2."""
        require(f"{at}.max_length", self.max_length, self.max_length >= 2, ">= 2")
        require(f"{at}.chunks", self.chunks, self.chunks >= 2, ">= 2")


class PoSE:
    """Positional skip-wise training: chunk boundaries and skips are drawn uniformly, the first chunk begins at 0."""

    Config = PoSEConfig

    def __init__(self, config: PoSEConfig):
        self.config = config

    def draw(self, seqlen: int, device: torch.device) -> Tensor:
        """(seqlen,) int64, ascending. Raises ConfigError when there are fewer positions than tokens."""
        _fits(seqlen, self.config.max_length)
        chunks = min(self.config.chunks, seqlen)
        cuts = torch.randperm(seqlen - 1)[: chunks - 1].sort().values + 1
        spare = self.config.max_length - seqlen
        skips = torch.randint(0, spare + 1, (chunks - 1,)).sort().values  # total skip before each later chunk
        positions = torch.arange(seqlen)
        for cut, before, skip in zip(cuts.tolist(), [0, *skips.tolist()], skips.tolist(), strict=False):
            positions[cut:] += skip - before
        return positions.to(device)


def _fits(seqlen: int, max_length: int) -> None:
    if seqlen > max_length:
        raise ConfigError("model.positions.max_length", max_length, f">= the sequence's {seqlen} tokens")
