"""Checkpoints of transformers' xLSTM (xLSTM-7B): blocks of mLSTM and a gated MLP.

The width of MLPs is rounded up to a multiple of `ffn_round_up_to_multiple_of`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of, resolved_sizes


class HFxLSTM(Format[FormatConfig]):
    """transformers' xLSTM."""

    Config = FormatConfig
    name = "hf_xlstm"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") == "xlstm"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        hf_names.unquantised(keys)
        for key, covered in {"use_bias": False, "add_out_norm": True, "weight_mode": "single"}.items():
            keys.only(key, covered, default=covered)
        d_model = keys.whole("hidden_size" if "hidden_size" in config else "embedding_dim", least=1)
        n_layers = keys.layers("num_hidden_layers" if "num_hidden_layers" in config else "num_blocks")
        heads = keys.whole("num_heads", least=1)
        qk = int(d_model * keys.number("qk_dim_factor", 0.5))
        v = int(d_model * keys.number("v_dim_factor", 1.0))
        for key, width in (("qk_dim_factor", qk), ("v_dim_factor", v)):
            if width % heads:
                raise keys.wrong(key, f"one that gives a width (now {width}) that num_heads ({heads}) divides")
        multiple = keys.whole("ffn_round_up_to_multiple_of", 64, least=1)
        d_ff = int((d_model * keys.number("ffn_proj_factor", 2.667) + multiple - 1) // multiple) * multiple
        mixer = {
            "head_dim": qk // heads,
            "expand": qk / d_model,
            "expand_v": v / d_model,
            "gate_soft_cap": keys.number("gate_soft_cap", 15.0),
            "eps": keys.number("eps", 1e-6),
            "norm_eps": keys.number("norm_eps", 1e-6),
        }
        return {
            "layout": "mlstm+mlp",
            "n_layers": n_layers,
            "d_model": d_model,
            "d_ff": d_ff,
            "mixers": {"mlstm": mixer},
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", False),
            "logit_soft_cap": keys.number("output_logit_soft_cap", 30.0),
            "norm_eps": keys.number("norm_eps", 1e-6),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, d_ff, _ = resolved_sizes(config)
        places = {"backbone.embeddings.weight": Place("embedding.weight")}
        places["backbone.out_norm.weight"] = Place("norm.weight")
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours, own = f"backbone.blocks.{i}.", f"blocks.{i}.", layer.config
            w = own.widths(d_model)  # type: ignore[attr-defined]
            cell, ffn = f"{theirs}mlstm_layer.", f"{theirs}ffn."
            places |= {
                f"{theirs}norm_mlstm.weight": Place(f"{ours}norm.weight"),
                f"{theirs}norm_ffn.weight": Place(f"{ours}norm2.weight"),
                f"{ffn}proj_up.weight": Place(f"{ours}mlp.up_gate.weight", slice(0, d_ff)),
                f"{ffn}proj_up_gate.weight": Place(f"{ours}mlp.up_gate.weight", slice(d_ff, 2 * d_ff)),
                f"{ffn}proj_down.weight": Place(f"{ours}mlp.out_proj.weight"),
                f"{cell}multihead_norm.weight": Place(f"{ours}mixer.norm_weight"),
                f"{cell}out_proj.weight": Place(f"{ours}mixer.out_proj.weight"),
            }
            parts = {"q": w.keys, "k": w.keys, "v": w.values, "ogate_preact": w.values}
            places |= hf_names.joint(cell, f"{ours}mixer.in_proj.weight", parts)
            for part in ("weight", "bias"):
                gates = {"igate_preact": w.n_heads, "fgate_preact": w.n_heads}
                places |= hf_names.joint(cell, f"{ours}mixer.gate_proj.{part}", gates, part)
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config, "backbone.embeddings.weight")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        own: Any = next((layer.config for layer in layers if layer.kind == "mlstm"), None)
        found = {
            "architectures": ["xLSTMForCausalLM"],
            "model_type": "xlstm",
            **hf_names.common(config),
            "num_hidden_layers": len(layers),
            "output_logit_soft_cap": config.logit_soft_cap or 0.0,
            "norm_eps": config.norm_eps,
            "ffn_proj_factor": d_ff / d_model,
            "ffn_round_up_to_multiple_of": d_ff,
            "num_heads": 1,
        }
        if own is None:
            return found
        w = own.widths(d_model)
        return {
            **found,
            "num_heads": w.n_heads,
            "qk_dim_factor": own.expand,
            "v_dim_factor": own.expand_v,
            "gate_soft_cap": own.gate_soft_cap,
            "eps": own.eps,
        }
