"""The encoding of each attention layer: one for all, or a pattern such as `[rope+window512 x 3, none] x 6`.

The pattern is applied to the attention layers in order and repeats. A name is a registered encoding or an entry of
`model.encodings`; these can be joined to it with +

    window512   sliding window of 512 tokens                logn, ssmax   temperature of the softmax
    sinks4      the first 4 tokens stay visible             sink          learned sink logit without a value

RNoPE-SWA (arXiv 2501.18795) is `[rope+window512 x 3, none]`, SWAN (2504.08719) `[none, rope+window512 x 3]` with logn
on the global layers, iRoPE `[rope x 3, none]`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, require, unknown_name
from lcprobe.models.layout import PatternItem, items_of
from lcprobe.models.positional import POSITIONAL, TEMPERATURES
from lcprobe.schema import Converter, Written

ALLOWED_PATTERNS = "an encoding, or a pattern such as `[rope+window512 x 3, none] x 6`"


@dataclass(frozen=True)
class LayerEncoding:
    """One attention layer's part of the pattern. text: as written; changes: the fields of AttentionConfig that it
    sets; key: config key of the encoding's own settings."""

    text: str
    changes: Mapping[str, object]
    key: str

    @property
    def positional(self) -> Choice:
        """The encoding itself."""
        choice = self.changes["positional"]
        assert isinstance(choice, Choice)
        return choice


class EncodingPattern(Written):
    """`model.positional`: one encoding with settings, or a pattern of names over the attention layers."""

    def __init__(self, written: Any, key: str, choice: Choice | None, items: tuple[PatternItem, ...] = ()):
        self._written, self.key, self.choice, self.items = written, key, choice, items

    @property
    def written(self) -> Any:
        """As written in the config: a name, a mapping with `type`, a pattern, or a list of patterns."""
        return self._written

    def resolve(self) -> None:
        """See Written. A pattern's names are resolved by `layers`, which knows the entries of `model.encodings`."""
        if self.choice is not None:
            self.choice.resolve()

    def layers(self, encodings: Mapping[str, Choice]) -> list[LayerEncoding]:
        """The expanded pattern, with resolved choices. Raises ConfigError for unknown names and unknown joined
        words."""
        if self.choice is not None:
            self.choice.resolve()
            return [LayerEncoding(self.choice.name, {"positional": self.choice}, self.key)]
        return [_layer(item, encodings, self.key) for item in self.items]

    def absolute(self, encodings: Mapping[str, Choice]) -> Choice | None:
        """The absolute encoding of the model, if it has one.

        Raises ConfigError for an absolute encoding among others, since it acts once, on the embedding.
        """
        choices = [layer.positional for layer in self.layers(encodings)]
        absolute = next((choice for choice in choices if choice.cls.family == "absolute"), None)
        if absolute is not None and len(choices) > 1:
            allowed = f"`{absolute.name}` alone: it acts once, on the embedding"
            raise ConfigError(self.key, f"{absolute.name} for some layers", allowed)
        return absolute


class _PatternConverter(Converter):
    def convert(self, value: Any, key: str) -> EncodingPattern:
        """Parse an encoding or a pattern. Raises ConfigError for anything else."""
        if isinstance(value, EncodingPattern):
            return value
        if isinstance(value, Mapping):
            return EncodingPattern(value, key, POSITIONAL.convert(value, key))
        text = ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else value
        if not isinstance(text, str):
            raise ConfigError(key, value, ALLOWED_PATTERNS)
        return EncodingPattern(value, key, None, tuple(items_of(text, key, ALLOWED_PATTERNS, POSITIONAL)))

    def allowed(self) -> str:
        """See Converter."""
        return ALLOWED_PATTERNS


ENCODING_PATTERN = _PatternConverter()
"""Converter of `model.positional` and `train.switch.positional`."""


def _layer(item: PatternItem, encodings: Mapping[str, Choice], key: str) -> LayerEncoding:
    require(key, str(item), not item.arguments, ALLOWED_PATTERNS)
    if item.name in encodings:
        choice, own_key = encodings[item.name], f"model.encodings.{item.name}"
    elif item.name in POSITIONAL:
        choice, own_key = POSITIONAL.convert({"type": item.name}, key), key
    else:
        raise unknown_name(key, item.name, sorted({*POSITIONAL, *encodings}))
    choice.resolve()
    changes: dict[str, object] = {"positional": choice}
    for word in item.joined:
        before = len(changes)
        number = re.fullmatch(r"(window|sinks)([0-9]+)", word)
        if number:
            changes[number.group(1)] = int(number.group(2))
        elif word in TEMPERATURES:
            changes["temperature"] = TEMPERATURES.convert({"type": word}, key)
        elif word == "sink":
            changes["sink_logit"] = True
        else:
            raise ConfigError(key, f"{item}", "joined with +: window<n> | sinks<n> | logn | ssmax | sink")
        allowed = "one window, one number of sinks, one temperature and one sink per layer"
        require(key, f"{item}", len(changes) > before, allowed)
    return LayerEncoding(str(item), changes, own_key)
