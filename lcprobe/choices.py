"""Registries: a name in a config selects a class.

A registry is a dict from the name used in configs to a lazy "module:attribute" string. The attribute is a subclass of
the registry's contract with a `Config` dataclass, which the other keys of the mapping, except `type`, are checked
against.

A config field declares its registry, `positions: Annotated[Choice | None, POSITIONS]`, and its value is a `Choice`.
Parsing checks names and imports no model; `resolve` imports the class and checks its settings, once. Tasks, which
need no torch, are resolved while parsing.
"""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal, get_args, get_origin

from lcprobe.errors import ConfigError, inside, listed, unknown_name
from lcprobe.schema import Converter, Written, build, key_of, plain, resolve


class Choice(Written):
    """A name from a registry with settings. `cls` and `config` import and check on first use; `resolve` does so at
    once."""

    def __init__(self, registry: "Registry", name: str, settings: Mapping[str, Any], key: str, written: Any):
        """settings: all keys besides `type`. key: where it is in the config, for errors. written: as the user wrote
        it."""
        self.registry, self.name, self.settings, self.key, self._written = registry, name, settings, key, written

    @property
    def written(self) -> Any:
        """`name` or `{type: name, ...}`, as in the config."""
        return self._written

    @cached_property
    def cls(self) -> Any:
        """The class registered under the name. Raises ConfigError for one of a family that cannot be had here."""
        with inside(self.key):
            return self.registry.load(self.name)

    @cached_property
    def config(self) -> Any:
        """The settings as the class's `Config`. Raises ConfigError for an unknown key, a wrong value, or a rule of
        `check`."""
        return build(self.cls.Config, self.settings, self.key)

    def resolve(self) -> None:
        """See Written; choices inside the settings too."""
        resolve(self.config)

    def create(self, *arguments: Any) -> Any:
        """`cls(config, *arguments)`."""
        return self.cls(self.config, *arguments)


class Registry(dict[str, str], Converter):
    """The lazy "module:attribute" string of each name used in configs.

    contract: the base class of all entries, lazy too. families: by prefix, the lazy function from the rest of a name
    to a class: `fla:GatedDeltaNet` is fla's of `GatedDeltaNet`. Such names are in the registry, but not listed.
    """

    def __init__(self, contract: str, entries: Mapping[str, str], families: Mapping[str, str] | None = None):
        super().__init__(entries)
        self.contract, self.families = contract, dict(families or {})

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and self._family(name) is not None)

    def _family(self, name: str) -> str | None:
        prefix, _, member = name.partition(":")
        return self.families.get(prefix) if member else None

    @property
    def names(self) -> list[str]:
        """What may be written, in order: names, and `fla:...` for a family."""
        return [*sorted(self), *(f"{prefix}:..." for prefix in sorted(self.families))]

    def load(self, name: str) -> type:
        """Import the class registered under a name. Raises TypeError where it does not fulfil the contract, and for a
        member of a family what its function raises."""
        family = self._family(name)
        target = self[name] if family is None else name
        cls = _imported(target) if family is None else _imported(family)(name.partition(":")[2])
        contract = _imported(self.contract)
        if not (isinstance(cls, type) and issubclass(cls, contract)):
            raise TypeError(f"{target}, registered as {name!r}, is not a subclass of {self.contract}")
        _check_class_attributes(cls, contract, target)
        if not dataclasses.is_dataclass(cls.Config):
            raise TypeError(f"{target}: Config is not a dataclass")
        return cls

    def convert(self, value: Any, key: str) -> Choice:
        """A Choice from `name` or `{type: name, ...}`. Raises ConfigError for anything else and for an unknown name;
        settings are checked later."""
        if isinstance(value, Choice):
            return value
        mapping = {"type": value} if isinstance(value, str) else value
        if not isinstance(mapping, Mapping):
            raise ConfigError(key, value, "a mapping with `type`")
        if "type" not in mapping:
            raise ConfigError(f"{key}.type", "nothing", listed(self.names))
        name = mapping["type"]
        if not isinstance(name, str) or name not in self:
            raise unknown_name(f"{key}.type", name, self.names)
        return Choice(self, name, {k: v for k, v in mapping.items() if k != "type"}, key, value)

    def allowed(self) -> str:
        """See Converter."""
        return f"{listed(self.names)}, or a mapping with `type`"


class ByName(Converter):
    """A dict of choices in which `type` may be left out where the entry's own name is registered."""

    def __init__(self, registry: Registry):
        self.registry = registry

    def convert(self, value: Any, key: str) -> dict[str, Choice]:
        """Choices by name, from such as `{local: {type: attention, window: 128}, mamba2: {d_state: 64}}`."""
        if not isinstance(value, Mapping):
            raise ConfigError(key, value, self.allowed())
        return {str(name): self.entry(str(name), given, f"{key}.{name}") for name, given in value.items()}

    def entry(self, name: str, given: Any, key: str) -> Choice:
        """The choice of one entry. Raises ConfigError as Registry.convert does."""
        if name in self.registry and isinstance(given, Mapping):
            choice = self.registry.convert({"type": name, **given}, key)
            return Choice(self.registry, choice.name, choice.settings, key, given)
        return self.registry.convert(given, key)

    def allowed(self) -> str:
        """See Converter."""
        return "a mapping of names to mappings"


def choose(registry: Registry, given: Any, key: str) -> Choice:
    """A resolved choice from `name` or `{type: name, ...}`, for code without a parsed config (tests, validation).

    Raises ConfigError for an unknown type, an unknown key, a wrong value, or a rule of the config's `check`.
    """
    choice = registry.convert(given, key)
    choice.resolve()
    return choice


def canonical(value: Any) -> Any:
    """A config as plain values with all settings of each choice: equal for equal configs, however they are
    written."""
    if isinstance(value, Choice):
        return [value.name, canonical(value.config)]
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key_of(f.name): canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return plain(value)


def choices_in(value: Any) -> Iterator[Choice]:
    """The choices among the values of a config's own fields."""
    for field in dataclasses.fields(value):
        choice = getattr(value, field.name)
        if isinstance(choice, Choice):
            yield choice


@lru_cache(maxsize=1024)
def _check_class_attributes(cls: type, contract: type, target: str) -> None:
    """Raise TypeError where a class attribute that the contract declares (`name: ClassVar[...]`) is missing, is not
    among its Literal values, or is not a subclass of the declared class."""
    hints = {name: hint for base in contract.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()}
    for name, hint in hints.items():
        if get_origin(hint) is not ClassVar:
            continue
        if name not in dir(cls):
            raise TypeError(f"{target}: no class attribute {name}, which {contract.__name__} requires")
        declared, value = get_args(hint)[0], getattr(cls, name)
        if get_origin(declared) is Literal and value not in get_args(declared):
            raise TypeError(f"{target}: {name} is {value!r}; allowed: {' | '.join(map(str, get_args(declared)))}")
        bound = get_args(declared)[0] if get_origin(declared) is type and get_args(declared) else object
        if isinstance(bound, type) and isinstance(value, type) and not issubclass(value, bound):
            raise TypeError(f"{target}: {name} is not a subclass of {bound.__name__}")


def _imported(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)
