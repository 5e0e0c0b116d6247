"""Models with the blocks of LLaMA, Qwen3, Gemma 2 and RecurrentGemma against transformers' classes with the same weights, in float64."""

from typing import Any

import pytest
import torch
from torch import nn

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build

transformers = pytest.importorskip("transformers")
D, HEAD, FF, VOCAB, LENGTH = 24, 8, 20, 48, 19
SIZES = {
    "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": HEAD, "vocab_size": VOCAB, "attn_implementation": "eager", "rms_norm_eps": 1e-3,
}  # fmt: skip
HEADS = {"head_dim": HEAD, "n_heads": 4, "n_kv_heads": 2}


def gemma2() -> Any:
    """The class with a window in its first layer, whose queries are scaled by 1 / sqrt(head_dim)."""
    config = transformers.Gemma2Config(
        **SIZES, query_pre_attn_scalar=HEAD, attn_logit_softcapping=None, final_logit_softcapping=3.0, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"], hidden_activation="gelu_pytorch_tanh",
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM(config)


PUBLISHED: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=False)),
        {"tie_embeddings": False},
    ),
    "qwen3": (
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, tie_word_embeddings=True)),
        {"mixers": {"attention": {**HEADS, "qk_norm": True, "norm_eps": 1e-3}}},
    ),
    "gemma2": (
        gemma2,
        {
            "layout": "local+mlp, attention+mlp",
            "mixers": {"attention": HEADS, "local": {"type": "attention", **HEADS, "window": 5}},
            "mlp": "geglu", "norm": "zero_centred_rms", "sandwich_norm": True, "logit_soft_cap": 3.0,
            "embedding_scale": "sqrt_d_model",
        },
    ),
}  # fmt: skip


def names_of(i: int, sandwich: bool) -> dict[str, tuple[str, ...]]:
    """Our parameters of a block, and the peer's that are stacked to make each."""
    norms = (
        ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
        if sandwich
        else ("input_layernorm", None, "post_attention_layernorm", None)
    )
    ours = ("norm", "output_norm", "norm2", "output_norm2")
    pairs = {f"{own}.weight": (f"{norm}.weight",) for own, norm in zip(ours, norms, strict=True) if norm}
    pairs |= {
        "mixer.in_proj.weight": tuple(f"self_attn.{x}_proj.weight" for x in "qkv"),
        "mixer.out_proj.weight": ("self_attn.o_proj.weight",),
        "mixer.q_norm_weight": ("self_attn.q_norm.weight",),
        "mixer.k_norm_weight": ("self_attn.k_norm.weight",),
        "mlp.up_gate.weight": ("mlp.up_proj.weight", "mlp.gate_proj.weight"),
        "mlp.out_proj.weight": ("mlp.down_proj.weight",),
    }
    return {f"blocks.{i}.{own}": tuple(f"model.layers.{i}.{t}" for t in theirs) for own, theirs in pairs.items()}


def loaded(peer: nn.Module, given: dict[str, Any]) -> LanguageModel:
    """Our model with the peer's weights."""
    config = {"layout": "attention+mlp x 2", "d_model": D, "d_ff": FF, "vocab_size": VOCAB, "norm_eps": 1e-3,
              "mixers": {"attention": HEADS}, **given}  # fmt: skip
    ours, theirs = LanguageModel(build(ModelConfig, config, "model")).double(), dict(peer.named_parameters())
    names = {"embedding.weight": ("model.embed_tokens.weight",), "norm.weight": ("model.norm.weight",)}
    names |= {"head.weight": ("lm_head.weight",)}
    names |= names_of(0, ours.config.sandwich_norm) | names_of(1, ours.config.sandwich_norm)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(torch.cat([theirs.pop(own) for own in names[name]]))
    assert not theirs
    return ours


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_logits_and_loss_equal_transformers(name):
    make, given = PUBLISHED[name]
    generator = torch.Generator().manual_seed(0)
    peer = make().double().eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
        ours = loaded(peer, given).eval()
        tokens = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
        want = peer(tokens, labels=tokens)
        got = ours.logits(ours.hidden(tokens)[0])
        loss = ours.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))[0]
    # transformers norms in float32
    assert (got - want.logits).abs().max() <= 2e-5 * want.logits.abs().max()
    assert abs(loss - want.loss) <= 2e-5 * abs(want.loss)


