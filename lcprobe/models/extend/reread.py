"""Extensions that read far keys at positions which training has shown; d = i - j, w the window, all by calls merged exactly.

    self_extend   d < w: as is; else floor(i / g) + w - floor(w / g) against floor(j / g)     Jin et al. 2024, arXiv 2401.01325
    rerope        d < w: as is; else distance w                                              Su 2023, kexue.fm/archives/9708
    leaky_rerope  d < w: as is; else distance w + (d - w) / k                                ibid.
    dca           key at j mod c; query in the same chunk at i mod c, in the next one at min(c + i mod c, L - 1), in later ones
                  at L - 1                                                                   An et al. 2024, arXiv 2402.17463

c: chunk, L: the training length. The defaults keep every distance below L at factor s.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer, far_layers
from lcprobe.models.extend.override import RereadEncoding, rereadable
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import AttentionCall, Keys, PositionalEncoding


@dataclass(frozen=True)
class NearConfig:
    """How far keys are read as trained."""

    window: int | None = None
    """Tokens, a query's own included; null: half the training length, a quarter for self_extend."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a window below 1."""
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")


class NearAndFar(RereadEncoding):
    """Near keys as trained, far ones as `far` says."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, config: Any, share: float = 0.5):
        super().__init__(inner, context)
        self.method = config
        self.width = config.window or max(1, int(context.context_length * share))

    def near(self, s: float) -> int:
        """The window."""
        return self.width

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """Near and far."""
        seqlen, s = q.shape[1], self.context.factor_at(keys.where.length)
        near_q, near = self.at_own_positions(q, keys)
        far_q, far_k = self.far(q, keys, s)
        first = AttentionCall(near_q, near.k, keys.v, keys.mask(seqlen, high=self.width), documents=keys.documents)
        return [
            first,
            AttentionCall(far_q, far_k, keys.v, keys.mask(seqlen, low=self.width), documents=keys.documents),
        ]

    def far(self, q: Tensor, keys: Keys, s: float) -> tuple[Tensor, Tensor]:
        """Queries and keys as they meet at distances from the window on."""
        to_q, to_k = self.far_positions(keys.positions, s)
        name = f"{type(self).__name__} {self.width} {self.method}"
        return self.rotated(q, to_q[-q.shape[1] :], keys, f"{name} q"), self.rotated(keys.k, to_k, keys, f"{name} k")

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """at: (n,) int64 -> positions of tokens as queries and as keys."""
        raise NotImplementedError


@dataclass(frozen=True)
class SelfExtendConfig(NearConfig):
    """And the size of groups."""

    group: int | None = None
    """Neighbouring tokens that share a position; null: the smallest that keeps distances below the training length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1."""
        super().check(at)
        require(f"{at}.group", self.group, self.group is None or self.group >= 1, ">= 1 or null")


class GroupedFar(NearAndFar):
    """Self-Extend."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """By groups."""
        g = self.method.group or smallest_group(s, self.context.context_length, self.width)
        return at // g + self.width - self.width // g, at // g


class ConstantFar(NearAndFar):
    """ReRoPE."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """All at the window."""
        return torch.full_like(at, self.width), torch.zeros_like(at)


@dataclass(frozen=True)
class LeakyConfig(NearConfig):
    """And how slowly distances grow beyond."""

    k: float | None = None
    """Tokens a step of distance; null: what keeps distances below the training length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for k below 1."""
        super().check(at)
        require(f"{at}.k", self.k, self.k is None or self.k >= 1, ">= 1 or null")


class LeakyFar(NearAndFar):
    """Leaky ReRoPE."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """In steps of 1 / k."""
        k = self.method.k or stretch(s, self.context.context_length, self.width)
        return self.width + (at.double() - self.width) / k, at.double() / k


@dataclass(frozen=True)
class DualChunkConfig:
    """Sizes."""

    chunk: int | None = None
    """Tokens of a chunk, below the training length; null: three quarters of it."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a chunk below 1."""
        require(f"{at}.chunk", self.chunk, self.chunk is None or self.chunk >= 1, ">= 1 or null")


