"""mlstm in transformers' xLSTM: whole models with the same weights, to the logits' soft cap.

It runs chunks of tokens in its chunked form and the rest token by token. Both divide the state by its largest weight.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from validation.oracles.cases import Comparison
from validation.oracles.mixers import D_MODEL, VOCAB, Peer, perturbed, transformers_module


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
        settings = {"head_dim": round(expand * D_MODEL) // heads, "expand": expand, "expand_v": expand_v}
        config = {"layout": "mlstm+mlp", "n_layers": n_layers, "d_ff": 36, "norm_eps": 1e-6, "tie_embeddings": False,
                  "logit_soft_cap": 30.0, "mixers": {"mlstm": settings}}  # fmt: skip
        convert = partial(_from_xlstm, n_layers=n_layers)
        yield from Peer(
            f"mlstm heads={heads}", perturbed(theirs), partial(_logits, theirs), config, convert
        ).compare()


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits


def _from_xlstm(named: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    ours = {
        "embedding.weight": named["backbone.embeddings.weight"],
        "norm.weight": named["backbone.out_norm.weight"],
        "head.weight": named["lm_head.weight"],
    }
    for i in range(n_layers):
        own, block = f"blocks.{i}.", f"backbone.blocks.{i}."
        layer, ffn = block + "mlstm_layer.", block + "ffn."
        gates = ("igate_preact", "fgate_preact")
        ours |= {
            own + "norm.weight": named[block + "norm_mlstm.weight"],
            own + "norm2.weight": named[block + "norm_ffn.weight"],
            own + "mlp.up_gate.weight": torch.cat(
                [named[f"{ffn}{name}.weight"] for name in ("proj_up", "proj_up_gate")]
            ),
            own + "mlp.out_proj.weight": named[ffn + "proj_down.weight"],
            own + "mixer.in_proj.weight": torch.cat(
                [named[f"{layer}{name}.weight"] for name in ("q", "k", "v", "ogate_preact")]
            ),
            own + "mixer.gate_proj.weight": torch.cat([named[f"{layer}{gate}.weight"] for gate in gates]),
            own + "mixer.gate_proj.bias": torch.cat([named[f"{layer}{gate}.bias"] for gate in gates]),
            own + "mixer.norm_weight": named[layer + "multihead_norm.weight"],
            own + "mixer.out_proj.weight": named[layer + "out_proj.weight"],
        }
    return ours
