"""Models with the blocks of LLaMA, Qwen3, Gemma 2 and RecurrentGemma against transformers' classes with the same weights, in float64."""

from typing import Any

import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.schema import build
from validation.oracles.mixers import attention_of, load, outside_mixers, published

transformers = pytest.importorskip("transformers")
D, HEAD, FF, VOCAB, LENGTH = 24, 8, 20, 48, 19
SIZES = {
    "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": HEAD, "vocab_size": VOCAB, "attn_implementation": "eager", "rms_norm_eps": 1e-3,
}  # fmt: skip
HEADS = {"head_dim": HEAD, "n_heads": 4, "n_kv_heads": 2}
SHAPE = {"layout": "attention+mlp x 2", "d_model": D, "d_ff": FF, "vocab_size": VOCAB, "norm_eps": 1e-3,
         "mixers": {"attention": HEADS}}  # fmt: skip


def gemma2() -> Any:
    """The class with a window in its first layer, whose queries are scaled by 1 / sqrt(head_dim)."""
    config = transformers.Gemma2Config(
        **SIZES, query_pre_attn_scalar=HEAD, attn_logit_softcapping=None, final_logit_softcapping=3.0, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"], hidden_activation="gelu_pytorch_tanh",
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM(config)


def from_gemma2(named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Its parameters under our names; it norms what its sublayers put out, too."""
    ours = outside_mixers(named, 2, "embed_tokens", "input_layernorm", "pre_feedforward_layernorm")
    for i in range(2):
        ours |= attention_of(named, i, AttentionConfig(**HEADS))
        ours[f"blocks.{i}.output_norm.weight"] = named[f"model.layers.{i}.post_attention_layernorm.weight"]
        ours[f"blocks.{i}.output_norm2.weight"] = named[f"model.layers.{i}.post_feedforward_layernorm.weight"]
    return ours


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


def double(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> LanguageModel:
    """Our model in float64 with the weights, for evaluation."""
    ours = LanguageModel(build(ModelConfig, config, "model")).double().eval()
    load(ours, weights)
    return ours


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_logits_and_loss_equal_transformers(name):
    make, given = PUBLISHED[name]
    generator = torch.Generator().manual_seed(0)
    peer = make().double().eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
        convert = from_gemma2 if name == "gemma2" else published("hf_llama", peer)[1]
        ours = double({**SHAPE, **given}, convert(dict(peer.named_parameters())))
        tokens = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
        want = peer(tokens, labels=tokens)
        got = ours.logits(ours.hidden(tokens)[0])
        loss = ours.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))[0]
    # transformers norms in float32
    assert (got - want.logits).abs().max() <= 2e-5 * want.logits.abs().max()
    assert abs(loss - want.loss) <= 2e-5 * abs(want.loss)


def test_the_blocks_of_recurrentgemma_equal_transformers():
    """The window counts the token itself there, and the embedding's factor is rounded to bfloat16."""
    config = transformers.RecurrentGemmaConfig(
        vocab_size=VOCAB, hidden_size=D, lru_width=D, num_attention_heads=3, num_key_value_heads=1, head_dim=HEAD,
        intermediate_size=2 * FF, num_hidden_layers=3, attention_window_size=6, logits_soft_cap=3.0,
    )  # fmt: skip
    peer = transformers.RecurrentGemmaForCausalLM(config).double().eval()
    given, convert = published("hf_recurrent_gemma", peer)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
        ours = double(given, convert(dict(peer.named_parameters())))
        want = peer(tokens, use_cache=False).logits
        got = ours.logits(ours.hidden(tokens)[0])
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()
