"""config.json of released models gives models of the released number of parameters."""

from typing import Any

import pytest

from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import model_cost
from lcprobe.schema import build

RELEASED: dict[str, tuple[dict[str, Any], float]] = {
    "hf_recurrent_gemma": (  # RecurrentGemma 2B
        {"hidden_size": 2560, "num_hidden_layers": 26, "intermediate_size": 15360, "num_attention_heads": 10,
         "num_key_value_heads": 1, "head_dim": 256, "lru_width": 2560, "vocab_size": 256000},
        2.683e9,
    ),
    "hf_xlstm": ({"embedding_dim": 4096, "num_blocks": 32, "num_heads": 8, "vocab_size": 50304}, 6.865e9),
    "hf_bamba": (  # Bamba 9B
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "attn_layer_indices": [9, 18, 27], "mamba_n_heads": 128, "mamba_d_head": 64,
         "mamba_d_state": 128, "vocab_size": 128256},
        9.780e9,
    ),
    "hf_nemotron_h": (  # Nemotron-H 8B
        {"hidden_size": 4096, "intermediate_size": 21504, "num_attention_heads": 32, "num_key_value_heads": 8,
         "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", "ssm_state_size": 128,
         "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "vocab_size": 131072},
        8.101e9,
    ),
    "rwkv_hub": (  # RWKV-6 World 3B
        {"hidden_size": 2560, "attention_hidden_size": 2560, "head_size": 64, "intermediate_size": None,
         "num_hidden_layers": 32, "vocab_size": 65536},
        3_099_863_040,
    ),
    "fla": ({"model_type": "gla", "hidden_size": 2048, "num_hidden_layers": 24, "num_heads": 4}, 1.3655e9),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_parameters(name):
    config, expected = RELEASED[name]
    settings = FORMATS.convert(name, "format").create().settings({"vocab_size": 32000, **config})
    params = model_cost(build(ModelConfig, settings, "model"), 4096).params
    assert params == pytest.approx(expected, rel=2e-4)
