"""RWKV's own checkpoints (BlinkDL/RWKV-LM, .pth files) of RWKV-6 and RWKV-7.

There is no config.json: names tell the version and shapes the sizes. Vectors that mix channels have two leading
dimensions of size 1 there, and several of them are one parameter here.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Place
from lcprobe.models.checkpoints.files import StoredTensor, weight_files
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.rwkv6 import RWKV6Config
from lcprobe.models.mixers.rwkv7 import RWKV7Config
from lcprobe.models.parts import LayerParts, parts_of


class Names(NamedTuple):
    """What the modules of a model are called. first_norm: in the first block."""

    embedding: str
    block: str
    first_norm: str
    mixer: str
    mlp: str
    norm: str


NATIVE = Names("emb", "blocks.", "ln0", "att", "ffn", "ln_out")
ROWS: dict[str, tuple[str, ...]] = {
    "rwkv6": tuple(f"time_maa_{name}" for name in "wkvrg"),
    "rwkv7": tuple(f"x_{name}" for name in "rwkvag"),
}
"""The tensors that are the rows of our `mix`."""
VECTORS: dict[str, dict[str, str]] = {
    "rwkv6": {"time_maa_x": "mix_x", "time_decay": "decay_base"},
    "rwkv7": {"w0": "decay_base", "a0": "rate_base", "k_k": "removal_key", "k_a": "key_rate"},
}
"""Tensors of shape (1, 1, d_model), and our parameters (d_model,)."""
MATRICES: dict[str, dict[str, str]] = {
    "rwkv6": {"time_maa_w1": "mix_down", "time_maa_w2": "mix_up", "time_decay_w1": "decay.down",
              "time_decay_w2": "decay.up", "time_faaaa": "bonus", "gate.weight": "gate.weight"},
    "rwkv7": {"w1": "decay.down", "w2": "decay.up", "a1": "rate.down", "a2": "rate.up", "g1": "gate.down",
              "g2": "gate.up", "r_k": "bonus"},
}  # fmt: skip
SHARED = {
    "receptance.weight": "receptance.weight",
    "key.weight": "key.weight",
    "value.weight": "value.weight",
    "output.weight": "out_proj.weight",
    "ln_x.weight": "norm_weight",
    "ln_x.bias": "norm_bias",
}
"""Tensors of mixers in both versions."""
FIRST = {"v1": "first.down", "v2": "first.up"}
"""The value residual of RWKV-7, in all blocks but the first. Files may have it there, unused."""
MIXED: dict[str, dict[str, str]] = {
    "rwkv6": {"time_maa_k": "mix_k", "time_maa_r": "mix_r"},
    "rwkv7": {"x_k": "mix_k"},
}
"""Vectors of the channel mixing."""


class RWKV(Format[FormatConfig]):
    """BlinkDL/RWKV-LM."""

    Config = FormatConfig
    name = "rwkv"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format: one file without config.json."""
        return not config and len(weight_files(folder)) == 1

    def described(self, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> Mapping[str, Any]:
        """See Format: version and sizes, by names and shapes."""
        path = next(iter(stored.values())).path if stored else "no tensors"
        version = next((v for v, (row, *_) in ROWS.items() if f"blocks.0.att.{row}" in stored), None)
        if version is None:
            earlier = "blocks.0.att.time_mix_k" in stored
            given = "RWKV-5 or earlier" if earlier else "no config.json, and no tensor of RWKV (blocks.0.att.x_r)"
            raise CheckpointError(f"{path}: {given}; allowed: RWKV-6 | RWKV-7")

        def size(name: str, dimension: int) -> int:
            if name not in stored:
                raise CheckpointError(f"{path}: no tensor {name}")
            shape = stored[name].shape
            if dimension >= len(shape):
                raise CheckpointError(f"{path}: {name} has shape {list(shape)}; allowed: that of {version}")
            return shape[dimension]

        blocks = [int(found[1]) for name in stored if (found := re.match(r"blocks\.(\d+)\.", name))]
        sizes = {"version": version, "n_layers": 1 + max(blocks), "d_model": size("emb.weight", 1)}
        sizes |= {"vocab_size": size("emb.weight", 0), "d_ff": size("blocks.0.ffn.key.weight", 0)}
        if version == "rwkv6":
            mixer = {"head_dim": size("blocks.0.att.time_faaaa", 1), "d_mix": size("blocks.0.att.time_maa_w2", 1)}
            return {**sizes, "mixer": {**mixer, "d_decay": size("blocks.0.att.time_decay_w1", 1)}}
        mixer = {"head_dim": size("blocks.0.att.r_k", 1)}
        ranks = {"d_decay": ("w1", 0), "d_rate": ("a1", 0), "d_gate": ("g1", 0), "d_value": ("v1", 1)}
        for ours, (theirs, block) in ranks.items():
            if block < sizes["n_layers"]:
                mixer[ours] = size(f"blocks.{block}.att.{theirs}", 1)
        return {**sizes, "mixer": mixer}

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format. config: as `described`."""
        sizes = {key: config[key] for key in ("n_layers", "d_model", "d_ff", "vocab_size")}
        return rwkv_settings(config["version"], sizes, config["mixer"])

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        return native_places(config, NATIVE)

    def ignored(self, name: str) -> bool:
        """See Format: the value residual of the first block."""
        return name in {f"blocks.0.att.{one}" for one in ("v0", *FIRST)}

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format: there is none."""
        raise ConfigError("format", self.name, "one with a config.json, such as fla_rwkv")


def rwkv_settings(version: str, sizes: Mapping[str, Any], mixer: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings of an RWKV model. sizes: n_layers, d_model, d_ff and vocab_size."""
    return {
        "layout": f"{version}+mlp",
        **sizes,
        "mixers": {version: dict(mixer)},
        "mlp": version,
        "norm": "layer",
        "embedding_norm": True,
        "tie_embeddings": False,
        "vocab_multiple": 1,
    }


def native_places(config: ModelConfig, names: Names) -> dict[str, Place]:
    """The place of every tensor of a model of RWKV-6 or RWKV-7 in RWKV-LM's shapes."""
    places = {f"{names.embedding}.weight": Place("embedding.weight"), "head.weight": Place("head.weight")}
    for part in ("weight", "bias"):
        places[f"{names.block}0.{names.first_norm}.{part}"] = Place(f"embedding_norm.{part}")
        places[f"{names.norm}.{part}"] = Place(f"norm.{part}")
    for i, layer in enumerate(parts_of(config).layers):
        block, ours = f"{names.block}{i}", f"blocks.{i}"
        for part in ("weight", "bias"):
            places[f"{block}.ln1.{part}"] = Place(f"{ours}.norm.{part}")
            places[f"{block}.ln2.{part}"] = Place(f"{ours}.norm2.{part}")
        places |= {f"{block}.{names.mixer}.{name}": place for name, place in _mixer(layer, f"{ours}.mixer.")}
        places |= {f"{block}.{names.mlp}.{name}": place for name, place in _mlp(layer.kind, f"{ours}.mlp.")}
    return places


def _mixer(layer: LayerParts, ours: str) -> Iterator[tuple[str, Place]]:
    assert isinstance(layer.config, RWKV6Config | RWKV7Config)
    for row, name in enumerate(ROWS[layer.kind]):
        yield name, Place(f"{ours}mix", slice(row, row + 1), ones=(0,))
    vectors, matrices = VECTORS[layer.kind], {**SHARED, **MATRICES[layer.kind]}
    if isinstance(layer.config, RWKV7Config) and layer.config.v_first:
        vectors, matrices = {**vectors, "v0": "first_base"}, {**matrices, **FIRST}
    for name, own in vectors.items():
        yield name, Place(ours + own, ones=(0, 1))
    for name, own in matrices.items():
        yield name, Place(ours + own)


def _mlp(version: str, ours: str) -> Iterator[tuple[str, Place]]:
    for name, own in MIXED[version].items():
        yield name, Place(ours + own, ones=(0, 1))
    yield "key.weight", Place(f"{ours}key.weight")
    yield "value.weight", Place(f"{ours}out_proj.weight")
    if version == "rwkv6":
        yield "receptance.weight", Place(f"{ours}receptance.weight")
