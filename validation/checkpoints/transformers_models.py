"""Small models of transformers with random weights, saved by `save_pretrained`."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from validation.checkpoints.cases import VOCAB, Case, Logits
from validation.oracles.mixers import perturbed, transformers_module

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 3, "pad_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40}
LLAMA: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {**HEADS, "num_key_value_heads": 4}),
    "Llama, shared keys, biases, tied": (
        "llama",
        {**HEADS, "head_dim": 10, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "Mistral, a window": ("mistral", {**HEADS, "sliding_window": 7}),
    "Qwen2": ("qwen2", HEADS),
    "Qwen2, windows from layer 1": (
        "qwen2",
        {**HEADS, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "Qwen3": ("qwen3", {**HEADS, "head_dim": 8, "tie_word_embeddings": True}),
}
MAMBA2: dict[str, dict[str, Any]] = {
    "Mamba2": {"n_groups": 1, "tie_word_embeddings": True},
    "Mamba2, groups, biases, untied": {
        "n_groups": 2, "use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "time_step_limit": (0.01, 0.5),
        "tie_word_embeddings": False,
    },
}  # fmt: skip
PREFIX = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "mamba2": "Mamba2"}


def saved(folder: Path, kind: str, prefix: str, settings: Mapping[str, Any]) -> Logits:
    """Save a model of a class, with noise on all weights. kind: transformers' module; prefix: of its classes."""
    modeling = transformers_module(kind)
    torch.manual_seed(0)
    config = getattr(modeling, f"{prefix}Config")(**{**SIZES, **settings})
    model = perturbed(getattr(modeling, f"{prefix}ForCausalLM")(config))
    model.save_pretrained(folder)  # type: ignore[operator]

    def logits(tokens: Tensor) -> Tensor:
        return model(tokens, use_cache=False).logits

    return logits


def read(folder: Path) -> Logits:
    """The model in a folder as transformers loads it, by the class that config.json names."""
    config = json.loads((folder / "config.json").read_text())
    modeling = transformers_module(config["model_type"].removesuffix("_text"))
    model = getattr(modeling, config["architectures"][0]).from_pretrained(folder, dtype=torch.float32).eval()
    return lambda tokens: model(tokens, use_cache=False).logits


def _mamba2(folder: Path, settings: Mapping[str, Any]) -> Logits:
    sizes = {"num_heads": 6, "head_dim": 8, "state_size": 5, "chunk_size": 32, **settings}
    return saved(folder, "mamba2", "Mamba2", sizes)


CASES = [
    *(
        Case("hf_llama", name, "transformers", partial(saved, kind=kind, prefix=PREFIX[kind], settings=settings))
        for name, (kind, settings) in LLAMA.items()
    ),
    *(
        Case("hf_mamba2", name, "transformers", partial(_mamba2, settings=settings))
        for name, settings in MAMBA2.items()
    ),
]
