"""Checkpoints of transformers' Bamba: Mamba-2, with attention in some layers and a gated MLP in all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.checkpoints.mamba_ssm_mixers import mixer_places
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.parts import parts_of, resolved_sizes

ROTATED = 0.5
"""The part of a head that is rotated, whatever config.json says."""


class HFBamba(Format[FormatConfig]):
    """transformers' Bamba."""

    Config = FormatConfig
    name = "hf_bamba"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") == "bamba"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        hf_names.unquantised(keys)
        keys.only("hidden_act", "silu", default="silu")
        d_model, n_layers = keys.whole("hidden_size", least=1), keys.layers()
        eps, expand = keys.number("rms_norm_eps", 1e-5), keys.number("mamba_expand", 2)
        heads, width = keys.whole("mamba_n_heads", least=1), int(expand * d_model)
        if width % heads or keys.given("mamba_d_head") not in (None, "auto", width // heads):
            raise keys.wrong("mamba_n_heads", f"mamba_expand x hidden_size ({width}) / mamba_d_head")
        mamba = {
            "head_dim": width // heads,
            "expand": expand,
            "d_state": keys.whole("mamba_d_state", least=1),
            "n_groups": keys.whole("mamba_n_groups", 1, least=1),
            "d_conv": keys.whole("mamba_d_conv", 4, least=1),
            "bias": keys.flag("mamba_proj_bias", False),
            "conv_bias": keys.flag("mamba_conv_bias", True),
            "dt_limit": keys.limits("time_step_limit"),
            "norm_eps": eps,
        }
        given = keys.given("attn_layer_indices")
        at = [] if given is None else keys.indices("attn_layer_indices", n_layers)
        mixers: dict[str, Any] = {"mamba2": mamba} if len(at) < n_layers else {}
        if at:
            mixers["attention"] = self._attention(keys, d_model)
        return {
            "layout": ", ".join("attention+mlp" if i in at else "mamba2+mlp" for i in range(n_layers)),
            "d_model": d_model,
            "d_ff": keys.whole("intermediate_size", least=1),
            "mixers": mixers,
            "mlp": {"type": "swiglu", "bias": keys.flag("mlp_bias", False)},
            "norm_eps": eps,
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", False),
        }

    def _attention(self, keys: Keys, d_model: int) -> dict[str, Any]:
        heads, kv_heads = keys.whole("num_attention_heads", least=1), keys.given("num_key_value_heads")
        if d_model % heads:
            raise keys.wrong("num_attention_heads", f"a divisor of hidden_size ({d_model})")
        encoding: Any = hf_names.rope(keys, ROTATED)
        return {
            "n_heads": heads,
            "n_kv_heads": heads if kv_heads is None else keys.whole("num_key_value_heads", least=1),
            "head_dim": d_model // heads,
            "bias": keys.flag("attention_bias", False),
            "positional": {**encoding, "fraction": ROTATED},
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, d_ff, _ = resolved_sizes(config)
        places = hf_names.outer(config, "model.final_layernorm")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"model.layers.{i}", f"blocks.{i}"
            places[f"{theirs}.input_layernorm.weight"] = Place(f"{ours}.norm.weight")
            places[f"{theirs}.pre_ff_layernorm.weight"] = Place(f"{ours}.norm2.weight")
            assert layer.mlp is not None
            bias = layer.mlp.config.bias
            places |= hf_names.gated_mlp(f"{theirs}.feed_forward", f"{ours}.mlp", d_ff, bias)
            if isinstance(layer.config, AttentionConfig):
                places |= hf_names.attention(f"{theirs}.self_attn", f"{ours}.mixer", layer.config, d_model)
            else:
                places |= mixer_places(layer, f"{theirs}.mamba.", f"{ours}.mixer.")
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config)

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        mamba: Any = next((layer.config for layer in layers if layer.kind == "mamba2"), None)
        full: Any = next((layer.config for layer in layers if layer.kind == "attention"), None)
        mlp = layers[0].mlp
        found = {
            "architectures": ["BambaForCausalLM"],
            "model_type": "bamba",
            **hf_names.common(config),
            "num_hidden_layers": len(layers),
            "intermediate_size": d_ff,
            "mlp_bias": bool(mlp is not None and mlp.name == "swiglu" and mlp.config.bias),
            "hidden_act": "silu",
            "rms_norm_eps": config.norm_eps,
            "attn_layer_indices": [i for i, layer in enumerate(layers) if layer.kind == "attention"],
            "max_position_embeddings": config.context_length or 2048,
            "num_attention_heads": 1,
            "mamba_n_heads": 1,
            "mamba_d_state": 1,
        }
        if full is not None:
            n_heads, n_kv_heads = full.heads(d_model)
            found |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "attention_bias": full.bias}
            found["rope_parameters"] = hf_names.rope_parameters(full.positional)
        if mamba is not None:
            found |= {f"mamba_{theirs}": value for theirs, value in _mamba(mamba, d_model).items()}
            found["time_step_limit"] = hf_names.time_step_limit(mamba.dt_limit)
        return found


def _mamba(config: Any, d_model: int) -> dict[str, Any]:
    expand = int(config.expand) if config.expand == int(config.expand) else config.expand
    found = {"expand": expand, "n_heads": config.widths(d_model)[1], "d_head": config.head_dim}
    found |= {"d_state": config.d_state, "n_groups": config.n_groups, "d_conv": config.d_conv}
    return {**found, "conv_bias": config.conv_bias, "proj_bias": config.bias}
