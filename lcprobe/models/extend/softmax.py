"""Extensions that sharpen the softmax of attention, whatever its encoding: longer contexts spread it thin.

    temperature   q times tau; tau null: (0.1 ln s + 1)^2, what YaRN puts on scores, s the factor
    logn          q_i times max(1, log n_i / log L)      Su 2021; Chiang & Cholak 2022, arXiv 2202.12172

tau per model is tuned in Wang et al. 2024, arXiv 2404.12224 (for attention without an encoding); 1 is as trained.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lcprobe.errors import require
from lcprobe.models.extend.changed import Changed
from lcprobe.models.extend.contract import Around, Extension
from lcprobe.models.extend.layers import attention_layers
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Attend, Keys, PositionalEncoding
from lcprobe.models.positional.temperature import LogN, LogNConfig


@dataclass(frozen=True)
class TemperatureConfig:
    """How sharp."""

    value: float | None = None
    """On queries: above 1 sharper; null: from the factor."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a value that is not positive."""
        require(f"{at}.value", self.value, self.value is None or self.value > 0, "> 0 or null")


class Sharpened(Changed):
    """Queries times a number."""

    def __init__(self, inner: PositionalEncoding, around: Around, value: float | None):
        super().__init__(inner, around)
        self.value = value

    def changed(self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool) -> tuple[Tensor, Tensor | None]:
        """tau q."""
        tau = (0.1 * math.log(s) + 1) ** 2 if self.value is None else self.value
        return self.inner.attend(q * tau, keys, op, return_lse)


class SharpenedByLength(Changed):
    """Queries times what the keys that they see ask for."""

    def __init__(self, inner: PositionalEncoding, around: Around, config: LogNConfig):
        super().__init__(inner, around)
        self.length = config.length or around.context_length

    def changed(self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool) -> tuple[Tensor, Tensor | None]:
        """As the trained temperature of this name."""
        q = LogN(LogNConfig(self.length), self.shape)(q, keys.where, keys.window)
        return self.inner.attend(q, keys, op, return_lse)


class Temperature(Extension):
    """A number on the scores of every attention layer."""

    Config = TemperatureConfig
    acts_on: ClassVar[str] = "attention"

    def apply(self, model: LanguageModel, around: Around) -> None:
        """Replace `positional` of attention layers."""
        for layer in attention_layers(model):
            layer.positional = self.sharpened(layer.positional, around)

    def sharpened(self, inner: PositionalEncoding, around: Around) -> Changed:
        """The encoding in front of a trained one."""
        return Sharpened(inner, around, self.config.value)


class PostHocLogN(Temperature):
    """log-n scaling of a model that was trained without."""

    Config = LogNConfig

    def sharpened(self, inner: PositionalEncoding, around: Around) -> Changed:
        """By the number of keys."""
        return SharpenedByLength(inner, around, self.config)
