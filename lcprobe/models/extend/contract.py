"""The contract of extensions, the classes behind the names in EXTENSIONS."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from torch import Tensor

from lcprobe.errors import ConfigError
from lcprobe.models.language_model import LanguageModel

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class ExtensionContext:
    """What an extension knows in addition to the model.

    context_length: the training length. factor: ratio of the extended length to it; None: at each length max(1,
    length / context_length). text: (n, length, seed) -> (n, length) int64 windows of *training* text, for
    calibration; None where there is none.
    """

    context_length: int
    factor: float | None = None
    text: Callable[[int, int, int], Tensor] | None = None

    def factor_at(self, length: int | None) -> float:
        """The factor at a length. Raises ConfigError where it depends on a length that is not declared."""
        if self.factor is not None:
            return self.factor
        if length is None:
            raise ConfigError("pe.factor", "auto", "a number where sequences have no declared length")
        return max(1.0, length / self.context_length)


Part = Literal["rotary", "attention", "mamba2", "model"]


class Extension(ABC, Generic[ConfigT]):
    """Base of all extensions."""

    Config: ClassVar[type]
    causal: ClassVar[bool] = True
    """False: outputs depend on the declared length of the whole sequence even at a given factor; the report notes
    it."""
    trainable: ClassVar[bool]
    """Whether a model can be trained with it (`train.extend`): it changes the encodings of attention layers without
    calibration, is differentiable, and depends on no declared length at a given factor."""
    acts_on: ClassVar[Part] = "model"
    """The part of a model that the extension changes: without it, the extension is not applicable."""
    selects_prompt: ClassVar[bool] = False
    """Whether it sets `model.selection`: answers come from a part of the prompt, and text without a question has
    none."""

    def __init__(self, config: ConfigT):
        self.config = config

    @abstractmethod
    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Change the model in place. Raises ConfigError for a model that does not fit."""

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """The reason why the extension changes nothing in this model; None if it is applicable. The model may be on
        the meta device. Raises ConfigError for settings that do not fit the model."""
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
    """The same model, changed by an extension; unchanged at factor 1. Raises ConfigError where the extension is not
    applicable."""
    if context.factor != 1:
        reason = extension.not_applicable(model, context)
        if reason is not None:
            raise ConfigError("pe.extend", type(extension).__name__, f"a method for this model: {reason}")
        extension.apply(model, context)
    return model
