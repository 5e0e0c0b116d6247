"""mamba1 in transformers' Mamba, mamba2 in its Mamba2: whole models with the same weights, one document a row.

They compute decays in float32 whatever the dtype.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from validation.oracles.cases import Comparison
from validation.oracles.mixers import D_MODEL, VOCAB, Peer, perturbed, published, transformers_module


def transformers_mamba(dtype: torch.dtype) -> Iterator[Comparison]:
    """mamba1 in Mamba."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("mamba")
    for d_state, d_conv, rank, bias in ((16, 4, 2, False), (5, 3, 4, True)):
        n_layers = 3
        torch.manual_seed(0)
        theirs = modeling.MambaForCausalLM(
            modeling.MambaConfig(
                vocab_size=VOCAB, hidden_size=D_MODEL, num_hidden_layers=n_layers, state_size=d_state,
                conv_kernel=d_conv, time_step_rank=rank, use_bias=bias, use_conv_bias=not bias,
                layer_norm_epsilon=1e-5, pad_token_id=None,
            )
        )  # fmt: skip
        for layer in theirs.backbone.layers:  # step sizes between 0.1 and 1: decays from 0.9 to 0
            nn.init.uniform_(layer.mixer.dt_proj.bias, -2.3, 0.5)
        name, own = f"mamba1 d_state={d_state}", published("hf_mamba", theirs)
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), *own).compare()


def transformers_mamba2(dtype: torch.dtype) -> Iterator[Comparison]:
    """mamba2 in Mamba2, with B and C shared by all heads, and by groups of them."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("mamba2")
    for groups, head_dim, d_state, d_conv, bias in ((1, 12, 16, 4, False), (2, 8, 5, 3, True)):
        n_layers, heads = 3, 2 * D_MODEL // head_dim
        torch.manual_seed(0)
        theirs = modeling.Mamba2ForCausalLM(
            modeling.Mamba2Config(
                vocab_size=VOCAB, hidden_size=D_MODEL, num_hidden_layers=n_layers, num_heads=heads, head_dim=head_dim,
                state_size=d_state, n_groups=groups, conv_kernel=d_conv, chunk_size=32, expand=2, use_bias=bias,
                use_conv_bias=not bias, layer_norm_epsilon=1e-5, tie_word_embeddings=True, pad_token_id=None,
                time_step_limit=(0.0, float("inf")),
            )
        )  # fmt: skip
        for layer in theirs.backbone.layers:  # step sizes between 0.1 and 1: decays from 0.9 to 0
            nn.init.uniform_(layer.mixer.dt_bias, -2.3, 0.5)
        name, own = f"mamba2 n_groups={groups}", published("hf_mamba2", theirs, chunk_size=8)
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), *own).compare()


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits
