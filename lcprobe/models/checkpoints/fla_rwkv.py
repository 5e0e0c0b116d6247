"""RWKV-6 and RWKV-7 checkpoints of flash-linear-attention (fla-hub): low-rank maps as linear layers, whose biases are
what RWKV-LM adds to them, and mixing vectors in another order.

The norm over heads has the epsilon that the package gives it: `norm_eps` in RWKV-6, times the heads' width in RWKV-7.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, NotCovered, Place
from lcprobe.models.checkpoints.rwkv import rwkv_settings
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.rwkv6 import RWKV6Config
from lcprobe.models.mixers.rwkv7 import RWKV7Config
from lcprobe.models.parts import LayerParts, padded_vocab, parts_of, resolved_sizes

ORDER = (3, 0, 1, 2, 4)
"""Rows of our `mix` of RWKV-6 (w, k, v, r, g), in the order of theirs (r, w, k, v, g)."""
RANKS = {"decay_low_rank_dim": "d_decay", "a_low_rank_dim": "d_rate", "v_low_rank_dim": "d_value",
         "gate_low_rank_dim": "d_gate"}  # fmt: skip


class FLARWKV(Format[FormatConfig]):
    """flash-linear-attention's RWKV-6 and RWKV-7."""

    Config = FormatConfig
    name = "fla_rwkv"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format: RWKV's own code for RWKV-6 has the same model_type."""
        return config.get("model_type") in ("rwkv6", "rwkv7") and "head_size" not in config

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        version, eps = keys.text("model_type"), keys.number("norm_eps", 1e-5)
        d_model, given = keys.whole("hidden_size", least=1), keys.given("intermediate_size")
        covered = {"hidden_act": "sqrelu", "norm_first": True, "norm_bias": True, "attn": None}
        for key, value in {**covered, "tie_word_embeddings": False}.items():
            keys.only(key, value, default=value)
        if given is None:
            ratio = keys.number("hidden_ratio", 3.5 if version == "rwkv6" else 4)
            d_ff = -(-int(d_model * ratio) // 32) * 32
        else:
            d_ff = keys.whole("intermediate_size", least=1)
        sizes = {
            "n_layers": keys.layers(),
            "d_model": d_model,
            "d_ff": d_ff,
            "vocab_size": keys.whole("vocab_size", least=1),
        }
        mixer = _rwkv6(keys, d_model, eps) if version == "rwkv6" else _rwkv7(keys, d_model, eps)
        return rwkv_settings(version, sizes, mixer) | {"norm_eps": eps}

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        places = {"model.embeddings.weight": Place("embedding.weight"), "lm_head.weight": Place("head.weight")}
        d_model = resolved_sizes(config)[0]
        for part in ("weight", "bias"):
            places[f"model.layers.0.pre_norm.{part}"] = Place(f"embedding_norm.{part}")
            places[f"model.norm.{part}"] = Place(f"norm.{part}")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"model.layers.{i}", f"blocks.{i}"
            for part in ("weight", "bias"):
                places[f"{theirs}.attn_norm.{part}"] = Place(f"{ours}.norm.{part}")
                places[f"{theirs}.ffn_norm.{part}"] = Place(f"{ours}.norm2.{part}")
            places |= {f"{theirs}.attn.{name}": place for name, place in _mixer(layer, f"{ours}.mixer.", d_model)}
            places |= {f"{theirs}.ffn.{name}": place for name, place in _mlp(layer.kind, f"{ours}.mlp.")}
        return places

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        version = "rwkv6" if layers[0].kind == "rwkv6" else "rwkv7"
        found = {
            "architectures": ["RWKV6ForCausalLM" if version == "rwkv6" else "RWKV7ForCausalLM"],
            "model_type": version,
            "vocab_size": padded_vocab(config),
            "hidden_size": d_model,
            "intermediate_size": d_ff,
            "num_hidden_layers": len(layers),
            "hidden_act": "sqrelu",
            "norm_first": True,
            "norm_bias": True,
            "norm_eps": config.norm_eps,
            "attn": None,
            "tie_word_embeddings": False,
        }
        first: Any = layers[-1].config
        if isinstance(first, RWKV6Config):
            d_mix, d_decay = first.ranks(d_model)
            found |= {"expand_k": 1.0, "expand_v": 1.0, "num_heads": first.n_heads(d_model)}
            return found | {"proj_low_rank_dim": d_mix, "gate_low_rank_dim": d_decay}
        if isinstance(first, RWKV7Config):
            ranks = first.ranks(d_model)
            own = {"d_decay": ranks["decay"], "d_rate": ranks["rate"], "d_gate": ranks["gate"]}
            own["d_value"] = ranks.get("value", 32)
            found |= {"head_dim": first.head_dim} | {theirs: own[ours] for theirs, ours in RANKS.items()}
        return found


def _rwkv6(keys: Keys, d_model: int, eps: float) -> dict[str, Any]:
    for key, usual in (("expand_k", 0.5), ("expand_v", 1.0)):
        if keys.number(key, usual) != 1:
            raise keys.wrong(key, "1", NotCovered)
    heads = keys.whole("num_heads", 4, least=1)
    if d_model % heads:
        raise keys.wrong("num_heads", f"a divisor of hidden_size ({d_model})")
    mixer = {"head_dim": d_model // heads, "d_mix": keys.whole("proj_low_rank_dim", 32, least=1), "norm_eps": eps}
    return {**mixer, "d_decay": keys.whole("gate_low_rank_dim", 64, least=1)}


def _rwkv7(keys: Keys, d_model: int, eps: float) -> dict[str, Any]:
    heads, width = keys.given("num_heads"), keys.given("head_dim")
    if width is None and heads is not None and d_model % keys.whole("num_heads", least=1) == 0:
        head_dim = d_model // heads
    else:
        head_dim = keys.whole("head_dim", 64, least=1)
    values = keys.given("value_dim")
    if values is not None and set(values if isinstance(values, list) else [values]) != {d_model}:
        raise keys.wrong("value_dim", f"hidden_size ({d_model}) in all layers", NotCovered)
    usual = {"decay_low_rank_dim": 64, "a_low_rank_dim": 64, "v_low_rank_dim": 16, "gate_low_rank_dim": 128}
    ranks = {ours: keys.whole(theirs, usual[theirs], least=1) for theirs, ours in RANKS.items()}
    return {"head_dim": head_dim, "norm_eps": head_dim * eps, **ranks}


def _mixer(layer: LayerParts, ours: str, d_model: int) -> Iterator[tuple[str, Place]]:
    names = {"r_proj": "receptance", "k_proj": "key", "v_proj": "value"}
    if isinstance(layer.config, RWKV6Config):
        names = {f"{name}.linear": own for name, own in {**names, "g_proj": "gate"}.items()}
        rank = layer.config.ranks(d_model)[0]
        yield "x_proj.0.mu", Place(f"{ours}mix_x")
        rows = torch.tensor(ORDER)
        columns = (rows[:, None] * rank + torch.arange(rank)).flatten()
        yield "x_proj.0.linear.weight", Place(f"{ours}mix_down", columns=columns, transposed=True)
        yield "x_proj.2.weight", Place(f"{ours}mix_up", rows, folded=(5 * rank, d_model), transposed=True)
        yield "x_bias", Place(f"{ours}mix", rows)
        yield "bonus", Place(f"{ours}bonus")
        yield from _low_rank("w_proj.linear", f"{ours}decay", f"{ours}decay_base")
    else:
        assert isinstance(layer.config, RWKV7Config)
        for row, name in enumerate("rwkvag"):
            yield f"x_{name}", Place(f"{ours}mix", slice(row, row + 1), ones=(0,))
        for name, own in {"k_k": "removal_key", "k_a": "key_rate", "r_k": "bonus"}.items():
            yield name, Place(ours + own)
        yield from _low_rank("w_lora", f"{ours}decay", f"{ours}decay_base")
        yield from _low_rank("a_lora", f"{ours}rate", f"{ours}rate_base")
        yield from _low_rank("g_lora", f"{ours}gate", None)
        if layer.config.v_first:
            yield from _low_rank("v_lora", f"{ours}first", f"{ours}first_base")
    for name, own in {**names, "o_proj": "out_proj"}.items():
        yield f"{name}.weight", Place(f"{ours}{own}.weight")
    for part in ("weight", "bias"):
        yield f"g_norm.{part}", Place(f"{ours}norm_{part}")


def _low_rank(theirs: str, ours: str, base: str | None) -> Iterator[tuple[str, Place]]:
    yield f"{theirs}.lora.0.weight", Place(f"{ours}.down", transposed=True)
    yield f"{theirs}.lora.2.weight", Place(f"{ours}.up", transposed=True)
    if base is not None:
        yield f"{theirs}.lora.2.bias", Place(base)


def _mlp(version: str, ours: str) -> Iterator[tuple[str, Place]]:
    yield "value.weight", Place(f"{ours}out_proj.weight")
    if version == "rwkv7":
        yield "x_k", Place(f"{ours}mix_k")
        yield "key.weight", Place(f"{ours}key.weight")
        return
    for name, own in (("key", "mix_k"), ("receptance", "mix_r")):
        yield f"{name}.mu", Place(ours + own)
        yield f"{name}.linear.weight", Place(f"{ours}{name}.weight")
