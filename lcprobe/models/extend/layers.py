"""Which layers a method changes. A layer whose window lies inside the training length sees no distance that training did not
show it, and stays as it is."""

from typing import Any

from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import PositionalEncoding
from lcprobe.models.positional.rope import Rotary


def attention_layers(model: LanguageModel) -> list[Any]:
    """Mixers that carry a positional encoding as `positional`."""
    return [b.mixer for b in model._layers() if isinstance(getattr(b.mixer, "positional", None), PositionalEncoding)]


def far_layers(model: LanguageModel, context_length: int) -> list[Any]:
    """Those that see beyond the training length once sequences do."""
    layers = attention_layers(model)
    return [
        layer
        for layer in layers
        if window_of(layer) is None or getattr(layer, "sinks", 0) or layer.window > context_length
    ]


def rotary_layers(model: LanguageModel, context_length: int) -> list[Any]:
    """Those of them with a rotary encoding."""
    return [layer for layer in far_layers(model, context_length) if isinstance(layer.positional, Rotary)]


def window_of(layer: Any) -> int | None:
    """Tokens that a layer sees; None: all."""
    return getattr(layer, "window", None)
