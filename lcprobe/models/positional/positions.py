"""Positions that are drawn in training instead of counted: models learn distances beyond their training length.

    randomized   a sorted random subset of 0 .. max_length - 1            Ruoss et al. 2023, arXiv 2305.16843
    pose         the sequence in chunks, a random skip before each        Zhu et al. 2023, arXiv 2309.10400

One draw for all rows of a training step, from torch's generator, which training seeds by step before each of its
micro-batches. At evaluation, as in the papers, PoSE counts positions, and randomized draws them too: counted
positions are closer together than any seen in training. That draw is a function of the sequence's length, which must
be declared, so that chunks, decoding and shared prefixes get the same positions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Generic, Literal

import torch
from torch import Tensor

from lcprobe.errors import ConfigError, require
from lcprobe.models.positional.contract import ConfigT
from lcprobe.seeds import seed_of


class DrawnPositions(ABC, Generic[ConfigT]):
    """Base of position schemes: drawn in training, counted at evaluation."""

    Config: ClassVar[type]

    def __init__(self, config: ConfigT):
        self.config = config

    @property
    def at_test(self) -> bool:
        """Whether positions are drawn at evaluation too, as a function of the declared length of the whole
        sequence."""
        return False

    @abstractmethod
    def draw(self, seqlen: int) -> Tensor:
        """Random positions for training: (seqlen,) int64, ascending. Raises ConfigError for more tokens than
        positions."""

    def of_length(self, length: int, n: int) -> Tensor:
        """Positions at evaluation, where `at_test`: (n,) int64, ascending, of the first n tokens of a sequence whose
        declared length is `length`."""
        raise NotImplementedError


@dataclass(frozen=True)
class RandomizedConfig:
    """Range of randomised positions, and what evaluation does."""

    max_length: int
    """Positions are drawn below this."""
    at_test: Literal["drawn", "counted"] = "drawn"
    """Positions at evaluation. drawn: a sorted subset for each length, as in the paper; sequences longer than
    max_length are refused. counted: 0, 1, 2 ..., closer together than in training."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a max_length below 2."""
        require(f"{at}.max_length", self.max_length, self.max_length >= 2, ">= 2")


class Randomized(DrawnPositions[RandomizedConfig]):
    """A sorted random subset of all positions."""

    Config = RandomizedConfig

    @property
    def at_test(self) -> bool:
        """See DrawnPositions: as configured."""
        return self.config.at_test == "drawn"

    def draw(self, seqlen: int) -> Tensor:
        """See DrawnPositions."""
        _check_fits(seqlen, self.config.max_length)
        return torch.randperm(self.config.max_length)[:seqlen].sort().values

    def of_length(self, length: int, n: int) -> Tensor:
        """See DrawnPositions. Tokens beyond the declared length (a candidate longer than the true answer) continue
        from the last position in steps of 1, up to the end of the range."""
        _check_fits(length, self.config.max_length)
        positions = _subset(length, self.config.max_length)[:n]
        if n > length:
            more = positions[-1] + torch.arange(1, n - length + 1)
            positions = torch.cat([positions, more.clamp_max(self.config.max_length - 1)])
        return positions


@dataclass(frozen=True)
class PoSEConfig:
    """Range of PoSE's positions, and the number of chunks."""

    max_length: int
    """Positions are below this."""
    chunks: int = 2
    """Chunks of a sequence, within which positions are consecutive."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a max_length or a number of chunks below 2."""
        require(f"{at}.max_length", self.max_length, self.max_length >= 2, ">= 2")
        require(f"{at}.chunks", self.chunks, self.chunks >= 2, ">= 2")


class PoSE(DrawnPositions[PoSEConfig]):
    """Positional skip-wise training: u_0 = 0; u_i, uniform in u_{i-1} .. max_length - seqlen, is added to the
    positions of chunk i.

    With many chunks the later ones are therefore close to the end, as in the paper, which uses two (sec. 3).
    Boundaries are uniform (in the released code the first chunk is at most half the sequence), and text is contiguous
    across them (the paper's v_i = 0).
    """

    Config = PoSEConfig

    def draw(self, seqlen: int) -> Tensor:
        """See DrawnPositions."""
        _check_fits(seqlen, self.config.max_length)
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
    """(length,) int64, sorted: one uniform subset of 0 .. max_length - 1, a function of the arguments alone."""
    generator = torch.Generator().manual_seed(seed_of("positions", length, max_length))
    return torch.randperm(max_length, generator=generator)[:length].sort().values


def _check_fits(seqlen: int, max_length: int) -> None:
    if seqlen > max_length:
        raise ConfigError("model.positions.max_length", max_length, f">= the sequence's {seqlen} tokens")