def griffin_parameters(peer: nn.Module) -> dict[str, torch.Tensor]:
    """RecurrentGemma's parameters under our names."""
    theirs = dict(peer.named_parameters())
    ours = {"embedding.weight": theirs["model.embed_tokens.weight"], "norm.weight": theirs["model.final_norm.weight"]}
    for i in range(3):
        block, own = f"model.layers.{i}.", f"blocks.{i}."
        inner, mlp, lru = block + "temporal_block.", block + "mlp_block.", block + "temporal_block.rg_lru."
        ours[own + "norm.weight"] = theirs[block + "temporal_pre_norm.weight"]
        ours[own + "norm2.weight"] = theirs[block + "channel_pre_norm.weight"]
        for kind in ("weight", "bias"):
            both = [theirs[f"{mlp}{name}_proj.{kind}"] for name in ("up", "gate")]
            ours[f"{own}mlp.up_gate.{kind}"] = torch.cat(both).flatten() if kind == "bias" else torch.cat(both)
            ours[f"{own}mlp.out_proj.{kind}"] = theirs[f"{mlp}down_proj.{kind}"]
            out = "o_proj" if i == 2 else "linear_out"
            ours[f"{own}mixer.out_proj.{kind}"] = theirs[f"{inner}{out}.{kind}"]
            if i < 2:
                ours[f"{own}mixer.in_proj.{kind}"] = torch.cat([theirs[f"{inner}linear_{x}.{kind}"] for x in "yx"])
        if i == 2:
            ours[own + "mixer.in_proj.weight"] = torch.cat([theirs[f"{inner}{x}_proj.weight"] for x in "qkv"])
            continue
        ours[own + "mixer.conv_weight"] = theirs[inner + "conv_1d.weight"].squeeze(1)
        ours[own + "mixer.conv_bias"] = theirs[inner + "conv_1d.bias"]
        ours[own + "mixer.a_param"] = theirs[lru + "recurrent_param"]
        gates = [
            [theirs[f"{lru}{gate}_gate_{kind}"] for gate in ("input", "recurrent")] for kind in ("weight", "bias")
        ]
        ours[own + "mixer.gate_weight"] = torch.cat(gates[0], dim=2)
        ours[own + "mixer.gate_bias"] = torch.cat(gates[1], dim=1).flatten()
    return ours


def test_the_blocks_of_recurrentgemma_equal_transformers():
    """The window counts the token itself there, and the embedding's factor is rounded to bfloat16."""
    config = transformers.RecurrentGemmaConfig(
        vocab_size=VOCAB, hidden_size=D, lru_width=D, num_attention_heads=3, num_key_value_heads=1, head_dim=HEAD,
        intermediate_size=2 * FF, num_hidden_layers=3, attention_window_size=6, logits_soft_cap=3.0,
    )  # fmt: skip
    peer = transformers.RecurrentGemmaForCausalLM(config).double().eval()
    local = {"type": "attention", "n_heads": 3, "n_kv_heads": 1, "head_dim": HEAD, "window": 6, "output_bias": True,
             "positional": {"type": "rope", "fraction": 0.5}}  # fmt: skip
    given = {
        "layout": "[rg_lru+mlp x 2, local+mlp]", "d_model": D, "d_ff": FF, "vocab_size": VOCAB, "norm_eps": 1e-6,
        "mixers": {"rg_lru": {"n_blocks": 3}, "local": local}, "embedding_scale": "sqrt_d_model_bf16",
        "logit_soft_cap": 3.0, "norm": "zero_centred_rms", "mlp": {"type": "geglu", "bias": True},
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
    ours = LanguageModel(build(ModelConfig, given, "model")).double().eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
        weights = griffin_parameters(peer)
        assert weights.keys() == dict(ours.named_parameters()).keys()
        for name, parameter in ours.named_parameters():
            parameter.copy_(weights[name])
        want = peer(tokens, use_cache=False).logits
        got = ours.logits(ours.hidden(tokens)[0])
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()
