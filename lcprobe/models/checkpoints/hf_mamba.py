"""Checkpoints of transformers' Mamba: mamba_ssm's tensors, the embedding under another name; and of FalconMamba,
which also norms what step sizes, B and C are made of.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.checkpoints.hf_mamba2 import EMBEDDING, HFMamba2
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of, resolved_sizes

PLAIN, FALCON = "mamba", "falcon_mamba"


class HFMamba(Format[FormatConfig]):
    """transformers' Mamba and FalconMamba."""

    Config = FormatConfig
    name = "hf_mamba"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") in (PLAIN, FALCON)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        hf_names.unquantised(keys)
        keys.only("hidden_act", "silu", default="silu")
        d_model, rank = keys.whole("hidden_size", least=1), keys.given("time_step_rank")
        mixer = {
            "expand": keys.number("expand", 2),
            "d_state": keys.whole("state_size", 16, least=1),
            "d_conv": keys.whole("conv_kernel", 4, least=2),
            "dt_rank": math.ceil(d_model / 16) if rank in (None, "auto") else keys.whole("time_step_rank", least=1),
            "bias": keys.flag("use_bias", False),
            "conv_bias": keys.flag("use_conv_bias", True),
        }
        if keys.text("model_type") == FALCON:
            mixer["input_norm_eps"] = keys.number("mixer_rms_eps", 1e-6)
        return {
            "layout": "mamba1",
            "n_layers": keys.layers(),
            "d_model": d_model,
            "mixers": {"mamba1": mixer},
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", True),
            "residual_in_fp32": keys.flag("residual_in_fp32", True),
            "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format: as in transformers' Mamba2."""
        return HFMamba2(FormatConfig()).places(config)

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config, EMBEDDING)

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, _, _), layers = resolved_sizes(config), parts_of(config).layers
        own: Any = next((layer.config for layer in layers if layer.kind == "mamba1"), None)
        falcon = own is not None and own.input_norm_eps is not None
        found = {
            "architectures": ["FalconMambaForCausalLM" if falcon else "MambaForCausalLM"],
            "model_type": FALCON if falcon else PLAIN,
            **hf_names.common(config),
            "num_hidden_layers": len(layers),
            "layer_norm_epsilon": config.norm_eps,
            "residual_in_fp32": config.residual_in_fp32,
            "hidden_act": "silu",
        }
        if own is None:
            return found
        if falcon:
            found["mixer_rms_eps"] = own.input_norm_eps
        d_inner, rank = own.widths(d_model)
        return {
            **found,
            "expand": int(own.expand) if own.expand == int(own.expand) else own.expand,
            "intermediate_size": d_inner,
            "state_size": own.d_state,
            "conv_kernel": own.d_conv,
            "time_step_rank": rank,
            "use_bias": own.bias,
            "use_conv_bias": own.conv_bias,
        }
