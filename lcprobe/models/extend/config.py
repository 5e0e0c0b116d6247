"""Settings of extensions, at evaluation (`pe.extend` and `pe.factor`) and in training (`train.extend`). Without
torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeGuard

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, require, unknown_name
from lcprobe.files import digest_json
from lcprobe.models.extend import EXTENSIONS
from lcprobe.schema import Converter, Written, plain

AS_TRAINED = "none"
"""The name of no extension, in configs and in records."""
MAX_LABEL_LENGTH = 48
MAX_FACTOR = 65_536
"""2,048 trained tokens to 134 million: beyond any sequence that can be probed, well within the precision of float64
frequencies."""
ALLOWED_FACTORS = f">= 1 and <= {MAX_FACTOR}, or auto"


@dataclass(frozen=True)
class Method:
    """One entry of `pe.extend`. label: its name in reports and records; factor: None is auto."""

    label: str
    choice: Choice
    factor: float | None


@dataclass(frozen=True)
class WrittenMethod:
    """One entry of `pe.extend` as written. factor: its own; None: `pe.factor`."""

    label: str
    choice: Choice
    factor: float | Literal["auto"] | None


class MethodList(Written):
    """`pe.extend`: extensions in order, without `none`."""

    def __init__(self, written: Any, entries: tuple[WrittenMethod, ...]):
        self._written, self.entries = written, entries

    @property
    def written(self) -> Any:
        """As written in the config: a name, a mapping with `type`, or a list of them."""
        return self._written

    def resolve(self) -> None:
        """See Written."""
        for entry in self.entries:
            entry.choice.resolve()


class _MethodListConverter(Converter):
    def convert(self, value: Any, key: str) -> MethodList:
        """Parse a method or a list of methods. Raises ConfigError for unknown names, factors out of range, and labels
        that are invalid or not unique."""
        if isinstance(value, MethodList):
            return value
        several = isinstance(value, list | tuple)
        given = list(value) if several else [value]
        require(key, value, len(given) > 0, "a method, or a list of at least one")
        parsed = [_entry(one, f"{key}[{i}]" if several else key) for i, one in enumerate(given)]
        entries = tuple(entry for entry in parsed if entry is not None)
        labels = [entry.label for entry in entries]
        repeated = [label for label in labels if labels.count(label) > 1]
        require(key, repeated[:1], not repeated, "methods that differ, or a `label` for each")
        return MethodList(value, entries)

    def allowed(self) -> str:
        """See Converter."""
        return "a method, a mapping with `type`, or a list of them"


METHOD_LIST = _MethodListConverter()
"""Converter of `pe.extend`."""


@dataclass(frozen=True)
class ExtendConfig:
    """Extensions of trained models at evaluation, without training; each is a column of the report, on the same
    episodes."""

    extend: Annotated[MethodList, METHOD_LIST] = field(
        default_factory=lambda: METHOD_LIST.convert(AS_TRAINED, "pe.extend")
    )
    """A method, `yarn` or `{type: yarn, ramp: rotations}`, or a list of methods, each with an optional `factor` and
    `label`. The model as trained (`none`) is always included."""
    factor: float | Literal["auto"] = "auto"
    """Ratio of the extended length to the training length; auto: at each length max(1, length / context_length). At
    1, every method is the model as trained."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a factor out of range."""
        _factor(self.factor, f"{at}.factor")

    def methods(self) -> list[Method]:
        """The methods other than `none`, in order, each with its factor."""
        methods = []
        for entry in self.extend.entries:
            factor = self.factor if entry.factor is None else entry.factor
            methods.append(Method(entry.label, entry.choice, None if factor == "auto" else factor))
        return methods


