"""gated_deltanet in transformers' Qwen3-Next and kda in its Kimi-Linear, whole models with the same weights;
delta_product and gdn2 in flash-linear-attention's layers.

Attention layers and experts of the models are left out. All compute in float32 whatever the dtype.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.models.checkpoints.fla import layer_places
from lcprobe.models.checkpoints.places import gathered
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.token_context import TokenContext
from validation.oracles.cases import SINGLE, Comparison, label
from validation.oracles.mixers import (
    D_MODEL,
    LENGTHS,
    VOCAB,
    Peer,
    gradients,
    load,
    outside_mixers,
    perturbed,
    published,
    scaled,
    transformers_module,
)
from validation.oracles.recurrences import convolved, normed


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
        name, own = f"gated_deltanet value_heads={value_heads}", published("hf_qwen3_next", theirs)
        yield from Peer(name, perturbed(theirs), partial(_logits, theirs), *own).compare()


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


def _logits(model: nn.Module, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits of one of transformers' models, for one document a row."""
    return model(tokens, use_cache=False).logits


def fla_layers(dtype: torch.dtype) -> Iterator[Comparison]:
    """delta_product and gdn2 in flash-linear-attention's layers, whose Triton ops are replaced by its naive forms."""
    if dtype == torch.float64:
        return
    torch.manual_seed(0)
    deltaproduct, gdn2 = (import_module(f"fla.layers.{name}") for name in ("gated_deltaproduct", "gdn2"))
    for n, heads, head_dim, value_heads, ratio in ((2, 3, 8, 1, 2), (3, 2, 6, 2, 1)):
        theirs = deltaproduct.GatedDeltaProduct(
            D_MODEL, expand_v=ratio, head_dim=head_dim, num_heads=heads, num_v_heads=heads * value_heads,
            num_householder=n,
        )  # fmt: skip
        ours = {"type": "delta_product", "n_steps": n, "head_dim": head_dim, "value_heads": value_heads}
        widths = {"expand": heads * head_dim / D_MODEL, "expand_v": heads * value_heads * ratio * head_dim / D_MODEL}
        nn.init.uniform_(theirs.A_log, -6.0, 0.0)  # decays that last
        yield from compare_layer({**ours, **widths}, theirs)
    for heads, head_dim, value_heads, ratio in ((3, 8, 1, 1), (2, 6, 2, 2)):
        theirs = gdn2.GatedDeltaNet2(
            D_MODEL, expand_v=ratio, head_dim=head_dim, num_heads=heads, num_v_heads=heads * value_heads,
            allow_neg_eigval=value_heads == 2,
        )  # fmt: skip
        ours = {"type": "gdn2", "head_dim": head_dim, "value_heads": value_heads}
        ours |= {"expand": heads * head_dim / D_MODEL, "negative_eigenvalues": value_heads == 2}
        ours["expand_v"] = heads * value_heads * ratio * head_dim / D_MODEL
        nn.init.uniform_(theirs.A_log, -6.0, 0.0)
        yield from compare_layer(ours, theirs, _from_gdn2)


