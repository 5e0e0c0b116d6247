"""Small models of transformers' recurrent and hybrid classes with random weights, saved by `save_pretrained`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from validation.checkpoints.cases import VOCAB, Case, Logits
from validation.oracles.mixers import perturbed, transformers_module

SIZES: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 4, "pad_token_id": None}
HYBRID: dict[str, Any] = {
    "intermediate_size": 40, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 12,
    "linear_value_head_dim": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "initializer_range": 0.05, "attn_implementation": "eager",
}  # fmt: skip
GRIFFIN: dict[str, Any] = {
    "lru_width": 36, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 80,
    "attention_window_size": 20, "logits_soft_cap": 2.0, "num_hidden_layers": 5,
}  # fmt: skip
XLSTM: dict[str, Any] = {"num_heads": 2, "qk_dim_factor": 0.5, "chunk_size": 16, "ffn_proj_factor": 1.6,
                         "ffn_round_up_to_multiple_of": 4}  # fmt: skip
BAMBA: dict[str, Any] = {
    "attn_layer_indices": [1], "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 40,
    "mamba_d_state": 5, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16,
}  # fmt: skip
NEMOTRON: dict[str, Any] = {
    "num_hidden_layers": None, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 40, "ssm_state_size": 5, "mamba_num_heads": 5, "mamba_head_dim": 8, "n_groups": 1,
    "chunk_size": 16, "layers_block_type": ["linear_attention", "mlp", "linear_attention", "full_attention", "mlp"],
}  # fmt: skip
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "RecurrentGemma": ("hf_recurrent_gemma", "recurrent_gemma", "RecurrentGemma", GRIFFIN),
    "Mamba": ("hf_mamba", "mamba", "Mamba", {"state_size": 5}),
    "Mamba, biases, untied": (
        "hf_mamba", "mamba", "Mamba",
        {"use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "time_step_rank": 5,
         "tie_word_embeddings": False},
    ),
    "FalconMamba": ("hf_mamba", "falcon_mamba", "FalconMamba", {"state_size": 5}),
    "Qwen3-Next, dense": ("hf_qwen3_next", "qwen3_next", "Qwen3Next", {**HYBRID, "num_experts": 0}),
    "Qwen3.5": ("hf_qwen3_5_text", "qwen3_5", "Qwen3_5", {**HYBRID, "tie_word_embeddings": True}),
    "Qwen3.5, with images": ("hf_qwen3_5", "qwen3_5", "Qwen3_5", HYBRID),
    "Bamba": ("hf_bamba", "bamba", "Bamba", BAMBA),
    "Nemotron-H, dense": ("hf_nemotron_h", "nemotron_h", "NemotronH", NEMOTRON),
    "xLSTM": ("hf_xlstm", "xlstm", "xLSTM", XLSTM),
}  # fmt: skip
"""By name: the format, transformers' module, the prefix of its classes, and settings."""


def saved(folder: Path, name: str) -> Logits:
    """Save a model of a class, with noise on all weights."""
    format, kind, prefix, settings = MODELS[name]
    modeling = transformers_module(kind)
    torch.manual_seed(0)
    if format == "hf_qwen3_5":
        model = perturbed(_with_images(modeling, settings))
    else:
        config = getattr(modeling, f"{prefix}TextConfig" if kind == "qwen3_5" else f"{prefix}Config")
        model = perturbed(getattr(modeling, f"{prefix}ForCausalLM")(config(**{**SIZES, **settings})))
    louder(model)
    model.save_pretrained(folder)  # type: ignore[operator]

    def logits(tokens: Tensor) -> Tensor:
        return model(tokens, use_cache=False).logits

    return logits


@torch.no_grad()
def louder(model: Any) -> None:
    """Scale the head of one of transformers' models, so that logits are of the order of 1 or more."""
    model.get_output_embeddings().weight.mul_(4)


def _with_images(modeling: Any, settings: Mapping[str, Any]) -> nn.Module:
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 2,
              "out_hidden_size": 24, "num_position_embeddings": 16}  # fmt: skip
    text = {**SIZES, **settings, "model_type": "qwen3_5_text"}
    config = modeling.Qwen3_5Config(text_config=text, vision_config=vision)
    return modeling.Qwen3_5ForConditionalGeneration(config)


CASES = [Case(format, name, "transformers", partial(saved, name=name)) for name, (format, *_) in MODELS.items()]