class TrainedExtension(Written):
    """`train.extend`: a method that is part of the model from the first step on.

    original_length: the training length that it extends, that of the run in train.from before any extension. factor:
    ratio of the extended length to it. Both may be None before the run is planned, see `planned`.
    """

    def __init__(self, choice: Choice, factor: float | None, original_length: int | None):
        self.choice, self.factor, self.original_length = choice, factor, original_length

    @property
    def written(self) -> dict[str, Any]:
        """`{type: yarn, factor: 4.0, original_length: 512}` and the method's settings."""
        own = {"type": self.choice.name, **self.choice.settings}
        known = {"factor": self.factor, "original_length": self.original_length}
        return own | {name: value for name, value in known.items() if value is not None}

    @property
    def label(self) -> str:
        """Its name in reports: `yarn(factor=4)`, with its settings."""
        factor = {} if self.factor is None else {"factor": f"{self.factor:g}"}
        return _label({"type": self.choice.name, **self.choice.settings, **factor})

    def resolve(self) -> None:
        """See Written. Raises ConfigError for a method that a model cannot be trained with."""
        self.choice.resolve()
        if not self.choice.cls.trainable:
            trainable = " | ".join(name for name in sorted(EXTENSIONS) if EXTENSIONS.load(name).trainable)
            allowed = f"{trainable} (the others calibrate, select tokens, or depend on the length of the sequence)"
            raise ConfigError(self.choice.key, self.choice.name, allowed)

    def planned(self, original_length: int, context_length: int) -> "TrainedExtension":
        """With its factor, by default context_length / original_length. Raises ConfigError for a factor of at most 1
        or below that ratio, and for another original length than was given."""
        key, given = self.choice.key, self.original_length
        allowed = f"{original_length}, the training length of the run in train.from"
        require(f"{key}.original_length", given, given in (None, original_length), allowed)
        factor = context_length / original_length if self.factor is None else self.factor
        allowed = f"> {original_length}, the training length that {key} extends (or its own `factor` > 1)"
        require("train.context_length", context_length, factor > 1, allowed)
        ratio = f"{context_length / original_length:g} (train.context_length {context_length} / {original_length})"
        reaches = round(factor * original_length) >= context_length  # 1.3333 is near enough to 4 / 3
        require(f"{key}.factor", self.factor, reaches, f">= {ratio}, or null for that")
        return TrainedExtension(self.choice, factor, original_length)


class _TrainedExtensionConverter(Converter):
    def convert(self, value: Any, key: str) -> TrainedExtension | None:
        """Parse a method with an optional factor; None for `none`. Raises ConfigError for unknown names and numbers
        out of range."""
        if value == AS_TRAINED:
            return None
        if isinstance(value, TrainedExtension):
            return value
        mapping = {"type": value} if isinstance(value, str) else value
        if not isinstance(mapping, Mapping):
            raise ConfigError(key, value, self.allowed())
        numbers = {name: mapping[name] for name in ("factor", "original_length") if mapping.get(name) is not None}
        factor, length = numbers.get("factor"), numbers.get("original_length")
        in_range = factor is None or (_is_number(factor) and 1 < factor <= MAX_FACTOR)
        require(f"{key}.factor", factor, in_range, f"> 1 and <= {MAX_FACTOR}")
        whole = length is None or (_is_number(length) and length >= 1 and length == int(length))
        require(f"{key}.original_length", length, whole, "a whole number >= 1")
        own = {name: setting for name, setting in mapping.items() if name not in ("factor", "original_length")}
        choice = EXTENSIONS.convert(own, key)
        return TrainedExtension(
            choice, None if factor is None else float(factor), None if length is None else int(length)
        )

    def allowed(self) -> str:
        """See Converter."""
        return "a method's name, or a mapping with `type`"


TRAINED_EXTENSION = _TrainedExtensionConverter()
"""Converter of `train.extend`."""


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _entry(given: object, key: str) -> WrittenMethod | None:
    """One entry; None: as trained."""
    mapping = {"type": given} if isinstance(given, str) else given
    if not isinstance(mapping, Mapping):
        raise ConfigError(key, given, "a method's name, or a mapping with `type`")
    name, own = mapping.get("type"), {str(k): v for k, v in mapping.items() if k not in ("label", "factor")}
    if not isinstance(name, str) or (name not in EXTENSIONS and name != AS_TRAINED):
        raise unknown_name(key, name, [AS_TRAINED, *sorted(EXTENSIONS)])
    factor = _factor(mapping["factor"], f"{key}.factor") if "factor" in mapping else None
    if name == AS_TRAINED:
        require(key, given, len(mapping) == 1, "none has no settings")
        return None
    label = mapping.get("label", _label(mapping))
    valid = isinstance(label, str) and re.fullmatch(r"[\w.,=()+:-]+", label) and len(label) <= MAX_LABEL_LENGTH
    require(f"{key}.label", label, bool(valid), f"letters, digits and .,=()+:- ({MAX_LABEL_LENGTH} at most)")
    return WrittenMethod(str(label), EXTENSIONS.convert(own, key), factor)


def _factor(value: object, key: str) -> float | Literal["auto"]:
    """Raises ConfigError for what is neither auto nor a number in range."""
    if value == "auto":
        return "auto"
    if _is_number(value) and 1 <= value <= MAX_FACTOR:
        return float(value)
    raise ConfigError(key, value, ALLOWED_FACTORS)


def _label(mapping: Mapping[str, object]) -> str:
    """A default label: `yarn`, `yarn(ramp=rotations,factor=8)`, or with a digest of long settings."""
    settings = {k: v for k, v in mapping.items() if k != "type"}
    name = str(mapping["type"])
    text = f"{name}({','.join(f'{k}={v}' for k, v in settings.items())})" if settings else name
    if len(text) <= MAX_LABEL_LENGTH and re.fullmatch(r"[\w.,=()+-]+", text):
        return text
    return f"{name}({digest_json(plain(settings))[:6]})"
