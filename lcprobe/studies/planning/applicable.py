"""Settings of an axis that do not apply to some of a study's models: positional encodings without attention, initial
states without recurrent layers. They are removed there; `deduplicate` then finds which runs are the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lcprobe.merging import merge
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend.config import TRAINED_EXTENSION
from lcprobe.models.parts import parts_of
from lcprobe.schema import build

EXTEND_KEY = "train.extend"
ENCODING_KEYS = ("model.positional", "model.encodings", "model.positions", "train.switch", EXTEND_KEY)
STATE_KEYS = ("train.initial_state",)


@dataclass(frozen=True)
class Applied:
    """The patches of a run without the settings that do not apply to its model. ignored_axes: axes of which nothing
    is left; partial_axes: axes whose level sets other things too, so that its label promises what this model cannot
    have; reason: what the model lacks; not_extended: whether train.extend was removed, which leaves a run that
    continues at another length."""

    patches: list[dict[str, Any]]
    ignored_axes: tuple[int, ...] = ()
    partial_axes: tuple[int, ...] = ()
    reason: str = ""
    not_extended: bool = False


def applicable(mapping: Mapping[str, Any], patches: list[dict[str, Any]]) -> Applied:
    """Remove from a run what does not apply to its model. Raises ConfigError for a model that cannot be parsed."""
    removable = [_removable(patch) for patch in patches]
    if not any(removable):
        return Applied(patches)
    attention, recurrent = _has(mapping, patches)
    inapplicable = {*(() if attention else ENCODING_KEYS), *(() if recurrent else STATE_KEYS)}
    removed = [inapplicable & keys for keys in removable]
    given = [patch["train"]["extend"] for patch, keys in zip(patches, removed, strict=True) if EXTEND_KEY in keys]
    converted = [TRAINED_EXTENSION.convert(one, EXTEND_KEY) for one in given if one is not None]
    extensions = [one for one in converted if one is not None]
    for extension in extensions:  # what is removed is checked like the rest
        extension.resolve()
    kept = [_without(patch, keys) for patch, keys in zip(patches, removed, strict=True)]
    ignored = tuple(i for i, keys in enumerate(removed) if keys and not kept[i])
    partial = tuple(i for i, keys in enumerate(removed) if keys - {EXTEND_KEY} and kept[i])
    lacks = "attention" if any(removed[i] & set(ENCODING_KEYS) for i in partial) else "a recurrent layer"
    reason = f"no model with {lacks}" if partial else ""
    return Applied(kept, ignored, partial, reason, not_extended=bool(extensions))


def _removable(patch: Mapping[str, Any]) -> set[str]:
    """Keys of a level that may be removed. A level that sets the layout describes one model and is kept as it is."""
    keys = set(_keys(patch))
    return set() if "model.layout" in keys else keys & {*ENCODING_KEYS, *STATE_KEYS}


def _without(patch: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """A patch without the given keys of its first two levels."""
    kept: dict[str, Any] = {}
    for name, value in patch.items():
        if not isinstance(value, Mapping) or not any(f"{name}.{inner}" in keys for inner in value):
            kept[name] = value
        elif inside := {inner: v for inner, v in value.items() if f"{name}.{inner}" not in keys}:
            kept[name] = inside
    return kept


def _has(mapping: Mapping[str, Any], patches: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Whether a run's model has attention, and whether it has recurrent layers."""
    merged: dict[str, Any] = dict(mapping)
    for patch in patches:
        merged = merge(merged, patch)
    merged.setdefault("model", {})
    model = {k: v for k, v in merged["model"].items() if f"model.{k}" not in ENCODING_KEYS}
    if model.get("n_layers") == "solve":
        model["n_layers"] = None  # the pattern alone decides
    parts = parts_of(build(ModelConfig, model, "model"))
    return parts.carries_encodings, parts.is_recurrent


def _keys(patch: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the first two levels, such as `model.positional`."""
    for name, value in patch.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield str(name)
