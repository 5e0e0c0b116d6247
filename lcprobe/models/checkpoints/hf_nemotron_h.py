"""Checkpoints of transformers' Nemotron-H in its dense shapes: layers of Mamba-2, of attention without positions, and
of an MLP, each with its own norm.

A layer of ours is a mixer with the MLP behind it, if one follows. Experts are refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, NotCovered, Place
from lcprobe.models.checkpoints.mamba_ssm_mixers import mixer_places
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.parts import parts_of, resolved_sizes

MIXERS = {"linear_attention": "mamba2", "mamba": "mamba2", "full_attention": "attention", "attention": "attention"}
"""Our mixers by type of layer, in the names of this and of earlier versions."""
LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
MLP, EMBEDDING = "mlp", "backbone.embeddings.weight"


class HFNemotronH(Format[FormatConfig]):
    """transformers' Nemotron-H."""

    Config = FormatConfig
    name = "hf_nemotron_h"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") == "nemotron_h"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        hf_names.unquantised(keys)
        covered = {"mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "sliding_window": None, "use_bias": False}
        for key, value in covered.items():
            keys.only(key, value, default=value)
        d_model, eps = keys.whole("hidden_size", least=1), keys.number("layer_norm_epsilon", 1e-5)
        layout = _layout(keys)
        mixers: dict[str, Any] = {}
        if any(block.startswith("mamba2") for block in layout):
            heads, head_dim = keys.whole("mamba_num_heads", least=1), keys.whole("mamba_head_dim", least=1)
            mixers["mamba2"] = {
                "head_dim": head_dim,
                "expand": heads * head_dim / d_model,
                "d_state": keys.whole("ssm_state_size", least=1),
                "n_groups": keys.whole("n_groups", least=1),
                "d_conv": keys.whole("conv_kernel", 4, least=1),
                "bias": keys.flag("mamba_proj_bias", False),
                "conv_bias": keys.flag("use_conv_bias", True),
                "dt_limit": keys.limits("time_step_limit"),
                "norm_eps": eps,
            }
        if any(block.startswith("attention") for block in layout):
            keys.only("attention_bias", False, default=False)
            mixers["attention"] = {
                "n_heads": keys.whole("num_attention_heads", least=1),
                "n_kv_heads": keys.whole("num_key_value_heads", least=1),
                "head_dim": keys.whole("head_dim", 128, least=1),
                "positional": "none",
            }
        return {
            "layout": ", ".join(layout),
            "d_model": d_model,
            "d_ff": keys.whole("intermediate_size", least=1),
            "mixers": mixers,
            "mlp": {"type": "relu2", "bias": keys.flag("mlp_bias", False)},
            "norm_eps": eps,
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", False),
            "residual_in_fp32": keys.flag("residual_in_fp32", False),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, theirs_at = resolved_sizes(config)[0], 0
        places = {EMBEDDING: Place("embedding.weight"), "backbone.norm_f.weight": Place("norm.weight")}
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"backbone.layers.{theirs_at}", f"blocks.{i}"
            places[f"{theirs}.norm.weight"] = Place(f"{ours}.norm.weight")
            if isinstance(layer.config, AttentionConfig):
                places |= hf_names.attention(f"{theirs}.mixer", f"{ours}.mixer", layer.config, d_model)
            else:
                places |= mixer_places(layer, f"{theirs}.mixer.", f"{ours}.mixer.")
            theirs_at += 1
            if layer.mlp is not None:
                theirs = f"backbone.layers.{theirs_at}"
                places[f"{theirs}.norm.weight"] = Place(f"{ours}.norm2.weight")
                for part in ("weight", "bias") if layer.mlp.config.bias else ("weight",):
                    places[f"{theirs}.mixer.up_proj.{part}"] = Place(f"{ours}.mlp.in_proj.{part}")
                    places[f"{theirs}.mixer.down_proj.{part}"] = Place(f"{ours}.mlp.out_proj.{part}")
                theirs_at += 1
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config, EMBEDDING)

    def ignored(self, name: str) -> bool:
        """See Format: the prediction of several tokens."""
        return name.startswith("mtp.")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        mamba: Any = next((layer.config for layer in layers if layer.kind == "mamba2"), None)
        full: Any = next((layer.config for layer in layers if layer.kind == "attention"), None)
        mlp = next((layer.mlp for layer in layers if layer.mlp is not None), None)
        kinds: list[str] = []
        for layer in layers:
            kinds += ["full_attention" if layer.kind == "attention" else "linear_attention"]
            kinds += [] if layer.mlp is None else [MLP]
        found = {
            "architectures": ["NemotronHForCausalLM"],
            "model_type": "nemotron_h",
            **hf_names.common(config),
            "layers_block_type": kinds,
            "intermediate_size": d_ff,
            "mlp_hidden_act": "relu2",
            "mlp_bias": bool(mlp is not None and mlp.name == "relu2" and mlp.config.bias),
            "layer_norm_epsilon": config.norm_eps,
            "residual_in_fp32": config.residual_in_fp32,
            "max_position_embeddings": config.context_length or 4096,
        }
        if full is not None:
            n_heads, n_kv_heads = full.heads(d_model)
            found |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "head_dim": full.head_dim}
        if mamba is not None:
            found |= {"mamba_num_heads": mamba.widths(d_model)[1], "mamba_head_dim": mamba.head_dim}
            found |= {"ssm_state_size": mamba.d_state, "n_groups": mamba.n_groups, "conv_kernel": mamba.d_conv}
            found |= {"mamba_proj_bias": mamba.bias, "use_conv_bias": mamba.conv_bias}
            found["time_step_limit"] = hf_names.time_step_limit(mamba.dt_limit)
        return found


def _layout(keys: Keys) -> list[str]:
    """Our blocks. Raises NotCovered for experts, and for MLPs that do not follow a mixer."""
    if keys.given("layers_block_type") is None:
        key, letters = "hybrid_override_pattern", keys.text("hybrid_override_pattern")
        kinds = [LETTERS.get(letter, letter) for letter in letters]
    else:
        key, kinds = "layers_block_type", keys.items("layers_block_type")
    return list(_blocks(keys, key, kinds))


def _blocks(keys: Keys, key: str, kinds: list[str]) -> Iterator[str]:
    known = {*MIXERS, MLP}
    if not kinds:
        raise keys.wrong(key, "at least one layer")
    for kind, before in zip(kinds, [MLP, *kinds], strict=False):
        if not isinstance(kind, str) or kind not in known or kind == before == MLP:
            raise keys.wrong(
                key, f"layers of {' | '.join(LETTERS[x] for x in 'M*-')}, MLPs behind mixers", NotCovered
            )
    for kind, after in zip(kinds, [*kinds[1:], ""], strict=True):
        if kind != MLP:
            yield f"{MIXERS[kind]}+mlp" if after == MLP else MIXERS[kind]
