"""Checkpoints of transformers' Mamba2: mamba_ssm's tensors, the embedding under another name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.checkpoints.mamba_ssm_mixers import mixer_places
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of, resolved_sizes

EMBEDDING = "backbone.embeddings.weight"


class HFMamba2(Format[FormatConfig]):
    """transformers' Mamba2."""

    Config = FormatConfig
    name = "hf_mamba2"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") == "mamba2"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        hf_names.unquantised(keys)
        keys.only("hidden_act", "silu", default="silu")
        d_model, head_dim = keys.whole("hidden_size", least=1), keys.whole("head_dim", least=1)
        heads, expand = keys.whole("num_heads", least=1), keys.number("expand", 2)
        if heads * head_dim != int(expand * d_model):
            raise keys.wrong("num_heads", f"expand x hidden_size / head_dim ({expand * d_model / head_dim:g})")
        mixer = {
            "head_dim": head_dim,
            "expand": expand,
            "d_state": keys.whole("state_size", least=1),
            "n_groups": keys.whole("n_groups", least=1),
            "d_conv": keys.whole("conv_kernel", least=1),
            "bias": keys.flag("use_bias", False),
            "conv_bias": keys.flag("use_conv_bias", True),
            "dt_limit": keys.limits("time_step_limit"),
            "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
        }
        return {
            "layout": "mamba2",
            "n_layers": keys.layers(),
            "d_model": d_model,
            "mixers": {"mamba2": mixer},
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", False),
            "residual_in_fp32": keys.flag("residual_in_fp32", True),
            "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        places = {EMBEDDING: Place("embedding.weight"), "backbone.norm_f.weight": Place("norm.weight")}
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"backbone.layers.{i}.", f"blocks.{i}."
            places[f"{theirs}norm.weight"] = Place(f"{ours}norm.weight")
            places |= mixer_places(layer, f"{theirs}mixer.", f"{ours}mixer.")
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config, EMBEDDING)

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, _, _), layers = resolved_sizes(config), parts_of(config).layers
        found = {
            "architectures": ["Mamba2ForCausalLM"],
            "model_type": "mamba2",
            **hf_names.common(config),
            "num_hidden_layers": len(layers),
            "layer_norm_epsilon": config.norm_eps,
            "residual_in_fp32": config.residual_in_fp32,
            "hidden_act": "silu",
        }
        own: Any = next((layer.config for layer in layers if layer.kind == "mamba2"), None)
        if own is None:
            return found
        return {
            **found,
            "num_heads": own.widths(d_model)[1],
            "head_dim": own.head_dim,
            "expand": int(own.expand) if own.expand == int(own.expand) else own.expand,
            "state_size": own.d_state,
            "n_groups": own.n_groups,
            "conv_kernel": own.d_conv,
            "chunk_size": own.chunk_size or 256,
            "use_bias": own.bias,
            "use_conv_bias": own.conv_bias,
            "time_step_limit": hf_names.time_step_limit(own.dt_limit),
        }