def compare_layer(
    kind: dict[str, Any], theirs: nn.Module, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> Iterator[Comparison]:
    """Outputs of one of fla's layers at every length, and at the longest gradients, too. kind: ours; convert: its
    parameters, or their gradients, under the names of ours; None: as checkpoints are read."""
    perturbed(theirs)
    choice = choose(MIXERS, kind, "mixer")
    ours: Mixer = choice.create(D_MODEL)
    if convert is None:
        places = dict(layer_places(choice.config, "", D_MODEL))
        convert = partial(gathered, places, ours=dict(ours.named_parameters()))
    load(ours, convert(dict(theirs.named_parameters())))
    for length in LENGTHS:
        x = torch.randn(2, length, D_MODEL, generator=torch.Generator().manual_seed(length))
        with torch.enable_grad(), naive_fla():
            got = ours(x, TokenContext(torch.arange(length)))[0]
            want = theirs(x)[0]
        yield scaled(label(kind), f"outputs, {length} tokens", got, want, SINGLE)
    yield from gradients(label(kind), (ours, got), (theirs, want), convert, 5 * SINGLE)


@contextmanager
def naive_fla() -> Iterator[None]:
    """flash-linear-attention's layers run without Triton: convolution and gated norm in plain PyTorch, recurrences by
    its own naive forms, in float32, all of them with states and packed documents."""
    names = ("layers.gated_deltaproduct", "layers.gdn2", "ops.gated_delta_product.naive", "ops.gdn2.naive", "modules")
    product, gdn2, naive_product, naive_gdn2, modules = (import_module(f"fla.{name}") for name in names)
    gla, naive_gla = import_module("fla.layers.gla"), import_module("fla.ops.gla.naive")

    def unit(x: Tensor) -> Tensor:
        return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    def delta_product(q, k, v, g, beta, num_householder, use_qk_l2norm_in_kernel, **states):
        inputs, scale = (unit(q), unit(k), v, g, beta), q.shape[-1] ** -0.5
        return naive_product.naive_recurrent_gated_delta_product(
            *inputs, scale, num_householder=num_householder, **states
        )

    def delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel, **states):
        return delta_product(q, k, v, g, beta, 1, use_qk_l2norm_in_kernel, **states)

    def delta_rule2(q, k, v, g, b, w, cu_seqlens, initial_state, output_final_state, **_):
        parts = _documents((unit(q), unit(k), v, g, b, w), cu_seqlens, initial_state)
        found = [naive_gdn2.naive_recurrent_gdn2(*part, None, state, output_final_state) for part, state in parts]
        return joined(found, output_final_state)

    def linear(q, k, v, cu_seqlens, initial_state, output_final_state, gk=None, g=None, **_):
        decays = g if gk is None else gk
        assert decays is not None
        parts = _documents((q, k, v, decays), cu_seqlens, initial_state)
        found = [naive_gla.naive_recurrent_gla(*part, state, output_final_state) for part, state in parts]
        return joined(found, output_final_state)

    def joined(found: list[tuple[Tensor, Any]], output_final_state: bool) -> tuple[Tensor, Tensor | None]:
        outputs, states = zip(*found, strict=True)
        return torch.cat(outputs, 1), torch.cat(states) if output_final_state else None

    def convolve(self: nn.Conv1d, x: Tensor, cache, output_final_state, cu_seqlens):
        width, outputs, states = self.kernel_size[0], [], []
        for (part,), state in _documents((x,), cu_seqlens, cache):
            before = x.new_zeros(len(part), x.shape[2], width) if state is None else state
            padded = torch.cat([before.mT, part], 1)
            outputs.append(convolved(padded, self.weight.squeeze(1), self.bias)[:, width:])
            states.append(padded[:, -width:].mT)
        return F.silu(torch.cat(outputs, 1)), torch.cat(states) if output_final_state else None

    def norm(self: Any, x: Tensor, g: Tensor) -> Tensor:
        gate = g.sigmoid() if self.activation == "sigmoid" else F.silu(g)
        return normed(x, self.weight, self.eps) * gate

    with (
        patch.object(product, "chunk_gated_delta_product", delta_product),
        patch.object(product, "fused_recurrent_gated_delta_rule", delta_rule),
        patch.object(gdn2, "chunk_gdn2", delta_rule2),
        patch.object(gdn2, "fused_recurrent_gdn2", delta_rule2),
        patch.object(gla, "chunk_gla", linear),
        patch.object(gla, "fused_recurrent_gla", linear),
        patch.object(modules.ShortConvolution, "forward", convolve),
        patch.object(modules.FusedRMSNormGated, "forward", norm),
    ):
        yield


def _documents(inputs: Sequence[Tensor], cu_seqlens: Tensor | None, state: Tensor | None) -> Iterator[Any]:
    """The tokens of each document of a packed row, with its state; all rows where nothing is packed."""
    if cu_seqlens is None:
        yield inputs, state
        return
    ends = cu_seqlens.tolist()
    for i, (begin, end) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        yield [x[:, begin:end] for x in inputs], None if state is None else state[i : i + 1]


def _from_gdn2(named: dict[str, Tensor]) -> dict[str, Tensor]:
    inputs = ("q_proj", "k_proj", "v_proj", "b_proj", "w_proj", "f_proj.0", "g_proj.0")
    return {
        "in_proj.weight": torch.cat([named[f"{name}.weight"] for name in inputs]),
        "conv_weight": torch.cat([named[f"{name}_conv1d.weight"].squeeze(1) for name in "qkv"]),
        "norm_weight": named["o_norm.weight"],
        "out_proj.weight": named["o_proj.weight"],
        "A_log": named["A_log"],
        "dt_bias": named["dt_bias"],
        "decay_proj.weight": named["f_proj.1.weight"],
        "gate_proj.weight": named["g_proj.1.weight"],
        "gate_proj.bias": named["g_proj.1.bias"],
    }
