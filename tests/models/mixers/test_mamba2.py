"""The Mamba2 mixer and model against transformers' Mamba2 with the same weights."""

import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("n_groups", [1, 2])
def test_logits_equal_transformers(n_groups):
    torch.manual_seed(0)
    d, heads, n = 32, 4, 16
    peer = transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(
            hidden_size=d, num_hidden_layers=3, num_heads=heads, head_dim=16, state_size=n, n_groups=n_groups, conv_kernel=4,
            chunk_size=8, expand=2, vocab_size=64, layer_norm_epsilon=1e-5, use_bias=False, use_conv_bias=True,
            tie_word_embeddings=True, residual_in_fp32=True, time_step_limit=(0.0, float("inf")),
        )
    ).float().eval()  # fmt: skip
    config = {"layout": "mamba2 x 3", "d_model": d, "vocab_size": 64,
              "mixers": {"mamba2": {"head_dim": 16, "d_state": n, "n_groups": n_groups, "chunk_size": 8}}}  # fmt: skip
    ours = LanguageModel(build(ModelConfig, config, "model"))
    theirs = dict(peer.named_parameters())
    renamed = {
        "embedding.weight": "backbone.embeddings.weight",
        "norm.weight": "backbone.norm_f.weight",
    }
    for i in range(3):
        a, b = f"blocks.{i}.", f"backbone.layers.{i}."
        renamed |= {a + "norm.weight": b + "norm.weight", a + "mixer.norm_weight": b + "mixer.norm.weight"}
        renamed |= {
            a + "mixer.conv_weight": b + "mixer.conv1d.weight",
            a + "mixer.conv_bias": b + "mixer.conv1d.bias",
        }
        for name in ("in_proj.weight", "out_proj.weight", "dt_bias", "A_log", "D"):
            renamed[f"{a}mixer.{name}"] = f"{b}mixer.{name}"
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(theirs[renamed[name]].reshape(parameter.shape))
        tokens = torch.randint(0, 64, (2, 37))
        want = peer(tokens).logits
        hidden, _ = ours.hidden(tokens)
        got = ours.logits(hidden)
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()
