"""Checkpoints of transformers' RecurrentGemma: Griffin, whose blocks recur or attend to a window.

Its config.json counts both branches of the MLP in intermediate_size. Its window of W shows W keys, where the code
that Google trained its models with shows W + 1: `window` says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of, resolved_sizes

LOCAL, RECURRENT = "attention", "recurrent"


@dataclass(frozen=True)
class RecurrentGemmaConfig(FormatConfig):
    """How the window is counted, which these checkpoints do not say."""

    window: Literal["transformers", "google"] = "transformers"
    """Keys that a window of W shows, the token's own included: W (transformers), or W + 1 as in training (google)."""


class HFRecurrentGemma(Format[RecurrentGemmaConfig]):
    """transformers' RecurrentGemma."""

    Config = RecurrentGemmaConfig
    name = "hf_recurrent_gemma"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") == "recurrent_gemma"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        hf_names.unquantised(keys)
        keys.only("hidden_activation", "gelu_pytorch_tanh", default="gelu_pytorch_tanh")
        d_model, heads = keys.whole("hidden_size", least=1), keys.whole("num_attention_heads", least=1)
        if d_model % heads:
            raise keys.wrong("num_attention_heads", f"a divisor of hidden_size ({d_model})")
        keys.only("head_dim", d_model // heads, default=d_model // heads)
        kv_heads, width = keys.given("num_key_value_heads"), keys.given("lru_width")
        width = d_model if width is None else keys.whole("lru_width", least=1)
        both = keys.whole("intermediate_size", least=2)
        pattern = keys.names("block_types", (RECURRENT, LOCAL), [RECURRENT, RECURRENT, LOCAL])
        kinds = (pattern * 100)[: keys.layers()]
        mixers: dict[str, Any] = {}
        if RECURRENT in kinds:
            d_conv = keys.whole("conv1d_width", 4, least=2)
            mixers["rg_lru"] = {"expand": width / d_model, "n_blocks": heads, "d_conv": d_conv}
        if LOCAL in kinds:
            mixers["local"] = {
                "type": "attention",
                "n_heads": heads,
                "n_kv_heads": heads if kv_heads is None else keys.whole("num_key_value_heads", least=1),
                "head_dim": d_model // heads,
                "window": keys.whole("attention_window_size", 2048, least=1),
                "window_counts_self": self.config.window == "transformers",
                "bias": keys.flag("attention_bias", False),
                "output_bias": True,
                "positional": hf_names.rope(keys, 0.5),
            }
        return {
            "layout": ", ".join("local+mlp" if kind == LOCAL else "rg_lru+mlp" for kind in kinds),
            "d_model": d_model,
            "d_ff": both // 2,
            "mixers": mixers,
            "mlp": {"type": "geglu", "bias": True},
            "norm": "zero_centred_rms",
            "norm_eps": keys.number("rms_norm_eps", 1e-6),
            "embedding_scale": "sqrt_d_model_bf16",
            "logit_soft_cap": keys.number("logits_soft_cap", 30.0),
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", True),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, d_ff, _ = resolved_sizes(config)
        places = hf_names.outer(config, "model.final_norm")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours, own = f"model.layers.{i}", f"blocks.{i}", layer.config
            places[f"{theirs}.temporal_pre_norm.weight"] = Place(f"{ours}.norm.weight")
            places[f"{theirs}.channel_pre_norm.weight"] = Place(f"{ours}.norm2.weight")
            places |= hf_names.gated_mlp(f"{theirs}.mlp_block", f"{ours}.mlp", d_ff, bias=True)
            mixer = hf_names.attention if layer.kind == "attention" else rg_lru
            places |= mixer(f"{theirs}.temporal_block", f"{ours}.mixer", own, d_model)  # type: ignore[operator]
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config)

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        local: Any = next((layer.config for layer in layers if layer.kind == "attention"), None)
        recurrent: Any = next((layer.config for layer in layers if layer.kind == "rg_lru"), None)
        found = {
            "architectures": ["RecurrentGemmaForCausalLM"],
            "model_type": "recurrent_gemma",
            **hf_names.common(config),
            "num_hidden_layers": len(layers),
            "intermediate_size": 2 * d_ff,
            "block_types": [LOCAL if layer.kind == "attention" else RECURRENT for layer in layers],
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": config.norm_eps,
            "logits_soft_cap": config.logit_soft_cap or 0.0,
            "num_attention_heads": 1,
        }
        if recurrent is not None:
            found |= {"num_attention_heads": recurrent.n_blocks, "lru_width": recurrent.width(d_model)}
            found["conv1d_width"] = recurrent.d_conv
        if local is not None:
            n_heads, n_kv_heads = local.heads(d_model)
            found |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "head_dim": local.head_dim}
            found |= {"attention_window_size": local.window or 0, "attention_bias": local.bias}
            found["rope_parameters"] = hf_names.rope_parameters(local.positional)
        return found


def rg_lru(theirs: str, ours: str, config: Any, d_model: int) -> dict[str, Place]:
    """The places of a recurrent block's tensors: two branches, a convolution, and gates by blocks."""
    width, blocks = config.width(d_model), config.n_blocks
    block = width // blocks
    places = {
        f"{theirs}.conv_1d.weight": Place(f"{ours}.conv_weight", ones=(1,)),
        f"{theirs}.conv_1d.bias": Place(f"{ours}.conv_bias"),
        f"{theirs}.rg_lru.recurrent_param": Place(f"{ours}.a_param"),
    }
    for part in ("weight", "bias"):
        places[f"{theirs}.linear_y.{part}"] = Place(f"{ours}.in_proj.{part}", slice(0, width))
        places[f"{theirs}.linear_x.{part}"] = Place(f"{ours}.in_proj.{part}", slice(width, 2 * width))
        places[f"{theirs}.linear_out.{part}"] = Place(f"{ours}.out_proj.{part}")
    for name, first in (("input_gate", 0), ("recurrent_gate", block)):
        columns = slice(first, first + block)
        places[f"{theirs}.rg_lru.{name}_weight"] = Place(f"{ours}.gate_weight", columns=columns)
        rows = (torch.arange(blocks)[:, None] * 2 * block + torch.arange(first, first + block)).flatten()
        places[f"{theirs}.rg_lru.{name}_bias"] = Place(f"{ours}.gate_bias", rows, folded=(blocks, block))
    return places
