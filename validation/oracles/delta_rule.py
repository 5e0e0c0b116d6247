"""gated_deltanet in transformers' Qwen3-Next, kda in its Kimi-Linear: whole models with the same weights.

Their attention layers and experts are left out. Both compute in float32 whatever the dtype.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from validation.oracles.cases import Comparison
from validation.oracles.mixers import D_MODEL, VOCAB, Peer, outside_mixers, perturbed, transformers_module


def qwen3_next(dtype: torch.dtype) -> Iterator[Comparison]:
    """gated_deltanet in Qwen3-Next."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("qwen3_next")
    for heads, value_heads, d_v in ((3, 1, 16), (2, 3, 8)):
        n_layers, head_dim, d_ff = 3, D_MODEL // heads, 40
        torch.manual_seed(0)
        theirs = modeling.Qwen3NextForCausalLM(
            modeling.Qwen3NextConfig(
                vocab_size=VOCAB, hidden_size=D_MODEL, intermediate_size=d_ff, num_hidden_layers=n_layers,
                linear_num_key_heads=heads, linear_num_value_heads=heads * value_heads, linear_key_head_dim=head_dim,
                linear_value_head_dim=d_v, layer_types=["linear_attention"] * n_layers, num_experts=0,
                num_attention_heads=2, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6,
                initializer_range=0.05,
            )
        )  # fmt: skip
        for layer in theirs.model.layers:  # decays between 0.3 and 0.998: states that last
            nn.init.uniform_(layer.linear_attn.A_log, -6.0, 0.0)
        settings = {"head_dim": head_dim, "expand_v": heads * value_heads * d_v / D_MODEL, "value_heads": value_heads,
                    "norm_eps": 1e-6}  # fmt: skip
        config = {"layout": "gated_deltanet+mlp", "n_layers": n_layers, "d_ff": d_ff, "norm_eps": 1e-6,
                  "norm": "zero_centred_rms", "mixers": {"gated_deltanet": settings}}  # fmt: skip
        shape = (heads, value_heads, head_dim, d_v)
        convert = partial(_from_qwen3_next, n_layers=n_layers, shape=shape)
        name = f"gated_deltanet value_heads={value_heads}"
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), config, convert).compare()


def kimi_linear(dtype: torch.dtype) -> Iterator[Comparison]:
    """kda in Kimi-Linear."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("kimi_linear")
    for heads, head_dim in ((3, 8), (2, 16)):
        n_layers, d_ff = 3, 40
        torch.manual_seed(0)
        theirs = modeling.KimiLinearForCausalLM(
            modeling.KimiLinearConfig(
                vocab_size=VOCAB, hidden_size=D_MODEL, intermediate_size=d_ff, num_hidden_layers=n_layers,
                linear_num_heads=heads, linear_head_dim=head_dim, layer_types=["linear_attention"] * n_layers,
                mlp_layer_types=["dense"] * n_layers, num_attention_heads=2, num_key_value_heads=2,
                rms_norm_eps=1e-5, initializer_range=0.05, pad_token_id=None,
            )
        )  # fmt: skip
        for layer in theirs.model.layers:  # decays between 0.3 and 0.998: states that last
            nn.init.uniform_(layer.self_attn.forget_gate.A_log, -6.0, 0.0)
            nn.init.uniform_(layer.self_attn.forget_gate.dt_bias, 0.0, 1.0)
        expand = heads * head_dim / D_MODEL
        config = {"layout": "kda+mlp", "n_layers": n_layers, "d_ff": d_ff, "tie_embeddings": False,
                  "mixers": {"kda": {"head_dim": head_dim, "expand": expand, "expand_v": expand}}}  # fmt: skip
        name, convert = f"kda head_dim={head_dim}", partial(_from_kimi_linear, n_layers=n_layers)
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), config, convert).compare()


def _from_kimi_linear(named: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    ours = outside_mixers(named, n_layers, "embed_tokens", "input_layernorm", "post_attention_layernorm")
    for i in range(n_layers):
        block, layer = f"blocks.{i}.mixer.", f"model.layers.{i}.self_attn."
        names = ("q_proj", "k_proj", "v_proj", "b_proj", "forget_gate.f_a_proj", "g_a_proj")
        ours |= {
            block + "in_proj.weight": torch.cat([named[f"{layer}{name}.weight"] for name in names]),
            block + "conv_weight": named[layer + "conv1d.weight"].squeeze(1),
            block + "A_log": named[layer + "forget_gate.A_log"].flatten(),
            block + "dt_bias": named[layer + "forget_gate.dt_bias"],
            block + "decay_proj.weight": named[layer + "forget_gate.f_b_proj.weight"],
            block + "gate_proj.weight": named[layer + "g_b_proj.weight"],
            block + "norm_weight": named[layer + "o_norm.weight"],
            block + "out_proj.weight": named[layer + "o_proj.weight"],
        }
    return ours


def _from_qwen3_next(named: dict[str, Tensor], n_layers: int, shape: tuple[int, int, int, int]) -> dict[str, Tensor]:
    norms = ("input_layernorm", "post_attention_layernorm")
    ours = outside_mixers(named, n_layers, "embed_tokens", *norms)
    for i in range(n_layers):
        ours |= _gated_deltanet(named, i, shape)
    return ours


def _gated_deltanet(named: dict[str, Tensor], i: int, shape: tuple[int, int, int, int]) -> dict[str, Tensor]:
    """Layer i of Qwen3-Next, whose projections are grouped by heads of keys."""
    heads, value_heads, d_k, d_v = shape
    ours, theirs = f"blocks.{i}.mixer.", f"model.layers.{i}.linear_attn."
    grouped = named[theirs + "in_proj_qkvz.weight"].unflatten(0, (heads, -1))
    q, k, v, z = grouped.split([d_k, d_k, value_heads * d_v, value_heads * d_v], dim=1)
    b, a = named[theirs + "in_proj_ba.weight"].unflatten(0, (heads, -1)).split([value_heads, value_heads], dim=1)
    return {
        ours + "in_proj.weight": torch.cat([t.flatten(0, 1) for t in (q, k, v, z, b, a)]),
        ours + "conv_weight": named[theirs + "conv1d.weight"].squeeze(1),
        ours + "norm_weight": named[theirs + "norm.weight"],
        **{ours + name: named[theirs + name] for name in ("A_log", "dt_bias", "out_proj.weight")},
    }


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits of one of transformers' models, for one document a row."""
    return model(tokens, use_cache=False).logits
