"""The contract of extensions: what a class behind a name in EXTENSIONS has, and what it may know."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lcprobe.errors import ConfigError
from lcprobe.models.language_model import LanguageModel


@dataclass(frozen=True)
class ExtensionContext:
    """What an extension may know beside the model.

    context_length: what the model was trained on. factor: how many times that it is extended to; None: at each length what that
    length needs, max(1, length / context_length). text: (n, length, seed) -> (n, length) int64 windows of *training* text, for
    methods that calibrate; None where there is none.
    """

    context_length: int
    factor: float | None = None
    text: Callable[[int, int, int], Tensor] | None = None

    def factor_at(self, length: int | None) -> float:
        """The factor at a length. Raises ConfigError where it depends on a length that nobody declared."""
        if self.factor is not None:
            return self.factor
        if length is None:
            raise ConfigError("pe.factor", "auto", "a number where sequences have no declared length")
        return max(1.0, length / self.context_length)


class Extension:
    """Base: what is asked of every extension."""

    Config: ClassVar[type]
    causal: ClassVar[bool] = True
    """False: what a token sees depends on the declared length of the whole sequence; the report says so."""
    acts_on: ClassVar[str] = "model"
    """rotary | attention | mamba2 | model: where the method finds something to change."""

    def __init__(self, config: Any):
        self.config = config

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Change the model in place. Raises ConfigError, one line, for a model that the method does not fit."""
        raise NotImplementedError

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """Why there is nothing in this model for the method to act on, in words; None: there is. The model may be on the meta
        device. Raises ConfigError for settings that can fit no model of its shape."""
        mixers = model.mixers()
        encodings = [mixer.encoding for mixer in mixers if mixer.encoding is not None]
        if self.acts_on == "attention" and not encodings:
            return "it has no attention"
        if self.acts_on == "rotary" and not any(e.family == "rotary" for e in encodings):
            return "it has no rotary layer"
        if self.acts_on == "mamba2" and not any(mixer.scan is not None for mixer in mixers):
            return "it has no Mamba2 layer"
        return None


def extended(model: LanguageModel, extension: Extension, context: ExtensionContext) -> LanguageModel:
    """The same model, changed by an extension; at factor 1 nothing is. Raises ConfigError where the method does not fit."""
    if context.factor != 1:
        reason = extension.not_applicable(model, context)
        if reason is not None:
            raise ConfigError("pe.extend", type(extension).__name__, f"a method for this model: {reason}")
        extension.apply(model, context)
    return model
