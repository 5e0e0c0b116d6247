"""From mappings to frozen dataclasses, strictly: unknown keys and wrong types are errors; and back to plain values.

A field may declare a converter of its own, `positions: Annotated[Choice | None, POSITIONS]`, whose result is its
value.
"""

import ast
import dataclasses
import inspect
import math
import textwrap
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Protocol, TypeVar, get_args, get_origin, runtime_checkable

from lcprobe.dialect import write_yaml
from lcprobe.errors import ConfigError, Said, listed, nearest_name

T = TypeVar("T")
MAX_NUMBER = 10**15
"""Largest number of a config: above, sizes are mistakes, and products of them are no floats any more."""
MAX_WHOLE = 2**31 - 1
"""Largest whole number where a field does not say otherwise: counts and sizes, which libraries keep in 32 bits."""
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
"""Words for the elements of a list."""


class Written(ABC):
    """A parsed value of a config that remembers how the user wrote it, which is what YAML and digests contain."""

    @property
    @abstractmethod
    def written(self) -> Any:
        """The value as in the config: a string, mapping or list."""

    @abstractmethod
    def resolve(self) -> None:
        """Import the classes that the value names and check their settings. Raises ConfigError."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and plain(self) == plain(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return repr(plain(self))

    def __str__(self) -> str:
        return str(plain(self))


class Converter(ABC):
    """Converts what the user wrote into a value of another type: `field: Annotated[Type, converter]`."""

    @abstractmethod
    def convert(self, value: Any, key: str) -> Any:
        """The converted value. Raises ConfigError naming `key`."""

    @abstractmethod
    def allowed(self) -> str:
        """What may be written, for error messages and `--help`."""


class Total(Converter):
    """A whole number up to MAX_NUMBER, such as a budget: `Annotated[int, TOTAL]`. hint: what else it may be."""

    def __init__(self, hint: Any = int):
        self.hint = hint

    def convert(self, value: Any, key: str) -> Any:
        """The value as `hint`. Raises ConfigError where it is of another type."""
        return _converted(self.hint, value, key)

    def allowed(self) -> str:
        """See Converter."""
        return type_in_words(self.hint)


TOTAL = Total()


@runtime_checkable
class Checked(Protocol):
    """A config with rules between its values."""

    def check(self, at: str) -> None:
        """Raises ConfigError at the first rule that does not hold. at: the config's own key."""
        ...


def build(cls: type[T], mapping: Any, key: str = "") -> T:
    """Build a dataclass from a plain mapping, checking keys, types, and then the rules of `check(key)`.

    Whole floats are accepted for int (1e9) and ints for float; nothing else is converted. Raises ConfigError naming
    the full key.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(key or cls.__name__, mapping, f"a mapping with keys {names_of(cls)}")
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    known = {key_of(name): name for name in fields}
    values = {}
    for name, value in mapping.items():
        if name not in known:
            raise ConfigError(
                _join(key, name), Said("an unknown key"), listed(sorted(known)), nearest_name(name, known)
            )
        values[known[name]] = convert(hints[known[name]], value, _join(key, name))
    for name, field in fields.items():
        absent = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and absent:
            raise ConfigError(_join(key, name), "nothing", type_in_words(hints[name]))
        if name not in values and dataclasses.is_dataclass(hints[name]):
            values[name] = build(typing.cast(type, hints[name]), {}, _join(key, name))
    config = cls(**values)
    if isinstance(config, Checked):
        config.check(key)
    return config


@lru_cache(maxsize=1024)
def _hints(cls: type) -> Mapping[str, Any]:
    """The types of a class's fields."""
    return typing.get_type_hints(cls, include_extras=True)


def convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the declared type `hint`. Raises ConfigError where it is not of that type."""
    if isinstance(value, int | float) and math.isfinite(value):
        if abs(value) > MAX_NUMBER:
            raise ConfigError(key, value, f"{type_in_words(hint)} of at most {MAX_NUMBER:.0e}")
        if abs(value) > MAX_WHOLE and _is_whole(hint):
            raise ConfigError(key, value, f"{type_in_words(hint)}, at most {MAX_WHOLE}")
    return _converted(hint, value, key)


def _is_whole(hint: Any) -> bool:
    """Whether every number of a type is a whole one: int, int | None."""
    args = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    return int in args and float not in args


def _converted(hint: Any, value: Any, key: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        converter = next(c for c in hint.__metadata__ if isinstance(c, Converter))
        return None if value is None and type(None) in get_args(args[0]) else converter.convert(value, key)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(args, value, key, hint)
    if origin is Literal:
        if isinstance(value, bool) and "off" in args and value is False:  # YAML reads a bare `off` as false
            value = "off"
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) for a in args):
            raise ConfigError(key, value, type_in_words(hint), nearest_name(value, [str(a) for a in args]))
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            if len(value) != len(args):
                raise ConfigError(key, value, type_in_words(hint))
            return tuple(convert(a, v, f"{key}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
        items = [convert(args[0], v, f"{key}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict and isinstance(value, Mapping):
        return {convert(args[0], k, key): convert(args[1], v, _join(key, k)) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, value, type_in_words(hint))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    if hint is type(None) and value is None:
        return None
    raise ConfigError(key, value, type_in_words(hint))


def _convert_union(args: tuple[Any, ...], value: Any, key: str, hint: Any) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for arg in args:
        try:
            return _converted(arg, value, key)
        except (ConfigError, OverflowError, ValueError) as error:
            errors.append(error)
    deeper = [e for e in errors if isinstance(e, ConfigError) and e.key != key]
    raise deeper[0] if deeper else ConfigError(key, value, type_in_words(hint))


def resolve(value: Any) -> None:
    """Resolve every choice inside a config. Raises ConfigError at the first mistake."""
    if isinstance(value, Written):
        value.resolve()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            resolve(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            resolve(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            resolve(inner)


def type_in_words(hint: Any) -> str:
    """A type in words, for error messages and `--help`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        converter = next(c for c in hint.__metadata__ if isinstance(c, Converter))
        return converter.allowed() + (" or null" if type(None) in get_args(args[0]) else "")
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_in_words(a) for a in args)
    if origin in (list, tuple):
        inner = args if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis) else args[:1]
        if len(inner) == 1 and inner[0] in (int, float, str):
            return f"a list of {PLURALS[inner[0]]}"
        if len(set(inner)) == 1 and inner[0] in PLURALS:
            return f"a list of {len(inner)} {PLURALS[inner[0]]}"
        return "a list of " + ", ".join(type_in_words(a) for a in inner)
    if origin is dict:
        return f"a mapping of names to {type_in_words(args[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping with keys {names_of(hint)}"
    words = {int: "a whole number", float: "a number", bool: "true | false", str: "text", type(None): "null"}
    return words.get(hint, "anything")


def key_of(field: str) -> str:
    """The config key of a dataclass field: without the trailing _ of Python keywords (`from_` is `from`)."""
    return field.removesuffix("_")


def names_of(cls: Any) -> str:
    """The keys of a dataclass, for error messages."""
    return " | ".join(key_of(f.name) for f in dataclasses.fields(cls))


def plain(value: Any) -> Any:
    """A config as dicts, lists and scalars, for YAML, digests and trackers."""
    if isinstance(value, Written):
        return plain(value.written)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key_of(f.name): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and of its bases, read from the source."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _own_field_docs(base)
    return docs


def _own_field_docs(cls: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs, last = {}, None
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            docs[last], last = " ".join(str(node.value.value).split()), None
        else:
            last = None
    return docs


def describe_fields(cls: Any, key: str) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, docstring) of each field, with those of nested dataclasses, for `--help` and the
    reference."""
    hints, docs = typing.get_type_hints(cls, include_extras=True), field_docs(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], _join(key, key_of(field.name))
        if dataclasses.is_dataclass(hint):
            yield from describe_fields(hint, name)
            continue
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        text = "required" if default is dataclasses.MISSING else _as_yaml(plain(default))
        yield name, type_in_words(hint), text, docs.get(field.name, "")


def _as_yaml(value: Any) -> str:
    """A value as one writes it in a config, on one line."""
    return write_yaml(value, default_flow_style=True, width=math.inf).removesuffix("...\n").rstrip()


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
