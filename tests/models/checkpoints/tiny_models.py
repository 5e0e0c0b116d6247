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
LOCAL = {"type": "attention", "n_heads": 3, "n_kv_heads": 1, "head_dim": 8, "window": 7, "output_bias": True,
         "positional": ROPE}  # fmt: skip
GATED = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "qk_norm": True, "qk_norm_zero_centred": True,
         "output_gate": True, "positional": {"type": "rope", "fraction": 0.25}}  # fmt: skip
DELTA = {"head_dim": 6, "expand": 0.5, "expand_v": 1.0, "value_heads": 2, "norm_eps": 1e-6}
QWEN = {"layout": "gated_deltanet+mlp, attention+mlp", "d_ff": 40, "norm": "zero_centred_rms", "norm_eps": 1e-6,
        "mixers": {"gated_deltanet": DELTA, "attention": GATED}}  # fmt: skip
RWKV = {"n_layers": 2, "d_ff": 40, "norm": "layer", "embedding_norm": True, "tie_embeddings": False}
RWKV6 = {**RWKV, "layout": "rwkv6+mlp", "mlp": "rwkv6"}
RWKV7 = {"head_dim": 8, "d_decay": 3, "d_rate": 4, "d_value": 5, "d_gate": 6, "norm_eps": 8e-5}
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
    "hf_mamba": ("hf_mamba", {"layout": "mamba1", "n_layers": 2, "tie_embeddings": False,
                              "mixers": {"mamba1": {"d_state": 4, "bias": True, "dt_rank": 3}}}),
    "falcon_mamba": ("hf_mamba", {"layout": "mamba1", "n_layers": 2, "mixers": {"mamba1": {
        "d_state": 4, "input_norm_eps": 1e-5}}}),
    "griffin": ("hf_recurrent_gemma", {
        "layout": "rg_lru+mlp x 2, local+mlp, rg_lru+mlp", "d_ff": 40, "mlp": {"type": "geglu", "bias": True},
        "norm": "zero_centred_rms", "embedding_scale": "sqrt_d_model_bf16", "logit_soft_cap": 2.0,
        "mixers": {"rg_lru": {"expand": 1.5, "n_blocks": 3}, "local": LOCAL}}),
    "qwen3_next": ("hf_qwen3_next", QWEN),
    "qwen3_5_text": ("hf_qwen3_5_text", {**QWEN, "tie_embeddings": False}),
    "qwen3_5": ("hf_qwen3_5", QWEN),
    "bamba": ("hf_bamba", {
        "layout": "mamba2+mlp, attention+mlp", "d_ff": 40, "mlp": {"type": "swiglu", "bias": True}, "mixers": {
            "mamba2": {**MAMBA2, "n_groups": 2, "dt_limit": [0.0, 0.5]},
            "attention": {**ATTENTION, "positional": ROPE}}}),
    "nemotron_h": ("hf_nemotron_h", {
        "layout": "mamba2+mlp, mamba2, attention+mlp", "d_ff": 40, "mlp": {"type": "relu2", "bias": True},
        "residual_in_fp32": False, "tie_embeddings": False,
        "mixers": {"mamba2": {**MAMBA2, "conv_bias": False}, "attention": {**ATTENTION, "positional": "none"}}}),
    "xlstm": ("hf_xlstm", {"layout": "mlstm+mlp", "n_layers": 2, "d_ff": 37, "norm_eps": 1e-6, "logit_soft_cap": 9.0,
                           "tie_embeddings": False, "mixers": {"mlstm": {"head_dim": 6, "expand_v": 1.5}}}),
    "fla gla": ("fla", {"layout": "gla+mlp", "n_layers": 3, "attn_layer_idx": [1], "d_ff": 40, "mixers": {
        "gla": {"head_dim": 6}, "attention": {**ATTENTION, "bias": True, "output_bias": False, "window": 7}}}),
    "fla gated_deltanet": ("fla", {"layout": "gated_deltanet+mlp", "n_layers": 2, "d_ff": 40, "norm_eps": 1e-6,
                                   "mixers": {"gated_deltanet": DELTA}}),
    "fla delta_product": ("fla", {"layout": "delta_product+mlp", "n_layers": 2, "d_ff": 40, "tie_embeddings": False,
                                  "mixers": {"delta_product": {"head_dim": 8, "n_steps": 3}}}),
    "fla transformer": ("fla", {"layout": "attention+mlp", "n_layers": 2, "d_ff": 40, "mixers": {
        "attention": {**ATTENTION, "qk_norm": True, "norm_eps": 1e-5}}}),
    "rwkv6": ("rwkv_hub", {**RWKV6, "mixers": {"rwkv6": {"head_dim": 8, "d_mix": 32, "d_decay": 64}}}),
    "fla rwkv6": ("fla_rwkv", {**RWKV6, "mixers": {"rwkv6": {"head_dim": 8, "d_mix": 3, "d_decay": 5,
                                                             "norm_eps": 1e-5}}}),
    "fla rwkv7": ("fla_rwkv", {**RWKV, "layout": "rwkv7+mlp", "mlp": "rwkv7", "mixers": {"rwkv7": RWKV7}}),
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
