"""Checkpoints of transformers' Qwen3-Next in its dense shapes: Gated DeltaNet, and attention with a gated output.

Its joint projections have their rows grouped by heads of keys, and queries beside their gates. Experts, which all
released models have, are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, NotCovered, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.mixers.delta_rule import Widths
from lcprobe.models.parts import LayerParts, parts_of, resolved_sizes

FULL, LINEAR = "full_attention", "linear_attention"
ROTATED = 0.25
"""The part of a head that is rotated, where config.json does not say it."""


class HFQwen3Next(Format[FormatConfig]):
    """transformers' Qwen3-Next."""

    Config = FormatConfig
    name = "hf_qwen3_next"
    model_type: ClassVar[str] = "qwen3_next"
    architecture: ClassVar[str] = "Qwen3NextForCausalLM"
    model: ClassVar[str] = "model"
    """What the names of tensors begin with."""

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") == self.model_type

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        _refuse_experts(keys)
        return hybrid_settings(keys)

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, d_ff, _ = resolved_sizes(config)
        places = {
            f"{self.model}.{theirs}.weight": Place(f"{ours}.weight")
            for theirs, ours in (("embed_tokens", "embedding"), ("norm", "norm"))
        }
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"{self.model}.layers.{i}", f"blocks.{i}"
            places[f"{theirs}.input_layernorm.weight"] = Place(f"{ours}.norm.weight")
            places[f"{theirs}.post_attention_layernorm.weight"] = Place(f"{ours}.norm2.weight")
            places |= hf_names.gated_mlp(f"{theirs}.mlp", f"{ours}.mlp", d_ff)
            places |= self._mixer(layer, theirs, f"{ours}.mixer", d_model)
        return places

    def _mixer(self, layer: LayerParts, theirs: str, ours: str, d_model: int) -> dict[str, Place]:
        if isinstance(layer.config, AttentionConfig):
            places = hf_names.attention(f"{theirs}.self_attn", ours, layer.config, d_model)
            for part in ("weight", "bias") if layer.config.bias else ("weight",):
                rows = beside_gates(layer.config, d_model)
                places[f"{theirs}.self_attn.q_proj.{part}"] = Place(f"{ours}.in_proj.{part}", rows)
            return places
        theirs, w = f"{theirs}.linear_attn", layer.config.widths(d_model)  # type: ignore[attr-defined]
        places = {
            f"{theirs}.conv1d.weight": Place(f"{ours}.conv_weight", ones=(1,)),
            f"{theirs}.norm.weight": Place(f"{ours}.norm_weight"),
            f"{theirs}.out_proj.weight": Place(f"{ours}.out_proj.weight"),
        }
        places |= {f"{theirs}.{name}": Place(f"{ours}.{name}") for name in ("A_log", "dt_bias")}
        return places | self.delta_projections(f"{theirs}.", f"{ours}.in_proj.weight", w)

    def delta_projections(self, theirs: str, ours: str, w: Widths) -> dict[str, Place]:
        """The projections of Gated DeltaNet, by their full names."""
        qkvz, ba = grouped_rows(w)
        return {f"{theirs}in_proj_qkvz.weight": Place(ours, qkvz), f"{theirs}in_proj_ba.weight": Place(ours, ba)}

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config, f"{self.model}.embed_tokens.weight")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        found = {"architectures": [self.architecture], "model_type": self.model_type, **hybrid_config(config)}
        return {**found, "num_experts": 0} if self.model_type == "qwen3_next" else found


def _refuse_experts(keys: Keys) -> None:
    """Raises NotCovered where a layer has experts in place of an MLP."""
    n_layers, step = keys.layers(), keys.whole("decoder_sparse_step", 1, least=1)
    dense = keys.indices("mlp_only_layers", n_layers) if keys.given("mlp_only_layers") is not None else []
    if keys.whole("num_experts", 512) and any((i + 1) % step == 0 and i not in dense for i in range(n_layers)):
        raise keys.wrong("num_experts", "0: experts are not covered", NotCovered)


