"""Extensions that restrict a query to its neighbourhood: controls for what a model loses without distant tokens.

    window        d < w
    lm_infinite   d < w, and the first n tokens at distance min(d, w)               Han et al. 2023, arXiv 2308.16137
    streaming     d < w, and the first n tokens at their index in a cache of n + w  Xiao et al. 2023, arXiv 2309.17453

lm_infinite and streaming preserve perplexity but cannot retrieve what has left the window: controls for methods that
claim to.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer, attention_layers, far_layers
from lcprobe.models.extend.override import EncodingOverride, RereadEncoding
from lcprobe.models.extend.reread import ConstantFar, NearAndFar, NearExtension
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Attend, AttentionCall, Keys, PositionalEncoding


@dataclass(frozen=True)
class WindowConfig:
    """Size of the sliding window."""

    window: int | None = None
    """Number of tokens that a query sees, itself included; null: the training length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a window below 1."""
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")


class WindowedEncoding(EncodingOverride):
    """An encoding with a sliding window."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, width: int):
        super().__init__(inner, context)
        self.width = width

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See EncodingOverride; the narrower of this window and the layer's own applies."""
        width = self.width if keys.window is None else min(self.width, keys.window)
        return self.inner.attend(q, replace(keys, window=width), op, return_lse)


class Window(Extension[WindowConfig]):
    """A sliding window on every attention layer that sees further."""

    Config = WindowConfig
    acts_on = "attention"
    trainable = True

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension; also where all layers have windows that are no wider."""
        reason = super().not_applicable(model, context)
        return reason or (None if self.layers(model, context) else "its windows are no wider already")

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The layers to change."""
        width = self.config.window or context.context_length
        return [layer for layer in attention_layers(model) if layer.window is None or layer.window > width]

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Wrap the encodings of `layers`."""
        for layer in self.layers(model, context):
            layer.mixer.set_encoding(
                WindowedEncoding(layer.encoding, context, self.config.window or context.context_length)
            )


@dataclass(frozen=True)
class LMInfiniteConfig(WindowConfig):
    """Window of LM-Infinite, and the number of first tokens that stay visible."""

    sinks: int = 10
    """Number of first tokens that every query sees in addition to its window."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a negative number of sinks."""
        super().check(at)
        require(f"{at}.sinks", self.sinks, self.sinks >= 0, ">= 0")


@dataclass(frozen=True)
class StreamingConfig(LMInfiniteConfig):
    """Window and sinks of StreamingLLM; a null window is the training length minus the sinks."""

    sinks: int = 4
    """Number of first tokens that every query sees in addition to its window."""


class NearAndSinks(NearAndFar[LMInfiniteConfig]):
    """Keys within the window as trained, and the first tokens at the positions of `far_positions`."""

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """See NearAndFar; the second call sees the sinks only."""
        near, far = super().calls(q, keys)
        mask = keys.mask(q.shape[1], low=self.width, high=self.width, sinks=self.method.sinks)
        return [near, replace(far, mask=mask)] if self.method.sinks else [near]


class ClippedSinks(NearAndSinks, ConstantFar[LMInfiniteConfig]):
    """LM-Infinite: sinks are at the distance of the window, as in ReRoPE."""


class CachedSinks(NearAndSinks):
    """StreamingLLM: positions are indices in the cache, at most n + w - 1 for a query."""

    def far_positions(self, at: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """See NearAndFar."""
        return at.clamp_max(self.method.sinks + self.width - 1), at


class LMInfinite(NearExtension[LMInfiniteConfig]):
    """LM-Infinite, on rotary layers and on layers without an encoding."""

    Config = LMInfiniteConfig
    acts_on = "attention"

    def check(self, context_length: int) -> None:
        """Raises ConfigError for a window, or a number of sinks, beyond the training length."""
        super().check(context_length)
        require("pe.extend.sinks", self.config.sinks, self.config.sinks < context_length, f"< {context_length}")

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """See RereadExtension; layers without an encoding are included."""
        return far_layers(model, context.context_length)

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """See RereadExtension."""
        return ClippedSinks(inner, context, self.config, 1.0)


class Streaming(LMInfinite):
    """StreamingLLM."""

    Config = StreamingConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> RereadEncoding:
        """See RereadExtension."""
        width = self.config.window or context.context_length - self.config.sinks
        return CachedSinks(inner, context, replace(self.config, window=width))
