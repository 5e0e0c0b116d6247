"""RWKV's own checkpoints, one .pth file: sizes come from names and shapes, and every tensor has its place."""

from pathlib import Path

import pytest
import torch

from lcprobe.config import load, parse
from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.models.checkpoints.export import difference, export
from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import model_cost
from validation.oracles.rwkv import D_MODEL, VERSIONS, model_of, save_release

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


def released(path, version, change=lambda tensors: None):
    model = model_of(version)
    save_release(model, path)
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)
    return model, tensors


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_model_comes_back_from_its_file(version, as_folder, tmp_path):
    path = tmp_path / "RWKV-x-ctx4096.pth"
    unused = {f"blocks.0.att.v{i}": torch.zeros(1) for i in range(3)} if version == "rwkv7" else {}
    model, tensors = released(path, version, lambda t: t.update(unused))
    assert {name: tuple(tensors[name].shape) for name in SHAPES[version]} == SHAPES[version]
    back = load_published(recognised(tmp_path if as_folder else path))
    assert difference(model.config, back.config) is None
    parameters = dict(back.named_parameters())
    assert set(parameters) == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(parameters[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop("blocks.2.att.key.weight"), "{folder}/a.pth: no tensor blocks.2.att.key.weight in a.pth"),
        (lambda t: t.pop("emb.weight"), "{folder}/a.pth: no tensor emb.weight"),
        (lambda t: t.update({"blocks.0.att.q": t["emb.weight"]}), "{folder}/a.pth: an unexpected tensor blocks.0.att.q; allowed: those of rwkv"),
        (lambda t: t.update({"blocks.1.ffn.key.weight": torch.zeros(3, 4)}), "{folder}/a.pth: blocks.1.ffn.key.weight has shape [3, 4]; allowed: [48, 32]"),
        (lambda t: t.update({"blocks.0.att.time_faaaa": torch.zeros(4)}), "{folder}/a.pth: blocks.0.att.time_faaaa has shape [4]; allowed: that of rwkv6"),
        (lambda t: (t.clear(), t.update({"blocks.0.att.time_mix_k": torch.zeros(4)})), "{folder}/a.pth: RWKV-5 or earlier; allowed: RWKV-6 | RWKV-7"),
        (lambda t: (t.clear(), t.update({"w": torch.zeros(4)})), "{folder}/a.pth: no config.json, and no tensor of RWKV (blocks.0.att.x_r); allowed: RWKV-6 | RWKV-7"),
    ],
)  # fmt: skip
def test_another_set_of_tensors_is_one_line(change, line, tmp_path):
    released(tmp_path / "a.pth", "rwkv6", change)
    with pytest.raises(CheckpointError) as error:
        load_published(recognised(tmp_path / "a.pth"))
    assert str(error.value) == line.format(folder=tmp_path)


def test_it_is_not_written(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^format: given 'rwkv'; allowed: one with a config.json, such as fla_rwkv"
    ):
        export(model_of("rwkv6"), "rwkv", tmp_path / "a")


def test_the_released_3b_model_has_its_number_of_parameters():
    """RWKV-6 World 3B (rwkv-6-world-3b-v2.1), on the meta device."""
    config = parse(load([str(ROOT / "configs/model/rwkv6-3b.yaml")], [])).model
    with torch.device("meta"):
        model = LanguageModel(config)
    assert sum(p.numel() for p in model.parameters()) == model_cost(config, 4096).params == 3_099_863_040
