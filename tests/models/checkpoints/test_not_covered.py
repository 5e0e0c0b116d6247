"""Settings that our mixers lack are refused in one line that names the key of config.json."""

import json

import pytest

from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.models.checkpoints.contract import FormatConfig, NotCovered
from lcprobe.models.checkpoints.export import export
from lcprobe.models.checkpoints.hf_qwen3_5 import HFQwen35
from lcprobe.models.checkpoints.load import open_folder, recognised
from tests.models.checkpoints.tiny_models import SHAPES, tiny


@pytest.mark.parametrize(
    ("shape", "change", "line"),
    [
        ("qwen3_next", {"num_experts": 8}, "num_experts: given 8; allowed: 0: experts are not covered"),
        ("griffin", {"hidden_activation": "silu"}, "hidden_activation: given 'silu'; allowed: gelu_pytorch_tanh"),
        ("griffin", {"head_dim": 16}, "head_dim: given 16; allowed: 8"),
        ("xlstm", {"weight_mode": "fused"}, "weight_mode: given 'fused'; allowed: single"),
        ("nemotron_h", {"layers_block_type": ["linear_attention", "moe"]}, "layers_block_type: given ['linear_attention', 'moe']; allowed: layers of linear_attention | full_attention | mlp, MLPs behind mixers"),
        ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": "M--"}, "hybrid_override_pattern: given 'M--'; allowed: layers of linear_attention | full_attention | mlp, MLPs behind mixers"),
        ("bamba", {"hidden_act": "relu"}, "hidden_act: given 'relu'; allowed: silu"),
        ("hf_mamba", {"quantization_config": {"bits": 4}}, "quantization_config: given {'bits': 4}; allowed: null"),
        ("fla gla", {"use_short_conv": True}, "use_short_conv: given True; allowed: False"),
        ("fla gla", {"attnres_block_size": 2}, "attnres_block_size: given 2; allowed: None"),
        ("fla gated_deltanet", {"use_gate": False}, "use_gate: given False; allowed: True"),
        ("fla gated_deltanet", {"output_gate_activation": "sigmoid"}, "output_gate_activation: given 'sigmoid'; allowed: swish | silu"),
        ("fla delta_product", {"use_forget_gate": False}, "use_forget_gate: given False; allowed: True"),
        ("fla rwkv6", {"expand_k": 0.5}, "expand_k: given 0.5; allowed: 1"),
        ("fla rwkv7", {"value_dim": [24, 48]}, "value_dim: given [24, 48]; allowed: hidden_size (24) in all layers"),
        ("rwkv6", {"attention_hidden_size": 48}, "attention_hidden_size: given 48; allowed: 24"),
    ],
)  # fmt: skip
def test_one_line_names_the_key(shape, change, line, tmp_path):
    export(tiny(shape), SHAPES[shape][0], tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(NotCovered) as error:
        open_folder(tmp_path / "a")
    assert str(error.value) == f"{path}: {line}"


def test_the_window_of_recurrentgemma_is_counted_as_the_setting_says(tmp_path):
    """W keys in transformers, W + 1 in the code that the released models were trained with."""
    export(tiny("griffin"), "hf_recurrent_gemma", tmp_path / "a")
    windows = [recognised(tmp_path / "a", settings).model.mixers["local"].config.visible_keys
               for settings in (None, {"window": "google"})]  # fmt: skip
    assert windows == [7, 8]


def test_images_and_further_predictions_of_qwen3_5_are_left_out():
    names = ("model.visual.blocks.0.attn.proj.bias", "mtp.norm.weight", "model.language_model.norm.weight")
    assert [HFQwen35(FormatConfig()).ignored(name) for name in names] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_any_value_in_config_json_is_read_or_refused_in_one_line(shape, tmp_path):
    settings = {"definition": "heavy_tail"} if shape == "mamba3" else {}
    export(tiny(shape), {"type": SHAPES[shape][0], **settings}, tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    base = json.loads(path.read_text())
    for key in base:
        for value in (None, -1, 7, 10**9, float("nan"), "x", [], [[1]], {"a": 1}, True):
            path.write_text(json.dumps({**base, key: value}))
            try:
                open_folder(tmp_path / "a", settings)
            except (CheckpointError, ConfigError) as error:
                assert "\n" not in str(error)
