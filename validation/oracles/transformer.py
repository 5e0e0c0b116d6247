"""attention with gated MLPs in transformers' Llama: a whole model with the same weights, one document a row.

Norms and the angles of RoPE are float32 there, whatever the dtype.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from validation.oracles.cases import Comparison
from validation.oracles.mixers import (
    D_MODEL,
    VOCAB,
    Peer,
    attention_of,
    outside_mixers,
    perturbed,
    transformers_module,
)


def transformers_llama(dtype: torch.dtype) -> Iterator[Comparison]:
    """attention in Llama: a key for each query's head, and shared ones with biases and a head of its own."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("llama")
    for heads, kv_heads, head_dim, bias in ((3, 3, 8, False), (4, 2, 10, True)):
        n_layers, d_ff = 3, 40
        torch.manual_seed(0)
        theirs = modeling.LlamaForCausalLM(
            modeling.LlamaConfig(
                vocab_size=VOCAB, hidden_size=D_MODEL, intermediate_size=d_ff, num_hidden_layers=n_layers,
                num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, attention_bias=bias,
                rms_norm_eps=1e-5, tie_word_embeddings=not bias, initializer_range=0.2,
                attn_implementation="eager", pad_token_id=None,
            )
        )  # fmt: skip
        settings = {"n_heads": heads, "n_kv_heads": kv_heads, "head_dim": head_dim, "bias": bias}
        config = {"layout": "attention+mlp", "n_layers": n_layers, "d_ff": d_ff, "norm_eps": 1e-5,
                  "tie_embeddings": not bias, "mixers": {"attention": settings}}  # fmt: skip
        convert = partial(from_transformers, n_layers=n_layers)
        name = f"attention n_kv_heads={kv_heads}"
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), config, convert).compare()


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits


def from_transformers(named: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """Parameters of Llama, Qwen3 and Gemma 2, which norms what its sublayers put out, too, under our names."""
    sandwich = "model.layers.0.pre_feedforward_layernorm.weight" in named
    norm2 = "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"
    ours = outside_mixers(named, n_layers, "embed_tokens", "input_layernorm", norm2)
    for i in range(n_layers):
        block, layer = f"blocks.{i}.", f"model.layers.{i}."
        ours |= attention_of(named, i)
        if sandwich:
            ours[block + "output_norm.weight"] = named[layer + "post_attention_layernorm.weight"]
            ours[block + "output_norm2.weight"] = named[layer + "post_feedforward_layernorm.weight"]
    return ours
