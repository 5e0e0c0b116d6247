"""How settings are laid over each other: one rule for files, key=value, the levels of a grid, and what `evaluate` is
given.

    a mapping over a mapping      key by key
    a mapping with `type`         replaces what was there: a choice that is given anew has no setting of the old one
    an axis of `grid`             replaces what was there: its labels, like its values, are one list
    everything else               replaces what was there
    {_replace_: true, ...}        replaces what was there
    key: _drop_                   takes the key away, so that its default holds
"""

import re
from collections.abc import Mapping
from typing import Any

from lcprobe.errors import ConfigError

REPLACE, DROP = "_replace_", "_drop_"
PATH = re.compile(r"^[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*$")


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], at: tuple[str, ...] = (), partial: bool = False
) -> dict[str, Any]:
    """`over` on top of `base`, as a new mapping. at: keys of the mappings that they are in. partial: `base` is itself
    to be laid over something, so that _replace_ and _drop_ stay in the result.

    Raises ConfigError for a dropped key that is not there.
    """
    merged = dict(base)
    for key, value in over.items():
        here = (*at, str(key))
        if value == DROP:
            if partial:
                merged[key] = DROP
            elif key not in merged:
                raise ConfigError(".".join(here), DROP, "a key that is set before")
            else:
                del merged[key]
        elif isinstance(value, Mapping):
            merged[key] = _mapping(merged.get(key), value, here, partial)
        else:
            merged[key] = value
    return merged


def assign(config: Mapping[str, Any], path: str, value: Any, partial: bool = False) -> dict[str, Any]:
    """A value on top of what is at a path such as `data.mixture[1].lm`, or `data.mixture.1.lm`. partial: see merge.

    Raises ConfigError for a path that is none, and for a place that a list does not have.
    """
    if not PATH.match(path):
        raise ConfigError("command line", path, "a key such as train.lr or data.mixture[0].lm")
    assigned = _assigned(config, re.findall(r"[^.\[\]]+", path), value, (), partial)
    assert isinstance(assigned, dict)
    return assigned


def settled(partial: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping that was merged as `partial`, laid over nothing: without _replace_ and _drop_."""
    kept = {key: value for key, value in partial.items() if key != REPLACE and value != DROP}
    return {key: settled(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _mapping(old: Any, value: Mapping[str, Any], at: tuple[str, ...], partial: bool) -> dict[str, Any] | list[Any]:
    """A mapping on top of what is at a key."""
    if REPLACE in value and value[REPLACE] is not True:
        raise ConfigError(".".join((*at, REPLACE)), value[REPLACE], "true")
    replaced = REPLACE in value or old == DROP
    value = {key: inner for key, inner in value.items() if key != REPLACE}
    mark = {REPLACE: True} if replaced and partial else {}
    if at[0] == "grid" and len(at) > 1 and not _holds_axes(value):
        return {**mark, **value}  # the labels of an axis: their settings are merged when a run is planned
    if isinstance(old, list) and value and all(key.isdigit() for key in value) and not replaced:
        for place, inner in value.items():  # elements by their place, as in probe.grids[0].n=5
            old = _assigned(old, [place], inner, at, partial)
        return old
    base: Mapping[str, Any] = {} if replaced or not isinstance(old, Mapping) or "type" in value else old
    return {**mark, **merge(base, value, at, partial)}


def _holds_axes(value: Mapping[str, Any]) -> bool:
    """Whether a mapping inside `grid` is a part of the names of axes: {train: {lr: [...]}}."""
    return bool(value) and all(isinstance(levels, list | tuple) for levels in value.values())


def _assigned(node: Any, path: list[str], value: Any, at: tuple[str, ...], partial: bool) -> Any:
    first, rest, here = path[0], path[1:], (*at, path[0])
    if isinstance(node, list):
        if not first.isdigit() or int(first) >= len(node):
            raise ConfigError(".".join(here), "a place that is not there", f"0 .. {len(node) - 1}")
        i = int(first)
        inner = (
            _assigned(node[i], rest, value, here, partial)
            if rest
            else merge({first: node[i]}, {first: value}, at, partial).get(first)
        )
        dropped = not rest and value == DROP
        return [*node[:i], *([] if dropped else [inner]), *node[i + 1 :]]
    mapping = dict(node) if isinstance(node, Mapping) else {}
    if not rest:
        return merge(mapping, {first: value}, at, partial)
    return {**mapping, first: _assigned(mapping.get(first), rest, value, here, partial)}
