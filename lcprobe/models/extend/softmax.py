"""Extensions that sharpen the softmax of attention, which longer contexts flatten.

    temperature   q . k times tau; tau null: (0.1 ln s + 1)^2 as in YaRN (arXiv 2309.00071), s the factor
    logn          q_i . k times max(1, log n_i / log L)  Su 2021; Chiang & Cholak 2022, arXiv 2202.12172

As published, the factor multiplies q . k of encoded queries and keys; biases and gates that are added to it stay as
trained (see positional/temperature.py). Wang et al. 2024, arXiv 2404.12224, tune tau per model, for attention without
an encoding; 1 is as trained.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.contract import ConfigT, Extension, ExtensionContext
from lcprobe.models.extend.layers import attention_layers
from lcprobe.models.extend.override import EncodingOverride
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Attend, Keys, PositionalEncoding
from lcprobe.models.positional.temperature import LogN, LogNConfig


@dataclass(frozen=True)
class TemperatureConfig:
    """Constant factor on content scores."""

    value: float | None = None
    """Factor on q . k, above 1 for a sharper softmax; null: (0.1 ln s + 1)^2 for the extension's factor s."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a value that is not positive."""
        require(f"{at}.value", self.value, self.value is None or self.value > 0, "> 0 or null")


class ScaledScores(EncodingOverride):
    """An encoding whose content scores are multiplied by a constant."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, value: float | None):
        super().__init__(inner, context)
        self.value = value

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See EncodingOverride."""
        tau = (0.1 * math.log(s) + 1) ** 2 if self.value is None else self.value
        factor = torch.full((1, 1, 1), tau, dtype=torch.float64, device=q.device)
        return self.inner.attend(q, keys.scaled_by(factor), op, return_lse)


class LogNScores(EncodingOverride):
    """An encoding whose content scores are multiplied by a function of the number of visible keys."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, config: LogNConfig):
        super().__init__(inner, context)
        self.length = config.length or context.context_length

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See EncodingOverride; the same factor as the trained temperature `logn`."""
        factor = LogN(LogNConfig(self.length), self.shape)(keys.where, keys.window)
        return self.inner.attend(q, keys.scaled_by(factor), op, return_lse)


class PostHocFactor(Extension[ConfigT]):
    """Base of extensions that multiply q . k in every attention layer."""

    acts_on = "attention"
    trainable = True

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension; also for layers whose weights are not a softmax of q . k plus a bias."""
        unsuitable = [layer for layer in attention_layers(model) if not layer.encoding.linear]
        reason = super().not_applicable(model, context)
        if reason is None and unsuitable:
            kind = type(unsuitable[0].encoding).__name__
            reason = f"the weights of {kind} layers are not a softmax of q . k plus a bias"
        return reason

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Wrap the encodings of all attention layers."""
        for layer in attention_layers(model):
            layer.mixer.set_encoding(self.override(layer.encoding, context))

    @abstractmethod
    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> EncodingOverride:
        """The trained encoding, wrapped."""


class PostHocTemperature(PostHocFactor[TemperatureConfig]):
    """A constant factor."""

    Config = TemperatureConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> EncodingOverride:
        """See PostHocFactor."""
        return ScaledScores(inner, context, self.config.value)


class PostHocLogN(PostHocFactor[LogNConfig]):
    """log-n scaling of a model that was trained without it."""

    Config = LogNConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> EncodingOverride:
        """See PostHocFactor."""
        return LogNScores(inner, context, self.config)
