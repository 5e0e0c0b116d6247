"""RWKV-6 checkpoints on the hub that come with RWKV's own code for transformers (RWKV/rwkv-6-world-...): RWKV-LM's
tensors under other names, and a config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.checkpoints.rwkv import Names, native_places, rwkv_settings
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import padded_vocab, parts_of, resolved_sizes

HUB = Names("rwkv.embeddings", "rwkv.blocks.", "pre_ln", "attention", "feed_forward", "rwkv.ln_out")
WIDE = 4096
"""The width at which ranks are twice as large."""


class RWKVHub(Format[FormatConfig]):
    """RWKV-6 of the organisation RWKV on the hub."""

    Config = FormatConfig
    name = "rwkv_hub"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format: flash-linear-attention's RWKV-6 has the same model_type."""
        return config.get("model_type") == "rwkv6" and "head_size" in config

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        d_model, given = keys.whole("hidden_size", least=1), keys.given("intermediate_size")
        if keys.given("attention_hidden_size") is not None:
            keys.only("attention_hidden_size", d_model)
        keys.only("tie_word_embeddings", False, default=False)
        sizes = {
            "n_layers": keys.layers(),
            "d_model": d_model,
            "d_ff": int(d_model * 3.5 // 32 * 32) if given is None else keys.whole("intermediate_size", least=1),
            "vocab_size": keys.whole("vocab_size", least=1),
        }
        mixer = {
            "head_dim": keys.whole("head_size", 64, least=1),
            "d_mix": 64 if d_model == WIDE else 32,
            "d_decay": 128 if d_model == WIDE else 64,
            "norm_eps": 1e-5 * keys.whole("head_size_divisor", 8, least=1) ** 2,
        }
        return rwkv_settings("rwkv6", sizes, mixer) | {"norm_eps": keys.number("layer_norm_epsilon", 1e-5)}

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        return native_places(config, HUB)

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        own: Any = next((layer.config for layer in layers if layer.kind == "rwkv6"), None)
        return {
            "architectures": ["Rwkv6ForCausalLM"],
            "model_type": "rwkv6",
            "vocab_size": padded_vocab(config),
            "hidden_size": d_model,
            "attention_hidden_size": d_model,
            "intermediate_size": d_ff,
            "num_hidden_layers": len(layers),
            "head_size": 64 if own is None else own.head_dim,
            "head_size_divisor": 8 if own is None else round((own.norm_eps / 1e-5) ** 0.5),
            "layer_norm_epsilon": config.norm_eps,
            "tie_word_embeddings": False,
        }
