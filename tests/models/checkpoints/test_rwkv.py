"""Names and shapes of RWKV's own checkpoints: every parameter of a model has its place there, and comes back."""

from pathlib import Path

import pytest
import torch

from lcprobe.config import load, parse
from lcprobe.errors import ConfigError
from lcprobe.models.checkpoints.rwkv import from_release, to_release
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import model_cost
from validation.oracles.rwkv import D_MODEL, VERSIONS, model_of

ROOT = Path(__file__).resolve().parents[3]
SHAPES = {
    "rwkv6": {
        "blocks.1.att.time_maa_w": (1, 1, D_MODEL),
        "blocks.1.att.time_maa_w1": (D_MODEL, 5 * 4),
        "blocks.1.att.time_maa_w2": (5, 4, D_MODEL),
        "blocks.1.att.time_decay": (1, 1, D_MODEL),
        "blocks.1.att.time_faaaa": (2, 16),
        "blocks.1.ffn.time_maa_r": (1, 1, D_MODEL),
    },
    "rwkv7": {
        "blocks.1.att.x_a": (1, 1, D_MODEL),
        "blocks.1.att.v0": (1, 1, D_MODEL),
        "blocks.1.att.v2": (4, D_MODEL),
        "blocks.1.att.r_k": (2, 16),
        "blocks.1.ffn.x_k": (1, 1, D_MODEL),
    },
}
"""As in the release, at the ranks of `model_of`."""


@pytest.mark.parametrize("version", VERSIONS)
def test_parameters_come_back(version):
    parameters = dict(model_of(version).named_parameters())
    tensors = to_release(parameters, version)
    assert {name: tuple(tensors[name].shape) for name in SHAPES[version]} == SHAPES[version]
    if version == "rwkv7":  # the release has them in the first block, too, and does not use them
        tensors |= {f"blocks.0.att.v{i}": torch.zeros(1) for i in range(3)}
    back = from_release(tensors, version)
    assert set(back) == set(parameters)
    assert all(torch.equal(back[name], value) for name, value in parameters.items())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop("blocks.2.att.key.weight"), "'no tensor blocks.2.att.key.weight'; allowed: the tensors of rwkv6"),
        (lambda t: t.update({"blocks.0.att.q": t["emb.weight"]}), "'a tensor blocks.0.att.q'; allowed: the tensors of rwkv6"),
    ],
)  # fmt: skip
def test_another_set_of_tensors_is_refused(change, line):
    tensors = to_release(dict(model_of("rwkv6").named_parameters()), "rwkv6")
    change(tensors)
    with pytest.raises(ConfigError) as error:
        from_release(tensors, "rwkv6")
    assert str(error.value) == f"checkpoint: given {line}"


def test_the_released_3b_model_has_its_number_of_parameters():
    """RWKV-6 World 3B (rwkv-6-world-3b-v2.1), on the meta device."""
    config = parse(load([str(ROOT / "configs/model/rwkv6-3b.yaml")], [])).model
    with torch.device("meta"):
        model = LanguageModel(config)
    assert sum(p.numel() for p in model.parameters()) == model_cost(config, 4096).params == 3_099_863_040
