"""Levels of an axis that have nothing to act on in some of a study's models: encodings without attention, states without
recurrent layers. Where a level sets nothing else, the whole axis is one run there; where it does, the run is left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf

from lcprobe.choices import build
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import mixers_of

ENCODINGS = ("model.positional", "model.encodings", "model.positions", "train.switch")
STATES = ("train.initial_state",)


@dataclass(frozen=True)
class Applied:
    """A run's labels ("" for an axis that is left out, so that labels stay beside their axes) and patches; `without`: the labels
    left out; `dropped`: why there is no such run, or None."""

    labels: list[str]
    patches: list[dict[str, Any]]
    without: str = ""
    dropped: str | None = None


def applicable(mapping: Mapping[str, Any], labels: list[str], patches: list[dict[str, Any]]) -> Applied:
    """One run of the grid without what does not apply to its model. Raises ConfigError for a model that cannot be read."""
    own = ["model.layout" in _keys(patch) for patch in patches]  # a level that makes the model means what it says of it
    asks = [[] if o else [k for k in _keys(p) if k in ENCODINGS or k in STATES] for p, o in zip(patches, own, strict=True)]
    if not any(asks):
        return Applied(labels, patches)
    attention, recurrent = _has(mapping, patches)
    idle, dropped = [], None
    for patch, asked in zip(patches, asks, strict=True):
        missing = "attention" if not attention and set(asked) & set(ENCODINGS) else ""
        missing = "a recurrent layer" if not recurrent and set(asked) & set(STATES) else missing
        idle.append(bool(missing) and len(asked) == len(list(_keys(patch))))
        if missing and not idle[-1]:
            dropped = f"no model with {missing}"
    if dropped or not any(idle):
        return Applied(labels, patches, dropped=dropped)
    kept = [patch for patch, alone in zip(patches, idle, strict=True) if not alone]
    without = "-".join(label for label, alone in zip(labels, idle, strict=True) if alone)
    return Applied(["" if alone else label for label, alone in zip(labels, idle, strict=True)], kept, without)


def _has(mapping: Mapping[str, Any], patches: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Whether a run's model has attention, and whether it has recurrent layers."""
    merged = OmegaConf.to_container(OmegaConf.merge({"model": mapping.get("model") or {}}, *patches))
    assert isinstance(merged, dict)
    model = {k: v for k, v in merged["model"].items() if f"model.{k}" not in ENCODINGS}
    if model.get("n_layers") == "solve":
        model["n_layers"] = None  # the pattern alone tells
    config = build(ModelConfig, model, "model")
    layers, choices = mixers_of(config)
    found = {layer.mixer: choices[layer.mixer] for layer in layers}.values()
    attention = any(hasattr(choice.config, "positional") for choice in found)
    return attention, any(_is_recurrent(choice) for choice in found)


def _is_recurrent(choice: Any) -> bool:
    with torch.device("meta"):
        return bool(choice.made_by(choice.config, choice.config.head_dim * 8).new_state(1).recurrent)


def _keys(patch: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the first two levels, `model.positional`."""
    for name, value in patch.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield str(name)
