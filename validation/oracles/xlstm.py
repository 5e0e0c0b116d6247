"""mlstm in transformers' xLSTM: whole models with the same weights, to the logits' soft cap.

It runs chunks of tokens in its chunked form and the rest token by token. Both divide the state by its largest weight.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from validation.oracles.cases import Comparison
from validation.oracles.mixers import D_MODEL, VOCAB, Peer, perturbed, published, transformers_module


def transformers_xlstm(dtype: torch.dtype) -> Iterator[Comparison]:
    """mlstm in xLSTM."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("xlstm")
    for heads, expand, expand_v, chunk in ((2, 0.5, 1.0, 16), (3, 1.0, 1.5, 64)):
        torch.manual_seed(0)
        n_layers = 3
        theirs = modeling.xLSTMForCausalLM(
            modeling.xLSTMConfig(
                vocab_size=VOCAB, hidden_size=D_MODEL, num_hidden_layers=n_layers, num_heads=heads,
                qk_dim_factor=expand, v_dim_factor=expand_v, chunk_size=chunk, ffn_proj_factor=1.5,
                ffn_round_up_to_multiple_of=4, pad_token_id=None,
            )
        )  # fmt: skip
        for block in theirs.backbone.blocks:  # denominators of 1, and of more
            for gate, low, high in (("igate_preact", -4.0, 2.0), ("fgate_preact", 1.0, 5.0)):
                nn.init.normal_(block.mlstm_layer.get_submodule(gate).weight, std=0.1)
                nn.init.uniform_(block.mlstm_layer.get_submodule(gate).bias, low, high)
        own = published("hf_xlstm", theirs)
        yield from Peer(f"mlstm heads={heads}", perturbed(theirs), partial(_logits, theirs), *own).compare()


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits
