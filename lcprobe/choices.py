"""Mappings into frozen dataclasses, strictly; and `choose`, which lets a name in a config pick the class.

A registry is a dict from the name used in configs to a lazy "module:attribute" string. The attribute has a `Config`
dataclass; everything in the mapping beside `type` is checked against it. Importing happens for the chosen name alone.
"""

import ast
import dataclasses
import importlib
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from lcprobe.errors import ConfigError, nearest, unknown_name

T = TypeVar("T")


class Choice(NamedTuple):
    """What `choose` found: the name, the class or function behind it, and its checked config."""

    name: str
    made_by: Any
    config: Any


def target(registry: Mapping[str, str], name: object, key: str) -> Any:
    """Import what a registered name stands for. Raises ConfigError for an unknown name."""
    if not isinstance(name, str) or name not in registry:
        raise unknown_name(key, name, registry)
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def choose(registry: Mapping[str, str], mapping: Any, key: str) -> Choice:
    """`{type: name, ...}` -> the class behind `name` and its Config built from the rest.

    Raises ConfigError for an unknown type, an unknown key, a wrong value, or a rule of the config's `check`.
    """
    if isinstance(mapping, str):
        mapping = {"type": mapping}
    if not isinstance(mapping, Mapping):
        raise ConfigError(key, mapping, "a mapping with `type`")
    if "type" not in mapping:
        raise ConfigError(f"{key}.type", "nothing", " | ".join(sorted(registry)))
    made_by = target(registry, mapping["type"], f"{key}.type")
    rest = {name: value for name, value in mapping.items() if name != "type"}
    return Choice(mapping["type"], made_by, build(made_by.Config, rest, key))


def build(cls: type[T], mapping: Any, key: str = "") -> T:
    """A dataclass from a plain mapping: every key known, every value of the declared type, then `check(key)`.

    Whole floats pass for int (1e9), ints for float; nothing else is converted. Raises ConfigError naming the full key.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(key or cls.__name__, mapping, f"a mapping with keys {names_of(cls)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    known = {key_of(name): name for name in fields}
    values = {}
    for name, value in mapping.items():
        if name not in known:
            raise ConfigError(_join(key, name), "an unknown key", " | ".join(sorted(known)), nearest(name, known))
        values[known[name]] = convert(hints[known[name]], value, _join(key, name))
    for name, field in fields.items():
        absent = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and absent:
            raise ConfigError(_join(key, name), "nothing", said(hints[name]))
        if name not in values and dataclasses.is_dataclass(hints[name]):
            values[name] = build(typing.cast(type, hints[name]), {}, _join(key, name))
    made = cls(**values)
    check = getattr(made, "check", None)
    if check is not None:
        check(key)
    return made


def convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the declared type `hint`, or ConfigError."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(args, value, key, hint)
    if origin is Literal:
        if isinstance(value, bool) and "off" in args and value is False:  # YAML reads a bare `off` as false
            value = "off"
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) for a in args):
            raise ConfigError(key, value, said(hint), nearest(value, [str(a) for a in args]))
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            if len(value) != len(args):
                raise ConfigError(key, value, said(hint))
            return tuple(convert(a, v, f"{key}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
        made = [convert(args[0], v, f"{key}[{i}]") for i, v in enumerate(value)]
        return tuple(made) if origin is tuple else made
    if origin is dict and isinstance(value, Mapping):
        return {convert(args[0], k, key): convert(args[1], v, _join(key, k)) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, value, said(hint))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    if hint is type(None) and value is None:
        return None
    raise ConfigError(key, value, said(hint))


def _convert_union(args: tuple[Any, ...], value: Any, key: str, hint: Any) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for arg in args:
        try:
            return convert(arg, value, key)
        except (ConfigError, OverflowError, ValueError) as error:
            errors.append(error)
    deeper = [e for e in errors if isinstance(e, ConfigError) and e.key != key]
    raise deeper[0] if deeper else ConfigError(key, value, said(hint))


def said(hint: Any) -> str:
    """A type in words for an error message or `--help`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(said(a) for a in args)
    if origin in (list, tuple):
        inner = args if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis) else args[:1]
        return "a list of " + ", ".join(said(a) for a in inner)
    if origin is dict:
        return f"a mapping of names to {said(args[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping with keys {names_of(hint)}"
    plain = {int: "a whole number", float: "a number", bool: "true | false", str: "text", type(None): "null"}
    return plain.get(hint, "anything")


def key_of(field: str) -> str:
    """The key that a config uses for a dataclass's field: words of Python have a trailing _ there (`from_` is `from`)."""
    return field.removesuffix("_")


def names_of(cls: Any) -> str:
    """The keys of a dataclass, for messages."""
    return " | ".join(key_of(f.name) for f in dataclasses.fields(cls))


def plain(value: Any) -> Any:
    """A config as dicts, lists and scalars: what is written as YAML, digested, and sent to trackers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key_of(f.name): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, read from its source."""
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


def described(cls: Any, key: str) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, docstring) of each field, nested dataclasses included: what `--help` prints."""
    hints, docs = typing.get_type_hints(cls), field_docs(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], _join(key, key_of(field.name))
        if dataclasses.is_dataclass(hint):
            yield from described(hint, name)
            continue
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        text = "required" if default is dataclasses.MISSING else str(plain(default))
        yield name, said(hint), "null" if default is None else text, docs.get(field.name, "")


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
