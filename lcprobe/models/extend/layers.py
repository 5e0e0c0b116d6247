"""The layers that an extension changes. Layers whose window is within the training length see no unseen distances and
stay as they are."""

from dataclasses import dataclass

from lcprobe.errors import ConfigError
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.positional.contract import PositionalEncoding
from lcprobe.models.positional.rope import Rotary


@dataclass(frozen=True)
class EncodedLayer:
    """A mixer that carries a positional encoding. block: number of its block in the model."""

    block: int
    mixer: Mixer

    @property
    def encoding(self) -> PositionalEncoding:
        """The encoding that the mixer carries now."""
        encoding = self.mixer.encoding
        assert encoding is not None
        return encoding

    @property
    def rotary(self) -> Rotary:
        """The encoding of a layer with `is_rotary`."""
        encoding = self.encoding
        assert isinstance(encoding, Rotary)
        return encoding

    @property
    def is_rotary(self) -> bool:
        """Whether queries and keys are rotated by position."""
        return isinstance(self.encoding, Rotary)

    @property
    def window(self) -> int | None:
        """Number of tokens that a query sees; None: all."""
        return self.mixer.window

    def sees_past(self, length: int) -> bool:
        """Whether a query of a long sequence sees tokens at distances of `length` and more, sinks included."""
        return self.window is None or self.mixer.sinks > 0 or self.window > length


def attention_layers(model: LanguageModel) -> list[EncodedLayer]:
    """The layers that carry a positional encoding."""
    return [EncodedLayer(i, mixer) for i, mixer in enumerate(model.mixers()) if mixer.encoding is not None]


def far_layers(model: LanguageModel, context_length: int) -> list[EncodedLayer]:
    """Those of the attention layers that see beyond the training length in longer sequences."""
    return [layer for layer in attention_layers(model) if layer.sees_past(context_length)]


def rotary_layers(model: LanguageModel, context_length: int) -> list[EncodedLayer]:
    """Those of `far_layers` with a rotary encoding."""
    return [layer for layer in far_layers(model, context_length) if layer.is_rotary]


def scan_layers(model: LanguageModel, method: str) -> list[Mixer]:
    """The mixers whose selective scan an extension may wrap. Raises ConfigError where there is none. method: its
    name."""
    mixers = [mixer for mixer in model.mixers() if mixer.scan is not None]
    if not mixers:
        raise ConfigError("pe.extend", method, "a method for this model: it has no Mamba2 layer")
    return mixers
