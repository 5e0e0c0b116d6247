"""Models come back from what export writes, with the same numbers; a format refuses what it cannot express."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError
from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.checkpoints.export import difference, export
from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from tests.models.checkpoints.tiny_models import SHAPES, tiny


def settings_of(shape: str) -> dict[str, Any]:
    return {"definition": "heavy_tail"} if shape == "mamba3" else {}


def choice_of(shape: str) -> Choice:
    return FORMATS.convert({"type": SHAPES[shape][0], **settings_of(shape)}, "format")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shape", SHAPES)
def test_import_and_export_are_inverses(shape, tmp_path):
    model, choice = tiny(shape), choice_of(shape)
    export(model, choice, tmp_path / "one", shard_bytes=9000)
    folder = recognised(tmp_path / "one", settings_of(shape))
    assert len(folder.files) > 1
    back = load_published(folder)
    assert difference(model.config, back.config) is None
    parameters = dict(back.named_parameters())
    assert set(parameters) == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(parameters[name], value) for name, value in model.named_parameters())
    export(back, choice, tmp_path / "two", shard_bytes=9000)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_tells_its_format(shape, tmp_path):
    export(tiny(shape), choice_of(shape), tmp_path / "one")
    others = [name for name in FORMATS if FORMATS.convert(name, "").create().recognises(
        json.loads((tmp_path / "one" / "config.json").read_text()), tmp_path / "one")]  # fmt: skip
    assert others == [SHAPES[shape][0]]


def test_weights_in_bfloat16_stay_as_they_are(tmp_path):
    model = tiny("mamba2attn", torch.bfloat16)
    export(model, "mamba_ssm", tmp_path / "one")
    back = dict(load_published(recognised(tmp_path / "one"), torch.bfloat16).named_parameters())
    assert all(torch.equal(back[name], value) for name, value in model.named_parameters())


def test_names_and_shapes_of_a_released_hybrid(tmp_path):
    """As in the state dict of state-spaces/mamba's hybrid."""
    export(tiny("mamba2attn"), "mamba_ssm", tmp_path / "one")
    shapes = {name: tuple(t.shape) for name, t in load_file(tmp_path / "one/model.safetensors").items()}
    mamba = {"dt_bias": (6,), "A_log": (6,), "D": (6,), "in_proj.weight": (112, 24), "conv1d.weight": (58, 1, 4),
             "conv1d.bias": (58,), "norm.weight": (48,), "out_proj.weight": (24, 48)}  # fmt: skip
    attention = {"in_proj.weight": (72, 24), "conv1d.weight": (72, 1, 4), "conv1d.bias": (72,), "out_proj.weight": (24, 24)}  # fmt: skip
    layers = [mamba, attention, mamba]
    assert shapes == {
        **{f"backbone.layers.{i}.mixer.{n}": s for i, layer in enumerate(layers) for n, s in layer.items()},
        **{f"backbone.layers.{i}.norm.weight": (24,) for i in range(3)},
        "backbone.norm_f.weight": (24,),
        "backbone.embedding.weight": (64, 24),
        "lm_head.weight": (64, 24),
    }


@pytest.mark.parametrize(
    ("format", "changes", "line"),
    [
        ("mamba_ssm", {"logit_soft_cap": 30.0}, "model.logit_soft_cap: given 30.0; allowed: None in the format mamba_ssm"),
        ("mamba_ssm", {"layout": "gla"}, "model.layout, mixer 0: given 'gla'; allowed: mamba1 in the format mamba_ssm"),
        ("mamba_ssm", {"layout": "attention+mlp", "d_ff": 72}, "model.mlp, mixer 0: given "),
        ("mamba_ssm", {"layout": "attention, mamba2+mlp", "d_ff": 128}, "model.mlp, mixer 0: given None; "),
        ("mamba_ssm", {"layout": "attention", "mixers": {"attention": {"window": 9, "head_dim": 8}}}, "model.mixers, mixer 0 (attention), window: given 9; allowed: None"),
        ("hf_llama", {"layout": "attention"}, "model.mlp, mixer 0: given None"),
        ("hf_llama", {"layout": "attention+mlp", "positional": "alibi"}, "model.mixers, mixer 0 (attention), positional: given ('alibi'"),
        ("hf_mamba2", {"layout": "mamba2+mlp", "d_ff": 40}, "model.mlp, mixer 0: given ('swiglu'"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_express_is_refused(format, changes, line, tmp_path):
    mixers = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8}, "gla": {"head_dim": 6}}
    config = {"vocab_size": 61, "d_model": 24, "n_layers": 2, "d_ff": 40, "mixers": mixers, **changes}
    model = LanguageModel(build(ModelConfig, config, "model")).initialise(0)
    with pytest.raises(ConfigError) as error:
        export(model, format, tmp_path / "one")
    assert str(error.value).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="a folder that does not exist, or is empty"):
        export(tiny("mamba2"), "mamba_ssm", tmp_path)
