"""Tiny random models of transformers' classes: two to five layers, float32, eager, states that last."""

from typing import Any

import torch
from torch import nn

from validation.invariances.checks import VOCAB
from validation.oracles.mixers import perturbed, transformers_module

WIDTH, D_FF = 32, 40
LASTING = ("qwen3_next", "qwen3_5", "kimi_linear", "olmo_hybrid")
"""Classes whose initial decays forget within a few tokens: decays are set between 0.3 and 0.998."""
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
MAMBA_HEADS = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_expand": 2, "mamba_chunk_size": 8,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 2, "intermediate_size": D_FF, **HEADS},
    "mamba": {"num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8,
    },
    "jamba": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, **EXPERTS, "attn_layer_period": 4,
        "attn_layer_offset": 2, "mamba_d_state": 8, "use_mamba_kernels": False,
    },
    "bamba": {"num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, "attn_layer_indices": [2], **MAMBA_HEADS},
    "zamba2": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, "num_attention_heads": 4, "n_mamba_heads": 8,
        "mamba_d_state": 8, "chunk_size": 8, "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "use_mem_rope": True, "adapter_rank": 4, "use_mamba_kernels": False,
    },
    "falcon_h1": {"num_hidden_layers": 2, "intermediate_size": D_FF, **HEADS, "mamba_d_ssm": 64, **MAMBA_HEADS},
    "recurrent_gemma": {
        "num_hidden_layers": 3, "intermediate_size": 2 * D_FF, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 8, "lru_width": WIDTH, "attention_window_size": 16, "logits_soft_cap": 2.0,
    },
    "qwen3_next": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, "head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 0,
    },
    "kimi_linear": {
        "num_hidden_layers": 5, "intermediate_size": D_FF, "num_attention_heads": 4, "num_key_value_heads": 4,
        "linear_num_heads": 4, "linear_head_dim": 8, "mlp_layer_types": ["dense"] * 5, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
    },
    "minimax": {
        "num_hidden_layers": 3, "intermediate_size": D_FF, **HEADS, "head_dim": 8, "num_local_experts": 4,
        "num_experts_per_tok": 2, "block_size": 8,
    },
    "falcon_mamba": {"num_hidden_layers": 2, "state_size": 8},
    "granitemoehybrid": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": D_FF, "layer_types": ["linear_attention", "full_attention"] * 2, **MAMBA_HEADS,
    },
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"], "intermediate_size": D_FF, **HEADS,
        "head_dim": 8, "ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2, "chunk_size": 8,
    },
    "lfm2": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, "full_attn_idxs": [2], "block_multiple_of": 8,
    },
    "gpt_neox": {"num_hidden_layers": 2, "intermediate_size": D_FF, "num_attention_heads": 4},
    "qwen3_5": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, "head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "olmo_hybrid": {
        "num_hidden_layers": 4, "intermediate_size": D_FF, **HEADS, "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "rwkv": {"num_hidden_layers": 2, "context_length": 64},
    "xlstm": {  # wider than the others: its sizes are rounded up to 64, though not everywhere
        "num_hidden_layers": 2, "hidden_size": 128, "num_heads": 4, "chunk_size": 8,
        "autocast_kernel_dtype": "float32",
    },
}  # fmt: skip
"""Settings of each class by the name of its module in transformers."""


def tiny(name: str, vocab_size: int = VOCAB) -> nn.Module:
    """A model of a row of SETTINGS, with weights from one seed. Raises ImportError without transformers."""
    modeling = transformers_module(name)
    (cls,) = [getattr(modeling, own) for own in dir(modeling) if own.endswith("ForCausalLM")]
    torch.manual_seed(0)
    common = {"vocab_size": vocab_size, "hidden_size": WIDTH, "pad_token_id": 0, "attn_implementation": "eager"}
    model = cls(cls.config_class(**{**common, **SETTINGS[name]}))
    for parameter, value in model.named_parameters():
        if name in LASTING and parameter.endswith("A_log"):
            nn.init.uniform_(value, -6.0, 0.0)
    return perturbed(model)
