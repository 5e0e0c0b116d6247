"""Extensions that let a query see its neighbourhood alone: what a model loses that never looks far.

    window        d < w
    lm_infinite   d < w, and the first n tokens at distance min(d, w)                           Han et al. 2023, arXiv 2308.16137
    streaming     d < w, and the first n tokens at their places in a cache of n + w         Xiao et al. 2023, arXiv 2309.17453

lm_infinite and streaming keep perplexity and cannot retrieve what left the window: controls for methods that claim to.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer, attention_layers, far_layers
from lcprobe.models.extend.override import EncodingOverride, RereadEncoding
from lcprobe.models.extend.reread import NearAndFar, RereadExtension
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Attend, AttentionCall, Keys, PositionalEncoding


@dataclass(frozen=True)
class WindowConfig:
    """How far."""

    window: int | None = None
    """Tokens that a query sees, itself included; null: the training length."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1."""
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")


class WindowedEncoding(EncodingOverride):
    """Nothing beyond the window."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, width: int):
        super().__init__(inner, context)
        self.width = width

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The narrower of this window and the layer's own."""
        width = self.width if keys.window is None else min(self.width, keys.window)
        return self.inner.attend(q, replace(keys, window=width), op, return_lse)


class Window(Extension):
    """A sliding window on every attention layer that sees farther."""

    Config = WindowConfig
    acts_on: ClassVar[str] = "attention"

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the contract says; and layers that see no farther already."""
        reason = super().not_applicable(model, context)
        return reason or (None if self.layers(model, context) else "its windows are no wider already")

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The layers to change."""
        width = self.config.window or context.context_length
        return [layer for layer in attention_layers(model) if layer.window is None or layer.window > width]

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Replace the encoding of these layers."""
        for layer in self.layers(model, context):
            layer.mixer.set_encoding(
                WindowedEncoding(layer.encoding, context, self.config.window or context.context_length)
            )


@dataclass(frozen=True)
class LMInfiniteConfig(WindowConfig):
    """And how many first tokens stay."""

    sinks: int = 10
    """First tokens that every query sees."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a negative number of sinks."""
        super().check(at)
        require(f"{at}.sinks", self.sinks, self.sinks >= 0, ">= 0")


@dataclass(frozen=True)
class StreamingConfig(LMInfiniteConfig):
    """The same with the constants of StreamingLLM; window null: the training length less the sinks."""

    sinks: int = 4
    """First tokens that every query sees."""


class NearAndSinks(NearAndFar):
    """Near keys as trained; the first tokens where the method puts them."""

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """The second call sees the sinks alone."""
        near, far = super().calls(q, keys)
        mask = keys.mask(q.shape[1], low=self.width, high=self.width, sinks=self.method.sinks)
        return [near, replace(far, mask=mask)] if self.method.sinks else [near]


class ClippedSinks(NearAndSinks):
    """LM-Infinite: no distance beyond the window."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """All at the window."""
        return torch.full_like(at, self.width), torch.zeros_like(at)


class CachedSinks(NearAndSinks):
    """StreamingLLM: positions are places in the cache, in which a query stands at most at n + w - 1."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """Queries at the cache's end."""
        return at.clamp_max(self.method.sinks + self.width - 1), at


class LMInfinite(RereadExtension):
    """LM-Infinite, on rotary layers and on those without an encoding."""

    Config = LMInfiniteConfig
    acts_on: ClassVar[str] = "attention"

    def check(self, context_length: int) -> None:
        """Raises ConfigError for a window, or so many sinks, that training has not shown."""
        super().check(context_length)
        require("pe.extend.sinks", self.config.sinks, self.config.sinks < context_length, f"< {context_length}")

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The layers that see far."""
        return far_layers(model, context.context_length)

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """Sinks at the window's end."""
        return ClippedSinks(inner, context, self.config, 1.0)


class Streaming(LMInfinite):
    """StreamingLLM."""

    Config = StreamingConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """Sinks at their places in the cache."""
        width = self.config.window or context.context_length - self.config.sinks
        return CachedSinks(inner, context, replace(self.config, window=width))
