"""Cache and FLOPs of the attention layers of a transformers model, estimated from its config: without weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from lcprobe.models.cost import Cost

OTHER_STATES = ("kv_lora_rank", "state_size", "mamba_d_state", "ssm_cfg", "lru_width", "attention_hidden_size")
"""Settings of classes that cache something else than the keys and values of all layers: without types of layers, what
they cache is not known."""


def attention_cost(settings: Mapping[str, Any], types: Sequence[str] | None, length: int) -> Cost | None:
    """The FLOPs per token of scores and weighted values, a mean over the positions of a sequence, and the bytes of
    keys and values in float32; states of other layers are not counted. None: the config does not say.

    settings: of a config, by the names that transformers' classes share; types: of its layers; None: all are alike.
    """
    layers, heads = settings.get("num_hidden_layers"), settings.get("num_attention_heads")
    if types is None and any(settings.get(name) for name in OTHER_STATES):
        return None
    if types is not None and not any(_attends(kind) for kind in types):
        return None
    if not isinstance(layers, int) or not isinstance(heads, int) or settings.get("kv_lora_rank"):
        return None
    width = settings.get("head_dim") or (settings.get("hidden_size") or 0) // heads
    kv_heads, window = settings.get("num_key_value_heads") or heads, settings.get("sliding_window")
    if not isinstance(width, int) or not isinstance(kv_heads, int) or not width:
        return None
    total = Cost()
    for kind in types or ["full_attention"] * layers:
        if not _attends(kind):
            continue
        seen = min(length, window) if kind.startswith("sliding") and isinstance(window, int) else length
        mean = seen - seen * (seen - 1) / (2 * length)  # keys that a position sees
        total += Cost(flops=4.0 * heads * width * mean, kv_bytes=4 * 2 * kv_heads * width * seen)
    return total


def _attends(kind: str) -> bool:
    return "attention" in kind and "linear" not in kind
