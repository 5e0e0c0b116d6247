"""Costs of whole models: parameter counts of published ones."""

import pytest

from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import model_cost
from lcprobe.schema import build


@pytest.mark.parametrize(
    ("settings", "params"),
    [
        ({"layout": "mamba2 x 64", "d_model": 2560}, 2_702_599_680),
        ({"layout": "mamba2 x 24", "d_model": 768}, 128_989_632),
        ({"layout": "mamba2 x 48", "d_model": 1024}, 368_346_624),
        ({"layout": "mamba2 x 48", "d_model": 2048}, 1_343_757_312),
        (
            {
                "layout": "mamba2 x 64",
                "d_model": 2560,
                "attn_layer_idx": [9, 18, 27, 36, 45, 56],
                "mixers": {"attention": {"head_dim": 128, "n_heads": 30, "d_conv": 4, "positional": {"type": "rope", "fraction": 0.5}}},
            },
            2_697_590_880,
        ),
        ({"layout": "attention+mlp x 32", "d_model": 2560, "d_ff": 6912, "mixers": {"attention": {"head_dim": 128}}}, 2_666_457_600),
    ],
)  # fmt: skip
def test_parameter_counts_equal_published_ones_exactly(settings, params):
    config = build(ModelConfig, {"vocab_size": 50277, "vocab_multiple": 16, **settings}, "model")
    assert model_cost(config, 2048).params == params
