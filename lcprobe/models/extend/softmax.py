"""Extensions that sharpen the softmax of attention: longer contexts spread it thin.

    temperature   q . k times tau; tau null: (0.1 ln s + 1)^2, which YaRN puts there (arXiv 2309.00071), s the factor
    logn          q_i . k times max(1, log n_i / log L)  Su 2021; Chiang & Cholak 2022, arXiv 2202.12172

As published, the factor is on q . k, whatever the encoding has made of queries and keys; biases and gates that are added stay as
trained (see positional/temperature.py). tau per model is tuned in Wang et al. 2024, arXiv 2404.12224 (for attention without an
encoding); 1 is as trained.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.extend.layers import attention_layers
from lcprobe.models.extend.override import EncodingOverride
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Attend, Keys, PositionalEncoding
from lcprobe.models.positional.temperature import LogN, LogNConfig


@dataclass(frozen=True)
class TemperatureConfig:
    """How sharp."""

    value: float | None = None
    """On q . k: above 1 sharper; null: from the factor."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a value that is not positive."""
        require(f"{at}.value", self.value, self.value is None or self.value > 0, "> 0 or null")


class ScaledScores(EncodingOverride):
    """Content scores times a number."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, value: float | None):
        super().__init__(inner, context)
        self.value = value

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """tau q."""
        tau = (0.1 * math.log(s) + 1) ** 2 if self.value is None else self.value
        factor = torch.full((1, 1, 1), tau, dtype=torch.float64, device=q.device)
        return self.inner.attend(q, keys.scaled_by(factor), op, return_lse)


class LogNScores(EncodingOverride):
    """Content scores times what the number of keys that a query sees asks for."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, config: LogNConfig):
        super().__init__(inner, context)
        self.length = config.length or context.context_length

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As the trained temperature of this name."""
        factor = LogN(LogNConfig(self.length), self.shape)(keys.where, keys.window)
        return self.inner.attend(q, keys.scaled_by(factor), op, return_lse)


class PostHocTemperature(Extension):
    """A number on q . k of every attention layer."""

    Config = TemperatureConfig
    acts_on: ClassVar[str] = "attention"

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the contract says; and layers that do more with q . k than a softmax of it and a bias."""
        strange = [layer for layer in attention_layers(model) if not layer.encoding.linear]
        reason = super().not_applicable(model, context)
        if reason is None and strange:
            reason = f"the weights of {type(strange[0].encoding).__name__} layers are no softmax of q . k and a bias"
        return reason

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Replace the encoding of attention layers."""
        for layer in attention_layers(model):
            layer.mixer.set_encoding(self.override(layer.encoding, context))

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> EncodingOverride:
        """The encoding in front of a trained one."""
        return ScaledScores(inner, context, self.config.value)


class PostHocLogN(PostHocTemperature):
    """log-n scaling of a model that was trained without."""

    Config = LogNConfig

    def override(self, inner: PositionalEncoding, context: ExtensionContext) -> EncodingOverride:
        """By the number of keys."""
        return LogNScores(inner, context, self.config)
