"""Positions that training draws instead of counting: models learn distances that their training length does not hold.

    randomized   a sorted random subset of 0 .. max_length - 1            Ruoss et al. 2023, arXiv 2305.16843
    pose         the sequence in chunks, a random skip before each        Zhu et al. 2023, arXiv 2309.10400

One draw a micro-batch, from torch's generator, which training seeds by step. At evaluation PoSE counts, as its paper does, and
randomized draws too, as its paper does: counted positions stand closer than any that training has shown. That draw is a function
of the sequence's length, which must be declared, so that chunks, decoding and shared beginnings read the same positions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lcprobe.errors import ConfigError, require
from lcprobe.seeds import seed_of


class DrawnPositions(ABC):
    """Base: positions are drawn in training and counted at evaluation."""

    Config: ClassVar[type]

    def __init__(self, config: Any):
        self.config = config

    @property
    def at_test(self) -> bool:
        """Whether they are drawn at evaluation too: what a token sees then depends on the length of the whole sequence."""
        return False

    @abstractmethod
    def draw(self, seqlen: int) -> Tensor:
        """(seqlen,) int64, ascending. Raises ConfigError when there are fewer positions than tokens."""

    def of_length(self, length: int, n: int) -> Tensor:
        """(n,) int64, ascending: where `at_test`, those of the first n tokens of a sequence whose declared length is `length`."""
        raise NotImplementedError


@dataclass(frozen=True)
class RandomizedConfig:
    """How far positions go."""

    max_length: int
    """Positions are below this."""
    at_test: Literal["drawn", "counted"] = "drawn"
    """At evaluation. drawn: a sorted subset for each length, as in the paper; longer sequences than max_length are refused.
    counted: 0, 1, 2 ..., neighbours closer than training has shown them."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 2."""
        require(f"{at}.max_length", self.max_length, self.max_length >= 2, ">= 2")


class Randomized(DrawnPositions):
    """A sorted random subset."""

    Config = RandomizedConfig

    @property
    def at_test(self) -> bool:
        """As configured."""
        return self.config.at_test == "drawn"

    def draw(self, seqlen: int) -> Tensor:
        """(seqlen,) int64, ascending. Raises ConfigError when there are fewer positions than tokens."""
        _fits(seqlen, self.config.max_length)
        return torch.randperm(self.config.max_length)[:seqlen].sort().values

    def of_length(self, length: int, n: int) -> Tensor:
        """See DrawnPositions. Tokens beyond the declared length (a candidate longer than the true answer) follow the last one by steps of
        1, the end of the range at most."""
        _fits(length, self.config.max_length)
        positions = _subset(length, self.config.max_length)[:n]
        if n > length:
            more = positions[-1] + torch.arange(1, n - length + 1)
            positions = torch.cat([positions, more.clamp_max(self.config.max_length - 1)])
        return positions


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


class PoSE(DrawnPositions):
    """Positional skip-wise training: u_0 = 0, u_i uniform in u_{i-1} .. max_length - seqlen is added to the positions of chunk i.

    So of many chunks the later ones crowd at the end, as in the paper, which takes two (sec. 3). Boundaries are uniform (in the
    released code the first chunk is at most half the sequence), and the text runs on over them (v_i = 0 in the paper's terms).
    """

    Config = PoSEConfig

    def draw(self, seqlen: int) -> Tensor:
        """(seqlen,) int64, ascending. Raises ConfigError when there are fewer positions than tokens."""
        _fits(seqlen, self.config.max_length)
        chunks = min(self.config.chunks, seqlen)
        cuts = torch.randperm(seqlen - 1)[: chunks - 1].sort().values + 1
        spare = self.config.max_length - seqlen
        positions, skip = torch.arange(seqlen), 0
        for begin, end in zip(cuts.tolist(), [*cuts.tolist()[1:], seqlen], strict=False):
            skip = int(torch.randint(skip, spare + 1, ()))
            positions[begin:end] += skip
        return positions


@lru_cache(maxsize=64)
def _subset(length: int, max_length: int) -> Tensor:
    """(length,) int64, sorted: one uniform subset of 0 .. max_length - 1, always the same."""
    generator = torch.Generator().manual_seed(seed_of("positions", length, max_length))
    return torch.randperm(max_length, generator=generator)[:length].sort().values


def _fits(seqlen: int, max_length: int) -> None:
    if seqlen > max_length:
        raise ConfigError("model.positions.max_length", max_length, f">= the sequence's {seqlen} tokens")