def hybrid_settings(keys: Keys) -> dict[str, Any]:
    """Our settings of a model of Gated DeltaNet and gated attention, from transformers' keys."""
    hf_names.unquantised(keys)
    keys.only("hidden_act", "silu", default="silu")
    d_model, n_layers = keys.whole("hidden_size", least=1), keys.layers()
    if keys.given("layer_types") is not None:
        kinds = keys.names("layer_types", (LINEAR, FULL))
    else:
        every = keys.whole("full_attention_interval", 4, least=1)
        kinds = [FULL if (i + 1) % every == 0 else LINEAR for i in range(n_layers)]
    if len(kinds) != n_layers:
        raise keys.wrong("layer_types", f"{n_layers} of {LINEAR} | {FULL}")
    mixers: dict[str, Any] = {}
    if LINEAR in kinds:
        heads, value_heads = (keys.whole(f"linear_num_{one}_heads", least=1) for one in ("key", "value"))
        d_k, d_v = (keys.whole(f"linear_{one}_head_dim", least=1) for one in ("key", "value"))
        if value_heads % heads:
            raise keys.wrong("linear_num_value_heads", f"a multiple of linear_num_key_heads ({heads})")
        mixers["gated_deltanet"] = {
            "head_dim": d_k,
            "expand": heads * d_k / d_model,
            "expand_v": value_heads * d_v / d_model,
            "value_heads": value_heads // heads,
            "d_conv": keys.whole("linear_conv_kernel_dim", 4, least=2),
            "norm_eps": keys.number("rms_norm_eps", 1e-6),
        }
    if FULL in kinds:
        mixers["attention"] = {
            "n_heads": keys.whole("num_attention_heads", least=1),
            "n_kv_heads": keys.whole("num_key_value_heads", least=1),
            "head_dim": keys.whole("head_dim", 256, least=1),
            "bias": keys.flag("attention_bias", False),
            "qk_norm": True,
            "qk_norm_zero_centred": True,
            "norm_eps": keys.number("rms_norm_eps", 1e-6),
            "output_gate": True,
            "positional": hf_names.rope(keys, ROTATED),
        }
    return {
        "layout": ", ".join("attention+mlp" if kind == FULL else "gated_deltanet+mlp" for kind in kinds),
        "d_model": d_model,
        "d_ff": keys.whole("intermediate_size", least=1),
        "mixers": mixers,
        "norm": "zero_centred_rms",
        "norm_eps": keys.number("rms_norm_eps", 1e-6),
        "vocab_size": keys.whole("vocab_size", least=1),
        "vocab_multiple": 1,
        "tie_embeddings": keys.flag("tie_word_embeddings", False),
    }


def hybrid_config(config: ModelConfig) -> dict[str, Any]:
    """transformers' keys of a model of Gated DeltaNet and gated attention."""
    (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
    linear: Any = next((layer.config for layer in layers if layer.kind == "gated_deltanet"), None)
    full: Any = next((layer.config for layer in layers if layer.kind == "attention"), None)
    found = {
        **hf_names.common(config),
        "num_hidden_layers": len(layers),
        "intermediate_size": d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "layer_types": [FULL if layer.kind == "attention" else LINEAR for layer in layers],
        "max_position_embeddings": config.context_length or 2048,
    }
    if linear is not None:
        w = linear.widths(d_model)
        found |= {"linear_num_key_heads": w.n_heads, "linear_num_value_heads": w.n_value_heads}
        found |= {"linear_key_head_dim": w.head_dim, "linear_value_head_dim": w.value_dim}
        found["linear_conv_kernel_dim"] = linear.d_conv
    if full is not None:
        n_heads, n_kv_heads = full.heads(d_model)
        found |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "head_dim": full.head_dim}
        found |= {"attention_bias": full.bias, "rope_parameters": hf_names.rope_parameters(full.positional)}
        found["rope_parameters"].setdefault("partial_rotary_factor", 1.0)
    return found


def beside_gates(config: AttentionConfig, d_model: int) -> Tensor:
    """Rows of our in_proj (q, k, v, gate), in the order of q_proj: each head's queries, then its gate."""
    n_heads, n_kv_heads = config.heads(d_model)
    queries = torch.arange(n_heads * config.head_dim).view(n_heads, config.head_dim)
    gates = queries + (n_heads + 2 * n_kv_heads) * config.head_dim
    return torch.cat([queries, gates], dim=1).flatten()


def grouped_rows(w: Widths) -> tuple[Tensor, Tensor]:
    """Rows of our in_proj (q, k, v, gate, beta, a), in the order of in_proj_qkvz and of in_proj_ba: the parts of one
    head of keys, then those of the next."""

    def rows(first: int, width: int) -> Tensor:
        return torch.arange(first, first + width).view(w.n_heads, -1)

    beta = w.convolved + w.values
    qkvz = (rows(0, w.keys), rows(w.keys, w.keys), rows(2 * w.keys, w.values), rows(w.convolved, w.values))
    ba = (rows(beta, w.n_value_heads), rows(beta + w.n_value_heads, w.n_value_heads))
    return torch.cat(qkvz, dim=1).flatten(), torch.cat(ba, dim=1).flatten()
