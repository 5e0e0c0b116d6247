"""attention with gated MLPs in transformers' Llama: a whole model with the same weights, one document a row.

Norms and the angles of RoPE are float32 there, whatever the dtype.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from validation.oracles.cases import Comparison
from validation.oracles.mixers import D_MODEL, VOCAB, Peer, perturbed, published, transformers_module


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
        name = f"attention n_kv_heads={kv_heads}"
        own = published("hf_llama", theirs)
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), *own).compare()


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits
