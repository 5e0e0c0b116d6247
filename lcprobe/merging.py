"""How settings are laid over each other: one rule for files, key=value, the levels of a grid, and what `evaluate` is
given on top of a run's own settings.

    a mapping over a mapping      key by key
    a mapping with `type`         replaces what was there: a choice that is given anew has no setting of the old one
    an axis of `grid`             replaces what was there: its labels, like its values, are one list
    null for an axis or a label   takes it away
    the key of an axis            is its only value from then on: `seed=0` after `grid: {seed: [0, 1]}` is [0]
    a mapping over a list         element by element, {0: {n: 5}, 2: _drop_}: places are those in the list as it was
    a key inside a text           a setting of the choice that the text names: `launcher=local launcher.workers=2`
    everything else               replaces what was there
    {_replace_: true, ...}        replaces what was there
    key: _drop_                   takes the key away, so that its default holds

Files and key=value are laid on in the order in which they are given, each on the result of those before it.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcprobe.errors import ConfigError, listed, nearest_name

REPLACE, DROP = "_replace_", "_drop_"
PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[0-9]+\])*")
NOTHING = object()
"""Where a mapping has no value."""
PLACE = re.compile(r"0|[1-9][0-9]{0,8}")
"""An element of a list, counted from 0."""


@dataclass(frozen=True)
class Settings:
    """What a command is given, in order. layers: a file as ("", its mapping), key=value as (key, value)."""

    layers: tuple[tuple[str, Any], ...]

    def on(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """All of them on top of `base`, as a new mapping. Raises ConfigError as `merge` and `assign`, and for
        key=value that every level of an axis replaces."""
        merged = dict(base)
        for path, value in self.layers:
            before = _axes(merged.get("grid"))
            merged = assign(merged, path, value) if path else merge(merged, value)
            merged = _with_only_values(merged, before, path, value)
        return merged

    def of(self, names: Collection[str]) -> "Settings":
        """Those of some sections, `probe`, and of some keys of others, `data.folder`."""
        layers: list[tuple[str, Any]] = []
        for path, value in self.layers:
            parts = _parts(path)
            if len(parts) > 1 and ({parts[0], ".".join(parts[:2])} & set(names)):
                layers.append((path, value))
            elif len(parts) < 2:
                layers.append(("", _only({parts[0]: value} if parts else value, names)))
        return Settings(tuple(layers))

    def without(self, section: str) -> "Settings":
        """All but a section."""
        layers: list[tuple[str, Any]] = []
        for path, value in self.layers:
            if not path and isinstance(value, Mapping):
                layers.append(("", {key: inner for key, inner in value.items() if key != section}))
            elif _parts(path)[:1] != [section]:
                layers.append((path, value))
        return Settings(tuple(layers))

    def keys(self) -> set[str]:
        """The first two parts of all keys that are set, `study.name`; one part where that is set as a whole."""
        return {key for path, value in self.layers for key in _first_two(_parts(path), value)}


def merge(base: Mapping[str, Any], over: Mapping[str, Any], at: tuple[str, ...] = ()) -> dict[str, Any]:
    """`over` on top of `base`, as a new mapping. at: keys of the mappings that they are in.

    Raises ConfigError for a dropped key that is not there, and for a place that a list does not have.
    """
    merged = dict(base)
    for key, value in over.items():
        here = (*at, str(key))
        if here == ("grid",) and value != DROP:
            merged[key] = _grid(merged.get(key), value)
        elif value != DROP:
            merged[key] = _laid(merged.get(key), value, here)
        elif key in merged:
            del merged[key]
        else:
            raise ConfigError(".".join(here), DROP, "a key that is set before")
    return merged


def assign(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A value on top of what is at a path such as `data.mixture[1].lm`, or `data.mixture.1.lm`.

    Raises ConfigError for a path that is none, and as `merge`.
    """
    if not PATH.fullmatch(path):
        raise ConfigError("command line", path, "a key such as train.lr or data.mixture[0].lm")
    assigned = _assigned(config, _parts(path), value, ())
    assert isinstance(assigned, dict)
    return assigned


