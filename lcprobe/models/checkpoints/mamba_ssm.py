"""Checkpoints of state-spaces/mamba (models/mixer_seq_simple.py): Mamba, Mamba-2 and Mamba-3 models, hybrids with
attention, and Transformer++.

config.json has no model_type but `ssm_cfg`. Attention projects q, k, v together and may convolve them, with a bias
and without an activation; the width of MLPs is rounded up to a multiple of 128, and `fc1` gives the value first, then
the gate.

Mamba-3 checkpoints do not say which of two functions they were trained with (see mixers/mamba3.py): the setting
`definition` must.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lcprobe.errors import CheckpointError
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.checkpoints.mamba_ssm_mixers import (
    RUNTIME,
    STATE_SPACES,
    attention_config,
    attention_settings,
    mixer_places,
)
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.parts import parts_of, resolved_sizes

MLP_MULTIPLE = 128


@dataclass(frozen=True)
class MambaSSMConfig(FormatConfig):
    """What these checkpoints do not say."""

    definition: Literal["softplus", "heavy_tail"] | None = None
    """The function that a Mamba-3 checkpoint was trained with: softplus (mamba-ssm 2.3.2, also
    flash-linear-attention 0.6.0), or heavy_tail (mamba from June 2026); null: refuse such a checkpoint."""


class MambaSSM(Format[MambaSSMConfig]):
    """state-spaces/mamba."""

    Config = MambaSSMConfig
    name = "mamba_ssm"
    writes_copies = True

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        n_layer, d_model = keys.layers("n_layer"), keys.whole("d_model", least=1)
        ssm, attention_at = keys.section("ssm_cfg"), keys.items("attn_layer_idx", [])
        for i in attention_at:
            if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < n_layer:
                raise keys.wrong("attn_layer_idx", f"layers 0 .. {n_layer - 1}")
        attention_at = sorted(set(attention_at))
        by_layer = {own.layer: name for name, own in STATE_SPACES.items()}
        mixer = by_layer[ssm.only("layer", *by_layer, default="Mamba1")]
        mixers: dict[str, Any] = {}
        if len(attention_at) < n_layer:
            mixers[mixer] = self._state_space(mixer, ssm)
        if attention_at:
            mixers["attention"] = attention_settings(keys.section("attn_cfg"), d_model)
        d_ff = keys.whole("d_intermediate", 0)
        main = mixer if len(attention_at) < n_layer else "attention"
        multiple = keys.whole("pad_vocab_size_multiple", 8, least=1)
        settings = {
            "layout": f"{main}+mlp" if d_ff else main,
            "n_layers": n_layer,
            "attn_layer_idx": attention_at if attention_at and main != "attention" else None,
            "d_model": d_model,
            "d_ff": -(-d_ff // MLP_MULTIPLE) * MLP_MULTIPLE if d_ff else None,
            "mixers": mixers,
            "norm": "rms" if keys.flag("rms_norm", True) else "layer",
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": multiple,
            "tie_embeddings": keys.flag("tie_embeddings", True),
            "residual_in_fp32": keys.flag("residual_in_fp32", True),
            "norm_eps": keys.number("norm_epsilon", 1e-5),
        }
        keys.no_others(("attn_cfg", "fused_add_norm", "initializer_cfg", "architectures", "torch_dtype", "dtype"))
        return settings

    def _state_space(self, mixer: str, keys: Keys) -> dict[str, Any]:
        """Settings of the state-space mixer, from ssm_cfg."""
        settings = STATE_SPACES[mixer].settings(keys)
        keys.no_others(RUNTIME)
        if mixer != "mamba3":
            return settings
        if self.config.definition is None:
            raise CheckpointError(
                "config.json: ssm_cfg.layer: given 'Mamba3', of which two releases differ; allowed: with the "
                "setting definition: softplus (mamba-ssm 2.3.2) | heavy_tail (mamba from June 2026)"
            )
        return {**settings, "definition": self.config.definition}

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        places = dict(_norm("backbone.norm_f", "norm", config))
        places["backbone.embedding.weight"] = Place("embedding.weight")
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"backbone.layers.{i}.", f"blocks.{i}."
            places |= _norm(f"{theirs}norm", f"{ours}norm", config)
            places |= mixer_places(layer, f"{theirs}mixer.", f"{ours}mixer.")
            if layer.mlp is not None:
                places |= _norm(f"{theirs}norm2", f"{ours}norm2", config)
                places[f"{theirs}mlp.fc1.weight"] = Place(f"{ours}mlp.up_gate.weight")
                places[f"{theirs}mlp.fc2.weight"] = Place(f"{ours}mlp.out_proj.weight")
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return {"lm_head.weight": "backbone.embedding.weight"} if config.tie_embeddings else {}

    def ignored(self, name: str) -> bool:
        """See Format."""
        return name.endswith("rotary_emb.inv_freq")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        layers, (d_model, d_ff, vocab_size) = parts_of(config).layers, resolved_sizes(config)
        has_mlp = any(layer.mlp is not None for layer in layers)
        attention = {i: layer.config for i, layer in enumerate(layers) if isinstance(layer.config, AttentionConfig)}
        attn_cfg = next((attention_config(own, d_model) for own in attention.values()), {})
        ssm = next((layer for layer in layers if layer.kind in STATE_SPACES), None)
        own = None if ssm is None else STATE_SPACES[ssm.kind]
        ssm_cfg = {} if ssm is None or own is None else {"layer": own.layer, **own.config(ssm.config)}
        return {
            "d_model": d_model,
            "d_intermediate": d_ff if has_mlp else 0,
            "n_layer": len(layers),
            "vocab_size": vocab_size,
            "ssm_cfg": ssm_cfg,
            "attn_layer_idx": list(attention),
            "attn_cfg": attn_cfg,
            "rms_norm": config.norm.name == "rms",
            "residual_in_fp32": config.residual_in_fp32,
            "fused_add_norm": True,
            "pad_vocab_size_multiple": config.vocab_multiple,
            "tie_embeddings": config.tie_embeddings,
        }


def _norm(theirs: str, ours: str, config: ModelConfig) -> dict[str, Place]:
    parts = ("weight", "bias") if config.norm.name == "layer" else ("weight",)
    return {f"{theirs}.{part}": Place(f"{ours}.{part}") for part in parts}
