"""A toy extension: content scores of all attention layers are divided by a power of the factor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.extend.layers import attention_layers
from lcprobe.models.extend.override import EncodingOverride
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Attend, Keys, PositionalEncoding


@dataclass(frozen=True)
class FlattenedConfig:
    """Settings of the toy extension."""

    power: float = 0.5
    """Exponent of the factor."""


class FlatScores(EncodingOverride):
    """An encoding whose content scores are divided by factor^power."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext, power: float):
        super().__init__(inner, context)
        self.power = power

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See EncodingOverride."""
        scale = torch.full((1, 1, 1), s**-self.power, dtype=torch.float64, device=q.device)
        return self.inner.attend(q, keys.scaled_by(scale), op, return_lse)


class Flattened(Extension[FlattenedConfig]):
    """A flatter softmax in longer sequences."""

    Config = FlattenedConfig
    acts_on = "attention"
    trainable = True

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """See Extension."""
        for layer in attention_layers(model):
            layer.mixer.set_encoding(FlatScores(layer.encoding, context, self.config.power))