def _parts(path: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", path)


def _only(mapping: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """What a mapping has of sections and of their keys."""
    kept: dict[str, Any] = {}
    for section, value in mapping.items():
        if section in names:
            kept[section] = value
        elif isinstance(value, Mapping):
            inside = {key: inner for key, inner in value.items() if f"{section}.{key}" in names}
            kept |= {section: inside} if inside else {}
    return kept


def _first_two(parts: list[str], value: Any) -> Iterator[str]:
    if len(parts) < 2 and isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _first_two([*parts, str(key)], inner)
    elif parts:
        yield ".".join(parts[:2])


def _laid(old: Any, value: Any, at: tuple[str, ...]) -> Any:
    """A value on top of what is at a key; None: nothing is."""
    if not isinstance(value, Mapping):
        return value
    _check_replace(value, at)
    replaced = REPLACE in value
    value = {key: inner for key, inner in value.items() if key != REPLACE}
    if isinstance(old, list) and value and not replaced and all(PLACE.fullmatch(key) for key in value):
        return _elements(old, value, at)
    replaced = replaced or value.get("type", DROP) != DROP
    return merge(old if isinstance(old, Mapping) and not replaced else {}, value, at)


def _elements(old: list[Any], over: Mapping[str, Any], at: tuple[str, ...]) -> list[Any]:
    """Elements of a list by their places in it, as in probe.grids[0].n=5."""
    new = list(old)
    for key, value in over.items():
        place = _place(old, key, (*at, key))
        new[place] = _laid(old[place], value, (*at, key))
    return [value for value in new if value != DROP]


def _place(elements: list[Any], key: str, at: tuple[str, ...]) -> int:
    place = int(key) if PLACE.fullmatch(key) else len(elements)
    if place >= len(elements):
        allowed = f"0 .. {len(elements) - 1}" if elements else "a list with elements: this one is empty"
        raise ConfigError(".".join(at), "a place that is not there", allowed)
    return place


def _grid(old: Any, value: Any) -> Any:
    """Axes on top of those that are there, by their dotted names, {train.lr: [...]}."""
    if not isinstance(value, Mapping):
        return {} if value is None else value
    _check_replace(value, ("grid",))
    axes = {} if REPLACE in value else _axes(old)
    for name, levels in _axes({key: inner for key, inner in value.items() if key != REPLACE}).items():
        if levels is None or levels == DROP:
            axes = _without_axis(axes, name)
        elif isinstance(levels, Mapping) and levels and all(one is None or one == DROP for one in levels.values()):
            axes[name] = merge(axes.get(name) or {}, dict.fromkeys(levels, DROP), ("grid", name))
        elif isinstance(levels, Mapping):
            _check_replace(levels, ("grid", name))
            axes[name] = {label: patch for label, patch in levels.items() if label != REPLACE}
        else:
            axes[name] = levels
    return axes


def _in_grid(old: Any, path: list[str], value: Any) -> Any:
    """A value at a path inside `grid`: an axis by its dotted name, or something in one that is there."""
    axes = _axes(old)
    ends = [n for n in range(len(path), 0, -1) if ".".join(path[:n]) in axes]
    if not ends or ends[0] == len(path):
        whole = ".".join(path)
        if len(path) == 1 or ends or isinstance(value, list) or value is None or value == DROP:
            return _grid(axes, {whole: value})
        return {**axes, path[0]: _assigned(None, path[1:], value, ("grid", path[0]))}  # a label of a new axis
    name, rest = ".".join(path[: ends[0]]), path[ends[0] :]
    if len(rest) == 1 and value is None and isinstance(axes[name], Mapping):
        value = DROP
    return {**axes, name: _assigned(axes[name], rest, value, ("grid", name))}


def _axes(grid: Any) -> dict[str, Any]:
    """The axes of a grid by dotted name: {train: {lr: [...]}} has train.lr, as on the command line."""
    axes: dict[str, Any] = {}
    for name, levels in grid.items() if isinstance(grid, Mapping) else ():
        if isinstance(levels, Mapping) and levels and all(isinstance(one, list | tuple) for one in levels.values()):
            axes |= {f"{name}.{inner}": one for inner, one in levels.items()}
        else:
            axes[str(name)] = levels
    return axes


def _without_axis(axes: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in axes:
        allowed = listed(axes, ", ") or "an axis that is set before: there is none"
        raise ConfigError(f"grid.{name}", "an axis that is not there", allowed, nearest_name(name, axes))
    return {other: levels for other, levels in axes.items() if other != name}


def _with_only_values(merged: dict[str, Any], before: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`merged`, where the axes of keys that were set just now have these values alone. before: axes that were there;
    path, value: what was laid on.

    Raises ConfigError for key=value that every level of an axis with labels replaces.
    """
    axes = _axes(merged.get("grid"))
    for name in [name for name in before if axes.get(name) == before[name]]:
        levels = axes[name]
        if isinstance(levels, Mapping) and path and path.split(".")[0] != "grid":
            patches = [patch if isinstance(patch, Mapping) else {} for patch in levels.values()]
            if patches and all(_value_at(patch, _parts(path)) is not NOTHING for patch in patches):
                allowed = f"grid.{name}=null, or grid.{name}.LABEL.{path}=VALUE: its levels set it"
                raise ConfigError(path, value, allowed)
        elif isinstance(levels, list | tuple):
            given = _value_at(_nested(_parts(path), value), name.split("."))
            if given is not NOTHING and given != DROP and (not isinstance(given, Mapping) or "type" in given):
                axes[name] = [given]
    return {**merged, "grid": axes} if axes != _axes(merged.get("grid")) else merged


def _nested(path: list[str], value: Any) -> Any:
    for part in reversed(path):
        value = {part: value}
    return value


def _value_at(node: Any, path: Sequence[str]) -> Any:
    """What a mapping has at a path; NOTHING where it has none."""
    for part in path:
        if not isinstance(node, Mapping) or part not in node:
            return NOTHING
        node = node[part]
    return node


def _check_replace(value: Mapping[str, Any], at: tuple[str, ...]) -> None:
    if REPLACE in value and value[REPLACE] is not True:
        raise ConfigError(".".join((*at, REPLACE)), value[REPLACE], "true")


def _assigned(node: Any, path: list[str], value: Any, at: tuple[str, ...]) -> Any:
    first, rest, here = path[0], path[1:], (*at, path[0])
    if here == ("grid",) and rest:
        return {**node, first: _in_grid(node.get(first), rest, value)}
    if isinstance(node, list):
        place = _place(node, first, here)
        if not rest:
            return _elements(node, {str(place): value}, at)
        return [*node[:place], _assigned(node[place], rest, value, here), *node[place + 1 :]]
    mapping = dict(node) if isinstance(node, Mapping) else {"type": node} if isinstance(node, str) else {}
    if not rest:
        return merge(mapping, {first: value}, at)
    return {**mapping, first: _assigned(mapping.get(first), rest, value, here)}
