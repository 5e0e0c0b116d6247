"""Small models of every shape that a format can express, with noise on all weights."""

from typing import Any

import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build

VOCAB = 61
ROPE = {"type": "rope", "fraction": 0.5}
ATTENTION = {"n_heads": 3, "head_dim": 8}
MAMBA2 = {"head_dim": 8, "d_state": 5}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba1": ("mamba_ssm", {"layout": "mamba1", "n_layers": 2, "mixers": {"mamba1": {"d_state": 4}}}),
    "mamba2": ("mamba_ssm", {"layout": "mamba2", "n_layers": 2, "mixers": {"mamba2": MAMBA2}}),
    "mamba2, untied": ("mamba_ssm", {"layout": "mamba2", "n_layers": 2, "tie_embeddings": False, "norm": "layer",
                                     "mixers": {"mamba2": {**MAMBA2, "bias": True, "n_groups": 2}}}),
    "mamba2attn": ("mamba_ssm", {"layout": "mamba2", "n_layers": 3, "attn_layer_idx": [1], "mixers": {
        "mamba2": MAMBA2, "attention": {**ATTENTION, "d_conv": 4, "positional": ROPE}}}),
    "mamba2attn, MLPs": ("mamba_ssm", {"layout": "mamba2+mlp", "n_layers": 3, "attn_layer_idx": [0, 2], "d_ff": 128,
                                       "mixers": {"mamba2": MAMBA2, "attention": {"n_heads": 4, "n_kv_heads": 2,
                                                                                  "head_dim": 8, "bias": True,
                                                                                  "positional": "none"}}}),
    "transformerpp": ("mamba_ssm", {"layout": "attention+mlp", "n_layers": 2, "d_ff": 128,
                                    "mixers": {"attention": ATTENTION}}),
    "mamba3": ("mamba_ssm", {"layout": "mamba3+mlp", "n_layers": 2, "d_ff": 128, "mixers": {
        "mamba3": {"definition": "heavy_tail", "head_dim": 8, "d_state": 6, "output_norm": True}}}),
    "llama": ("hf_llama", {"layout": "attention+mlp", "n_layers": 2, "d_ff": 40, "mixers": {"attention": ATTENTION}}),
    "llama, biases": ("hf_llama", {"layout": "attention+mlp", "n_layers": 2, "d_ff": 40, "tie_embeddings": False,
                                   "mlp": {"type": "swiglu", "bias": True},
                                   "mixers": {"attention": {"n_heads": 4, "n_kv_heads": 2, "head_dim": 6,
                                                            "bias": True,
                                                            "positional": {"type": "rope", "base": 5e5}}}}),
    "mistral": ("hf_llama", {"layout": "attention+mlp", "n_layers": 2, "d_ff": 40,
                             "mixers": {"attention": {**ATTENTION, "window": 7}}}),
    "qwen2": ("hf_llama", {"layout": "attention+mlp", "n_layers": 2, "d_ff": 40,
                           "mixers": {"attention": {**ATTENTION, "bias": True, "output_bias": False}}}),
    "qwen3, windows": ("hf_llama", {"layout": "attention+mlp, local+mlp x 2", "d_ff": 40, "mixers": {
        "attention": {**ATTENTION, "qk_norm": True, "norm_eps": 1e-5},
        "local": {"type": "attention", **ATTENTION, "qk_norm": True, "norm_eps": 1e-5, "window": 7}}}),
    "hf_mamba2": ("hf_mamba2", {"layout": "mamba2", "n_layers": 2, "mixers": {"mamba2": {**MAMBA2, "d_conv": 3}}}),
}  # fmt: skip
"""By name: the format, and `model:`."""


def tiny(shape: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """One of SHAPES."""
    sizes = {"vocab_size": VOCAB, "d_model": 24}
    model = LanguageModel(build(ModelConfig, {**sizes, **SHAPES[shape][1]}, "model")).initialise(0)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return model.to(dtype).eval()