class DualChunkKeys(RereadEncoding):
    """Dual chunk attention: keys of the same chunk, of the one before, and of those before that."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, config: DualChunkConfig):
        super().__init__(inner, context)
        self.chunk = config.chunk or max(1, 3 * context.context_length // 4)

    def near(self, s: float) -> int:
        """One chunk."""
        return self.chunk

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """Three."""
        seqlen, n_keys, c, last = q.shape[1], keys.k.shape[1], self.chunk, self.context.context_length - 1
        within = keys.positions % c
        k = self.rotated(keys.k, within, keys, f"chunks {c} k")
        asked = within[-seqlen:]
        made = []
        for low, high, at in (
            (0, 1, asked),
            (1, 2, (asked + c).clamp_max(last)),
            (2, n_keys // c + 1, torch.full_like(asked, last)),
        ):
            if low == 2 and high <= 2:
                continue
            turned = self.rotated(q, at, keys, f"chunks {c} {last} q{low}")
            mask = keys.mask(seqlen, chunk=c, chunk_low=low, chunk_high=high)
            made.append(AttentionCall(turned, k, keys.v, mask, documents=keys.documents))
        return made


@lru_cache
def smallest_group(s: float, context_length: int, window: int) -> int:
    """The smallest group with which no distance of s L tokens reaches L. The farthest: from the last token to the first."""
    last = math.ceil(s * context_length - 1e-6) - 1
    fits = (g for g in range(1, last + 1) if last // g + window - window // g < context_length)
    return next(fits, last + 1)  # a window of L itself: beyond it, all at the window


def stretch(s: float, context_length: int, window: int) -> float:
    """By how much what lies beyond the window is to shrink."""
    return max(1.0, (s * context_length - window) / max(1, context_length - window))


class RereadExtension(Extension):
    """Base: puts an encoding around those of the layers that see far."""

    acts_on: ClassVar[str] = "rotary"

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the contract says; and layers whose keys cannot be read twice."""
        reason = super().not_applicable(model, context)
        if reason is not None:
            return reason
        layers = self.layers(model, context)
        if not layers:
            return "its attention layers have windows inside the training length"
        strange = [layer for layer in layers if not rereadable(layer)]
        if strange:
            kind = type(strange[0].encoding).__name__
            return f"keys of {kind} layers with a window, or with more than a rotation, cannot be read at other positions"
        if model.positions is not None and model.positions.at_test:
            return "its positions are drawn: a window of tokens is none of positions"
        self.check(context.context_length)
        return None

    def check(self, context_length: int) -> None:
        """Raises ConfigError for sizes that do not fit the training length."""
        window = self.config.window
        require("pe.extend.window", window, window is None or window <= context_length, f"<= {context_length}")

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The layers to change."""
        return [layer for layer in far_layers(model, context.context_length) if layer.is_rotary]

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Replace the encoding of these layers."""
        for layer in self.layers(model, context):
            layer.mixer.set_encoding(self.override(layer.encoding, replace(context, text=None)))

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """The encoding in front of a trained one."""
        raise NotImplementedError


class SelfExtend(RereadExtension):
    """Self-Extend."""

    Config = SelfExtendConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """A quarter of the training length is near."""
        return GroupedFar(inner, context, self.config, 0.25)


class ReRoPE(RereadExtension):
    """ReRoPE."""

    Config = NearConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """Half of the training length is near."""
        return ConstantFar(inner, context, self.config)


class LeakyReRoPE(RereadExtension):
    """Leaky ReRoPE."""

    Config = LeakyConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """Half of the training length is near."""
        return LeakyFar(inner, context, self.config)


class DualChunk(RereadExtension):
    """Dual chunk attention."""

    Config = DualChunkConfig

    def check(self, context_length: int) -> None:
        """Raises ConfigError for a chunk that leaves no room for the next one."""
        chunk = self.config.chunk
        require("pe.extend.chunk", chunk, chunk is None or chunk < context_length, f"< {context_length}")

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """Chunks."""
        return DualChunkKeys(inner, context, self.config)
