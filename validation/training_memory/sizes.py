"""Models whose steps are measured: a few layers that are computed, and the shapes of 130 M and 2.7 B."""

from dataclasses import dataclass
from typing import Any

from lcprobe.models.config import ModelConfig
from lcprobe.schema import build


@dataclass(frozen=True)
class Size:
    """Models of one size, by architecture. attention: layers of the hybrid that have it; rows: of a process."""

    name: str
    d_model: int
    d_ff: int
    layers: int
    attention: tuple[int, ...]
    vocab: int
    seqlen: int
    rows: int
    head_dim: int
    d_state: int


ARCHITECTURES = ("mamba2", "hybrid", "transformerpp")
OF_HEADS = ("gla", "lightning", "mlstm", "delta_product", "gated_deltanet", "gdn2", "kda", "rwkv6", "rwkv7")
OTHER_MIXERS = ("mamba1", "mamba3", "rg_lru", *OF_HEADS)
"""Models of one mixer each, with MLPs: every mixer that no architecture has."""


def config_of(size: Size, model: str) -> ModelConfig:
    """The model of an architecture, or of a mixer, at a size."""
    n, heads = size.layers, {"head_dim": size.head_dim}
    mixers: dict[str, dict[str, Any]] = {
        "attention": heads,
        "mamba2": {"head_dim": 64, "d_state": size.d_state},
        "mamba3": {**heads, "d_state": size.d_state, "definition": "heavy_tail"},
        **dict.fromkeys(OF_HEADS, heads),
    }
    if model in ("mamba2", "hybrid"):
        layout = f"mamba2 x {n}"
    else:
        mixer = "attention" if model == "transformerpp" else model
        layout = f"{mixer}+{mixer if mixer.startswith('rwkv') else 'mlp'} x {n // 2}"
    given = {"layout": layout, "d_model": size.d_model, "d_ff": size.d_ff, "vocab_size": size.vocab, "mixers": mixers}
    if model == "hybrid":
        given["attn_layer_idx"] = list(size.attention)
    return build(ModelConfig, {**given, "context_length": size.seqlen}, "model")
