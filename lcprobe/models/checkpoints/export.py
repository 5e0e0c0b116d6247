"""A LanguageModel -> a published format: config.json and safetensors, in a folder that other tools read.

What a format can express is found by reading back: the settings that its config.json would be imported with must be
those of the model, up to what changes speed or initial values only.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lcprobe.choices import Choice
from lcprobe.errors import CheckpointError, ConfigError, require
from lcprobe.files import publish_folder, write_json
from lcprobe.locks import process_tag
from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.checkpoints.contract import CONFIG_JSON, Format
from lcprobe.models.checkpoints.files import SAFETENSORS
from lcprobe.models.checkpoints.places import places_of, taken
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.mixers.mamba1 import Mamba1Config
from lcprobe.models.parts import LayerParts, padded_vocab, parts_of
from lcprobe.schema import build, plain

SHARD_BYTES = 5_000_000_000
"""Bytes of tensors in a file, at most; more are split over several."""
NO_EFFECT = {"chunk_size", "A_init_range", "dt_min", "dt_max", "dt_init_floor", "context_length"}
"""Settings of mixers that trained weights do not depend on: speed and initial values; and the training length, which
no encoding that a published format has depends on."""


def export(
    model: LanguageModel,
    choice: Choice | Mapping[str, Any] | str,
    folder: Path,
    texts: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model as a checkpoint of another project.

    choice: a format of FORMATS, `mamba_ssm` or with settings; texts: other files, by name, such as a tokenizer.json.

    The folder appears whole or not at all, with a manifest of digests. Raises ConfigError for a model that the format
    cannot express, naming the setting, and for a folder that exists and is not empty.
    """
    chosen = FORMATS.convert(choice, "format")
    chosen.resolve()
    format: Format[Any] = chosen.create()
    config_json = expressed(format, model.config)
    taken_already = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    require("folder", str(folder), not taken_already, "a folder that does not exist, or is empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{process_tag()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_json(temporary / CONFIG_JSON, config_json)
        for name, text in (texts or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        _write_tensors(dict(their_tensors(format, model)), temporary, shard_bytes)
        publish_folder(temporary, folder, {"kind": "published checkpoint", "format": format.name})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def their_tensors(format: Format[Any], model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model under their names, views of its parameters where that is possible."""
    parameters = dict(model.named_parameters())
    places = format.places(model.config)
    for name in places:
        yield name, taken(parameters, places_of(places, name))
    if format.writes_copies:
        for name, original in format.copies(model.config).items():
            yield name, taken(parameters, places_of(places, original)).clone()


def _write_tensors(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """Write tensors to one file, or to shards with an index, in their order."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    names = [SAFETENSORS]
    if len(shards) > 1:
        stem, _, suffix = SAFETENSORS.partition(".")
        names = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.{suffix}" for i in range(len(shards))]
        total = sum(tensor.nbytes for tensor in tensors.values())
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        write_json(
            folder / f"{SAFETENSORS}.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
        )
    for name, shard in zip(names, shards, strict=True):
        save_file({key: t.cpu().contiguous() for key, t in shard.items()}, folder / name, {"format": "pt"})


def expressed(format: Format[Any], config: ModelConfig) -> dict[str, Any]:
    """config.json for a model. Raises ConfigError, naming a setting of ours, for one that the format cannot
    express."""
    config_json = format.config_json(config)
    try:
        back = build(ModelConfig, format.settings(config_json), "model")
        different = difference(config, back)
    except CheckpointError as error:
        raise ConfigError("format", format.name, f"one that can express the model ({error})") from None
    if different is not None:
        key, ours, theirs = different
        raise ConfigError(key, ours, f"{theirs} in the format {format.name}")
    return config_json


def difference(ours: ModelConfig, theirs: ModelConfig) -> tuple[str, Any, Any] | None:
    """The first setting in which two configs are of different models, as (key, ours, theirs); None where they
    compute the same."""
    one, other = _facts(ours), _facts(theirs)
    for key in sorted(one.keys() | other.keys(), key=list({**other, **one}).index):
        if one.get(key) != other.get(key):
            return key, one.get(key), other.get(key)
    return None


def _facts(config: ModelConfig) -> dict[str, Any]:
    """What a model computes, by key."""
    parts = parts_of(config)
    added = None if parts.added is None else plain(parts.added)
    facts: dict[str, Any] = {f"model.layout, mixer {i}": layer.kind for i, layer in enumerate(parts.layers)}
    for name in ("d_model", "tie_embeddings", "residual_in_fp32", "norm_eps", "sandwich_norm", "embedding_norm"):
        facts[f"model.{name}"] = getattr(config, name)
    facts["model.norm"] = (config.norm.name, asdict(config.norm.config))
    facts["model.embedding_scale"] = config.embedding_factor()
    facts["model.logit_soft_cap"], facts["model.positions"] = config.logit_soft_cap, plain(config.positions)
    facts["model.vocab_size"], facts["model.positional"] = padded_vocab(config), added
    for i, layer in enumerate(parts.layers):
        facts[f"model.layout, mixer {i}: beside the one before"] = layer.beside
        mlp = layer.mlp
        facts[f"model.mlp, mixer {i}"] = None if mlp is None else (mlp.name, asdict(mlp.config), config.d_ff)
        for name, value in _mixer_facts(layer, config.d_model or 0).items():
            facts[f"model.mixers, mixer {i} ({layer.kind}), {name}"] = value
    return facts


def _mixer_facts(layer: LayerParts, d_model: int) -> dict[str, Any]:
    """Settings of a mixer that its weights depend on, with defaults resolved."""
    config = layer.config
    if isinstance(config, AttentionConfig):
        n_heads, n_kv_heads = config.heads(d_model)
        config = replace(config, n_heads=n_heads, n_kv_heads=n_kv_heads, output_bias=config.has_output_bias)
        config = config if config.qk_norm else replace(config, norm_eps=1e-6)
    if isinstance(config, Mamba1Config):
        config = replace(config, dt_rank=config.widths(d_model)[1])
    facts = {name: value for name, value in plain(config).items() if name not in NO_EFFECT}
    for name in ("positional", "temperature"):
        if name in facts and isinstance(getattr(config, name), Choice):
            choice = getattr(config, name)
            facts[name] = (choice.name, plain(choice.config))
    return facts
