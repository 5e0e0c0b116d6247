"""Checkpoints of transformers' Llama and its siblings that differ in few settings: Mistral (a window), Qwen2 (biases
of q, k, v), Qwen3 (norms of queries and keys).

Rescaled RoPE frequencies, as in Llama 3.1, are not covered.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.parts import parts_of, resolved_sizes

CLASSES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
           "qwen3": "Qwen3ForCausalLM"}  # fmt: skip
FULL, LOCAL = "full_attention", "sliding_attention"


class HFLlama(Format[FormatConfig]):
    """transformers' Llama, Mistral, Qwen2 and Qwen3."""

    Config = FormatConfig
    name = "hf_llama"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") in CLASSES

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        kind = keys.text("model_type")
        hf_names.unquantised(keys)
        keys.only("hidden_act", "silu", default="silu")
        d_model, n_heads = keys.whole("hidden_size", least=1), keys.whole("num_attention_heads", least=1)
        kv_heads, head_dim = keys.given("num_key_value_heads"), keys.given("head_dim")
        if head_dim is None and d_model % n_heads:
            raise keys.wrong("num_attention_heads", f"a divisor of hidden_size ({d_model}), or set head_dim")
        bias = keys.flag("attention_bias", kind == "qwen2")
        attention = {
            "type": "attention",
            "n_heads": n_heads,
            "n_kv_heads": n_heads if kv_heads is None else keys.whole("num_key_value_heads", least=1),
            "head_dim": d_model // n_heads if head_dim is None else keys.whole("head_dim", least=1),
            "bias": bias,
            "output_bias": bias and kind != "qwen2",
            "qk_norm": kind == "qwen3",
            "norm_eps": keys.number("rms_norm_eps"),
            "positional": hf_names.rope(keys),
        }
        layers, window = _layers(keys, kind)
        mixers = {"attention": attention}
        if LOCAL in layers:
            mixers["local"] = {**attention, "window": window}
        names = ["local+mlp" if kind == LOCAL else "attention+mlp" for kind in layers]
        return {
            "layout": names[0] if len(set(names)) == 1 else ", ".join(names),
            "n_layers": len(names),
            "d_model": d_model,
            "d_ff": keys.whole("intermediate_size", least=1),
            "mixers": {name: own for name, own in mixers.items() if f"{name}+mlp" in names},
            "mlp": {"type": "swiglu", "bias": keys.flag("mlp_bias", False)},
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", False),
            "norm_eps": keys.number("rms_norm_eps"),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, d_ff, _ = resolved_sizes(config)
        places = hf_names.outer(config)
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours, own = f"model.layers.{i}", f"blocks.{i}", layer.config
            places[f"{theirs}.input_layernorm.weight"] = Place(f"{ours}.norm.weight")
            places[f"{theirs}.post_attention_layernorm.weight"] = Place(f"{ours}.norm2.weight")
            places |= hf_names.attention(f"{theirs}.self_attn", f"{ours}.mixer", own, d_model)  # type: ignore[arg-type]
            assert layer.mlp is not None
            places |= hf_names.gated_mlp(f"{theirs}.mlp", f"{ours}.mlp", d_ff, layer.mlp.config.bias)
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config)

    def ignored(self, name: str) -> bool:
        """See Format."""
        return name.endswith("rotary_emb.inv_freq")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format: the class of these that has the model's biases, norms and windows."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        own = next((layer.config for layer in layers if isinstance(layer.config, AttentionConfig)), None)
        found = {**hf_names.common(config), "num_hidden_layers": len(layers), "intermediate_size": d_ff}
        found |= {"hidden_act": "silu", "rms_norm_eps": config.norm_eps}
        if own is None:
            return {**found, "model_type": "llama", "num_attention_heads": 1}
        windows = [c.window if isinstance(c, AttentionConfig) else None for c in (layer.config for layer in layers)]
        kind = "qwen3" if own.qk_norm else "qwen2" if own.bias and not own.has_output_bias else "llama"
        if any(windows):
            kind = "mistral" if kind == "llama" and all(windows) else kind if kind != "llama" else "qwen3"
            found["sliding_window"] = next(window for window in windows if window)
            if kind != "mistral":
                found |= {"use_sliding_window": True, "layer_types": [LOCAL if w else FULL for w in windows]}
        elif kind != "llama":
            found |= {"use_sliding_window": False, "sliding_window": None}
        mlp = layers[0].mlp
        if kind == "llama":
            found["mlp_bias"] = bool(mlp is not None and mlp.name == "swiglu" and mlp.config.bias)
        if kind in ("llama", "qwen3"):
            found["attention_bias"] = own.bias
        n_heads, n_kv_heads = own.heads(d_model)
        return {
            "architectures": [CLASSES[kind]],
            "model_type": kind,
            **found,
            "num_attention_heads": n_heads,
            "num_key_value_heads": n_kv_heads,
            "head_dim": own.head_dim,
            "rope_parameters": hf_names.rope_parameters(own.positional),
            "max_position_embeddings": config.context_length or own.context_length or 2048,
        }


def _layers(keys: Keys, kind: str) -> tuple[list[str], int | None]:
    """The kind of every layer, and the window of the local ones."""
    n_layers = keys.layers()
    window = keys.given("sliding_window")
    uses = kind == "mistral" or (kind != "llama" and keys.flag("use_sliding_window", False))
    if not uses or window is None:
        return [FULL] * n_layers, None
    window = keys.whole("sliding_window", least=1)
    if kind == "mistral":
        return [LOCAL] * n_layers, window
    if keys.given("layer_types") is None:
        first = keys.whole("max_window_layers", 28)
        return [LOCAL if i >= first else FULL for i in range(n_layers)], window
    types = keys.names("layer_types", (FULL, LOCAL))
    if len(types) != n_layers:
        raise keys.wrong("layer_types", f"{n_layers} of {FULL} | {LOCAL}")
    return types, window
