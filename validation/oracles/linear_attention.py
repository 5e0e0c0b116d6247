"""gla in flash-linear-attention's layer, lightning in transformers' MiniMax, with the same weights.

MiniMax adds what a sublayer computes to its normed input; here its blocks add it to the input, as ours do. Its MLP is
one expert, which every token has.
"""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.models.mixers.attention import AttentionConfig
from validation.oracles.cases import Comparison
from validation.oracles.delta_rule import compare_layer
from validation.oracles.mixers import (
    D_MODEL,
    VOCAB,
    Peer,
    attention_of,
    outside_mixers,
    perturbed,
    transformers_module,
)


def fla_gla(dtype: torch.dtype) -> Iterator[Comparison]:
    """gla in flash-linear-attention's layer, whose Triton ops are replaced by its naive form."""
    if dtype == torch.float64:
        return
    torch.manual_seed(0)
    fla = import_module("fla.layers.gla")
    for heads, expand, expand_v, tau in ((2, 0.5, 1.0, 16.0), (3, 0.75, 1.5, 4.0)):
        theirs = fla.GatedLinearAttention(
            hidden_size=D_MODEL, num_heads=heads, expand_k=expand, expand_v=expand_v, gate_low_rank_dim=5,
            gate_logit_normalizer=tau,
        )  # fmt: skip
        widths = {"head_dim": round(expand * D_MODEL) // heads, "expand": expand, "expand_v": expand_v}
        yield from compare_layer({"type": "gla", **widths, "rank": 5, "tau": tau}, theirs)


def minimax(dtype: torch.dtype) -> Iterator[Comparison]:
    """lightning in MiniMax, whose decays depend on the block; in the second model between blocks of attention."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("minimax")
    for heads, head_dim, kinds in ((3, 8, "lll"), (2, 16, "lal")):
        torch.manual_seed(0)
        types = {"l": "linear_attention", "a": "full_attention"}
        theirs = modeling.MiniMaxForCausalLM(
            modeling.MiniMaxConfig(
                vocab_size=VOCAB, hidden_size=D_MODEL, intermediate_size=40, num_hidden_layers=len(kinds),
                num_attention_heads=heads, num_key_value_heads=heads, head_dim=head_dim, num_local_experts=1,
                num_experts_per_tok=1, layer_types=[types[kind] for kind in kinds], block_size=32, rms_norm_eps=1e-6,
                tie_word_embeddings=True, initializer_range=0.05, pad_token_id=None,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            )
        )  # fmt: skip
        for layer in theirs.model.layers:
            layer.forward = partial(_pre_norm, layer)
        mixers = {
            "lightning": {"head_dim": head_dim, "expand": heads * head_dim / D_MODEL},
            "attention": {"head_dim": head_dim, "n_heads": heads},
        }
        layout = ", ".join({"l": "lightning+mlp", "a": "attention+mlp"}[kind] for kind in kinds)
        config = {"layout": layout, "d_ff": 40, "norm_eps": 1e-6, "mixers": mixers}
        if "a" not in kinds:
            del mixers["attention"]
        convert = partial(_from_minimax, kinds=kinds, heads=heads)
        name, run = f"lightning, {kinds.count('a')} of attention", partial(_logits, theirs)
        yield from Peer(name, perturbed(theirs), run, config, convert).compare()


def _pre_norm(layer: Any, hidden_states: Tensor, **given: Any) -> Tensor:
    """A block of MiniMax that adds to the residual stream what its sublayers compute from the normed stream."""
    hidden_states = hidden_states + layer.self_attn(layer.input_layernorm(hidden_states), **given)[0]
    return hidden_states + layer.mlp(layer.post_attention_layernorm(hidden_states))


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits


def _from_minimax(named: dict[str, Tensor], kinds: str, heads: int) -> dict[str, Tensor]:
    named = dict(named)
    for i in range(len(kinds)):
        layer = f"model.layers.{i}.mlp."
        gate, up = named[layer + "experts.gate_up_proj"][0].chunk(2)
        named |= {layer + "gate_proj.weight": gate, layer + "up_proj.weight": up}
        named[layer + "down_proj.weight"] = named[layer + "experts.down_proj"][0]
    ours = outside_mixers(named, len(kinds), "embed_tokens", "input_layernorm", "post_attention_layernorm")
    for i, kind in enumerate(kinds):
        block, layer = f"blocks.{i}.mixer.", f"model.layers.{i}.self_attn."
        if kind == "a":
            head_dim = len(named[f"{layer}q_proj.weight"]) // heads
            ours |= attention_of(named, i, AttentionConfig(n_heads=heads, head_dim=head_dim))
            continue
        # theirs has the rows of q, k and v head by head
        qkv = named[layer + "qkv_proj.weight"].unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        ours[block + "in_proj.weight"] = torch.cat([qkv, named[layer + "output_gate.weight"]])
        ours[block + "norm_weight"] = named[layer + "norm.weight"]
        ours[block + "out_proj.weight"] = named[layer + "out_proj.weight"]
    return ours
