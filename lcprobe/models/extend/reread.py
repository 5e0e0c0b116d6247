"""Extensions that read distant keys at positions seen in training; d = i - j, w the window; several calls are merged
exactly.

    self_extend   d < w: as trained; else query at floor(i / g) + w - floor(w / g),  Jin et al. 2024, arXiv 2401.01325
                  key at floor(j / g)
    rerope        d < w: as trained; else distance w                                 Su 2023, kexue.fm/archives/9708
    leaky_rerope  d < w: as trained; else distance w + (d - w) / k                   ibid.
    dca           key at j mod c; query at i mod c for keys of the same chunk,       An et al. 2024, arXiv 2402.17463
                  at min(c + i mod c, L - 1) for the previous one, at L - 1 for earlier ones

c: chunk, L: the training length. With default settings, every distance at factor s is below L.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.contract import ConfigT, Extension, ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer, rotary_layers
from lcprobe.models.extend.override import RereadEncoding, rereadable
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import AttentionCall, Keys, PositionalEncoding


@dataclass(frozen=True)
class NearConfig:
    """The window within which keys are read as trained."""

    window: int | None = None
    """Number of tokens read as trained, a query's own included; null: half the training length, a quarter for
    self_extend."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a window below 1."""
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")


class HasWindow(Protocol):
    """Settings with the window within which keys are read as trained."""

    @property
    def window(self) -> int | None:
        """In tokens; null: a default of the method."""
        ...


WindowT = TypeVar("WindowT", bound=HasWindow)


class NearAndFar(RereadEncoding, Generic[WindowT]):
    """Two calls: keys within the window as trained, the others at the positions of `far_positions`."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, config: WindowT, fraction: float = 0.5):
        """fraction: default window as a fraction of the training length."""
        super().__init__(inner, context)
        self.method = config
        self.width = config.window or max(1, int(context.context_length * fraction))

    def near(self, s: float) -> int:
        """See RereadEncoding: the window."""
        return self.width

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """See PositionalEncoding: near keys, far keys."""
        seqlen, s = q.shape[1], self.context.factor_at(keys.where.length)
        near_q, near = self.at_own_positions(q, keys)
        far_q, far_k = self.far(q, keys, s)
        first = AttentionCall(near_q, near.k, keys.v, keys.mask(seqlen, high=self.width), documents=keys.documents)
        return [
            first,
            AttentionCall(far_q, far_k, keys.v, keys.mask(seqlen, low=self.width), documents=keys.documents),
        ]

    def far(self, q: Tensor, keys: Keys, s: float) -> tuple[Tensor, Tensor]:
        """Queries and keys for distances from the window on."""
        to_q, to_k = self.far_positions(keys.positions, s)
        name = f"{type(self).__name__} {self.width} {self.method}"
        return self.rotated(q, to_q[-q.shape[1] :], keys, f"{name} q"), self.rotated(keys.k, to_k, keys, f"{name} k")

    @abstractmethod
    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """at: positions (n,) int64 -> positions of the same tokens as queries and as keys of the far call."""


@dataclass(frozen=True)
class SelfExtendConfig(NearConfig):
    """Window and group size of Self-Extend."""

    group: int | None = None
    """Number of neighbouring tokens that share a position; null: the smallest that keeps distances below the training
    length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a window or a group below 1."""
        super().check(at)
        require(f"{at}.group", self.group, self.group is None or self.group >= 1, ">= 1 or null")


class GroupedFar(NearAndFar[SelfExtendConfig]):
    """Self-Extend: far positions are shared by groups of tokens."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """See NearAndFar."""
        g = self.method.group or smallest_group(s, self.context.context_length, self.width)
        return at // g + self.width - self.width // g, at // g


class ConstantFar(NearAndFar[WindowT]):
    """ReRoPE: all far keys are at the distance of the window."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """See NearAndFar."""
        return torch.full_like(at, self.width), torch.zeros_like(at)


@dataclass(frozen=True)
class LeakyConfig(NearConfig):
    """Window and slope of Leaky ReRoPE."""

    k: float | None = None
    """Beyond the window, distances grow by 1 / k per token; null: the smallest k that keeps them below the training
    length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a window or a k below 1."""
        super().check(at)
        require(f"{at}.k", self.k, self.k is None or self.k >= 1, ">= 1 or null")


class LeakyFar(NearAndFar[LeakyConfig]):
    """Leaky ReRoPE: beyond the window, distances grow in steps of 1 / k."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """See NearAndFar."""
        k = self.method.k or stretch(s, self.context.context_length, self.width)
        return self.width + (at.double() - self.width) / k, at.double() / k


@dataclass(frozen=True)
class DualChunkConfig:
    """Chunk size of dual chunk attention."""

    chunk: int | None = None
    """Tokens per chunk, below the training length; null: three quarters of it."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a chunk below 1."""
        require(f"{at}.chunk", self.chunk, self.chunk is None or self.chunk >= 1, ">= 1 or null")


class DualChunkKeys(RereadEncoding):
    """Dual chunk attention: keys of the same chunk, of the previous one, and of earlier ones."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, config: DualChunkConfig):
        super().__init__(inner, context)
        self.chunk = config.chunk or max(1, 3 * context.context_length // 4)

    def near(self, s: float) -> int:
        """See RereadEncoding: one chunk."""
        return self.chunk

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """See PositionalEncoding: one call per kind of chunk."""
        seqlen, n_keys, c, last = q.shape[1], keys.k.shape[1], self.chunk, self.context.context_length - 1
        in_chunk = keys.positions % c
        k = self.rotated(keys.k, in_chunk, keys, f"chunks {c} k")
        of_queries = in_chunk[-seqlen:]
        calls = []
        for low, high, at in (
            (0, 1, of_queries),
            (1, 2, (of_queries + c).clamp_max(last)),
            (2, n_keys // c + 1, torch.full_like(of_queries, last)),
        ):
            if low == 2 and high <= 2:
                continue
            rotated_q = self.rotated(q, at, keys, f"chunks {c} {last} q{low}")
            mask = keys.mask(seqlen, chunk=c, chunk_low=low, chunk_high=high)
            calls.append(AttentionCall(rotated_q, k, keys.v, mask, documents=keys.documents))
        return calls


@lru_cache
def smallest_group(s: float, context_length: int, window: int) -> int:
    """The smallest group size with which no distance within s L tokens reaches L, the largest being from last to
    first token."""
    last = math.ceil(s * context_length - 1e-6) - 1
    fitting = (g for g in range(1, last + 1) if last // g + window - window // g < context_length)
    return next(fitting, last + 1)  # none fits where the window is L: then all far keys are at its distance


def stretch(s: float, context_length: int, window: int) -> float:
    """The factor by which distances beyond the window must shrink to stay below the training length."""
    return max(1.0, (s * context_length - window) / max(1, context_length - window))


class RereadExtension(Extension[ConfigT]):
    """Base of extensions that wrap the encodings of layers which see beyond the training length."""

    acts_on = "rotary"
    trainable = False

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension; also for layers whose keys cannot be read at other positions."""
        reason = super().not_applicable(model, context)
        if reason is not None:
            return reason
        layers = self.layers(model, context)
        if not layers:
            return "its attention layers have windows inside the training length"
        unsuitable = [layer for layer in layers if not rereadable(layer)]
        if unsuitable:
            kind = type(unsuitable[0].encoding).__name__
            return f"keys of {kind} layers with a window or more than a rotation cannot be read at other positions"
        if model.positions is not None and model.positions.at_test:
            return "its positions are drawn: a window of tokens is not a window of positions"
        self.check(context.context_length)
        return None

    @abstractmethod
    def check(self, context_length: int) -> None:
        """Raises ConfigError for sizes that do not fit the training length."""

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The layers to change."""
        return rotary_layers(model, context.context_length)

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Wrap the encodings of `layers`."""
        for layer in self.layers(model, context):
            layer.mixer.set_encoding(self.override(layer.encoding, replace(context, text=None)))

    @abstractmethod
    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """The trained encoding, wrapped."""


class NearExtension(RereadExtension[WindowT]):
    """Base of those that read keys within a window as trained."""

    def check(self, context_length: int) -> None:
        """Raises ConfigError for a window beyond the training length."""
        window = self.config.window
        require("pe.extend.window", window, window is None or window <= context_length, f"<= {context_length}")


class SelfExtend(NearExtension[SelfExtendConfig]):
    """Self-Extend."""

    Config = SelfExtendConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """See RereadExtension; by default a quarter of the training length is read as trained."""
        return GroupedFar(inner, context, self.config, 0.25)


class ReRoPE(NearExtension[NearConfig]):
    """ReRoPE."""

    Config = NearConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """See RereadExtension."""
        return ConstantFar(inner, context, self.config)


class LeakyReRoPE(NearExtension[LeakyConfig]):
    """Leaky ReRoPE."""

    Config = LeakyConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """See RereadExtension."""
        return LeakyFar(inner, context, self.config)


class DualChunk(RereadExtension[DualChunkConfig]):
    """Dual chunk attention."""

    Config = DualChunkConfig

    def check(self, context_length: int) -> None:
        """Raises ConfigError for a chunk that is not below the training length."""
        chunk = self.config.chunk
        require("pe.extend.chunk", chunk, chunk is None or chunk < context_length, f"< {context_length}")

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """See RereadExtension."""
        return DualChunkKeys(inner, context, self.config)
