"""Settings of an axis that have nothing to act on in some of a study's models: encodings without attention, states without
recurrent layers. They are taken out there; `alike` then finds which runs are one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of
from lcprobe.schema import build

ENCODING_KEYS = ("model.positional", "model.encodings", "model.positions", "train.switch")
STATE_KEYS = ("train.initial_state",)


@dataclass(frozen=True)
class Applied:
    """The patches of a run without what does not apply to its model. idle: axes of which nothing is left; halves: axes whose
    level sets other things too, so that its name promises what this model cannot have; why: what it lacks."""

    patches: list[dict[str, Any]]
    ignored_axes: tuple[int, ...] = ()
    partial_axes: tuple[int, ...] = ()
    reason: str = ""


def applicable(mapping: Mapping[str, Any], patches: list[dict[str, Any]]) -> Applied:
    """One run of the grid without what does not apply to its model. Raises ConfigError for a model that cannot be read."""
    own = [
        "model.layout" in _keys(patch) for patch in patches
    ]  # a level that makes the model means what it says of it
    asks = [
        [] if o else [k for k in _keys(p) if k in ENCODING_KEYS or k in STATE_KEYS]
        for p, o in zip(patches, own, strict=True)
    ]
    if not any(asks):
        return Applied(patches)
    attention, recurrent = _has(mapping, patches)
    vain = {*(() if attention else ENCODING_KEYS), *(() if recurrent else STATE_KEYS)}
    kept = [_without(patch, vain & set(asked)) for patch, asked in zip(patches, asks, strict=True)]
    less = [i for i, asked in enumerate(asks) if vain & set(asked)]
    halves = tuple(i for i in less if kept[i])
    lacks = "attention" if any(vain & set(asks[i]) & set(ENCODING_KEYS) for i in halves) else "a recurrent layer"
    return Applied(kept, tuple(i for i in less if not kept[i]), halves, f"no model with {lacks}" if halves else "")


def _without(patch: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """A patch without keys of its first two levels."""
    made: dict[str, Any] = {}
    for name, value in patch.items():
        if not isinstance(value, Mapping) or not any(f"{name}.{inner}" in keys for inner in value):
            made[name] = value
        elif inside := {inner: v for inner, v in value.items() if f"{name}.{inner}" not in keys}:
            made[name] = inside
    return made


def _has(mapping: Mapping[str, Any], patches: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Whether a run's model has attention, and whether it has recurrent layers."""
    merged = OmegaConf.to_container(OmegaConf.merge({"model": mapping.get("model") or {}}, *patches))
    assert isinstance(merged, dict)
    model = {k: v for k, v in merged["model"].items() if f"model.{k}" not in ENCODING_KEYS}
    if model.get("n_layers") == "solve":
        model["n_layers"] = None  # the pattern alone tells
    parts = parts_of(build(ModelConfig, model, "model"))
    return parts.carries_encodings, parts.is_recurrent


def _keys(patch: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the first two levels, `model.positional`."""
    for name, value in patch.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield str(name)
