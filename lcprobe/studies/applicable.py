"""Axes of encodings where a model has no attention: they change nothing, so the study has one run instead of duplicates."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from lcprobe.choices import build
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import mixers_of

ENCODINGS = ("positional", "encodings", "positions")


def applicable(
    mapping: Mapping[str, Any], labels: list[str], patches: list[dict[str, Any]]
) -> tuple[list[str], list[dict[str, Any]], str]:
    """One run's labels and patches without those that only set encodings, if its model has no attention; and these labels.

    A label left out is "" so that labels stay beside their axes. Raises ConfigError for a model that cannot be read.
    """
    idle = [bool(patch) and all(_sets_encodings(key) for key in _keys(patch)) for patch in patches]
    if not any(idle):
        return labels, patches, ""
    kept = [patch for patch, alone in zip(patches, idle, strict=True) if not alone]
    merged = OmegaConf.to_container(OmegaConf.merge({"model": mapping.get("model") or {}}, *kept))
    assert isinstance(merged, dict)
    model = {k: v for k, v in merged["model"].items() if k not in ENCODINGS}
    if model.get("n_layers") == "solve":
        model["n_layers"] = None  # the pattern alone tells
    layers, choices = mixers_of(build(ModelConfig, model, "model"))
    if any(hasattr(choices[layer.mixer].config, "positional") for layer in layers):
        return labels, patches, ""
    without = "-".join(label for label, alone in zip(labels, idle, strict=True) if alone)
    return ["" if alone else label for label, alone in zip(labels, idle, strict=True)], kept, without


def _sets_encodings(key: str) -> bool:
    return key == "train.switch" or key.removeprefix("model.") in ENCODINGS


def _keys(patch: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the first two levels, `model.positional`."""
    for name, value in patch.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield str(name)
