"""Extensions of Mamba2 layers, in addition to their equations (test_oracles) and the contract: identities and
calibration."""

import pytest
import torch

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.contract import extended as change
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build

MAMBA = {"head_dim": 8, "d_state": 4, "chunk_size": 8}
SAME = {
    "dt_scale": {"scale": 1.0},
    "a_scale": {"scale": 1.0, "mode": "log"},
    "stuffed": {"retention": 1.0, "insertion": 1.0},
    "decimamba": {"kept": 1.0},
    "longmamba": {"kept": 1.0},
}


def model_of(layout="mamba2 x 2"):
    mixers = {"mamba2": MAMBA, "attention": {"head_dim": 8}}
    config = {"layout": layout, "d_model": 16, "vocab_size": 32, "mixers": mixers, "initializer_range": 0.5}
    return LanguageModel(build(ModelConfig, config, "model")).initialise(2).double().eval()


def text(n, length, seed):
    return torch.randint(0, 32, (n, length), generator=torch.Generator().manual_seed(seed + 7))


def extended(name, settings, layout="mamba2 x 2", factor=2.0):
    model = model_of(layout)
    choice = choose(EXTENSIONS, {"type": name, **settings}, "pe.extend")
    return change(model, choice.create(), ExtensionContext(16, factor, text))


@pytest.mark.parametrize("name", SAME)
@torch.no_grad()
def test_factors_of_one_change_no_bit(name):
    tokens = text(2, 40, 1)
    assert torch.equal(extended(name, SAME[name]).hidden(tokens)[0], model_of().hidden(tokens)[0])


@torch.no_grad()
def test_a_window_over_the_whole_sequence_changes_nothing():
    tokens = text(2, 20, 1)
    assert (
        extended("state_window", {"window": 20}).hidden(tokens)[0] - model_of().hidden(tokens)[0]
    ).abs().max() < 1e-9


def test_calibration_ends_at_a_coordinate_wise_minimum():
    model, ids, weights = model_of("mamba2 x 3"), text(4, 32, 5), torch.ones(4, 32)
    with torch.no_grad():
        before = float(model.loss(ids, weights)[0])
        values = [0.25, 1.0, 4.0]
        choice = choose(EXTENSIONS, {"type": "a_scale", "search": {"values": values, "rounds": 4}}, "pe.extend")
        choice.create().apply(model, ExtensionContext(16, 2.0, lambda n, length, seed: ids))
        after = float(model.loss(ids, weights)[0])
        assert after < before
        scans = [block.mixer.scan for block in model.blocks]
        assert any(scan.a != 1.0 for scan in scans)
        for scan in scans:
            best = scan.a
            for value in values:
                scan.a = value
                assert float(model.loss(ids, weights)[0]) >= after
            scan.a = best


@pytest.mark.parametrize(
    ("name", "settings", "layout", "factor", "message"),
    [
        ("dt_scale", {"scale": 0.5}, "attention x 2", 2.0, "no Mamba2 layer"),
        ("a_scale", {"scale": [1.0]}, "mamba2 x 2", 2.0, "one number for each of 2 layers"),
        ("a_scale", {}, "mamba2 x 2", None, "changes a model for one length"),
        ("decimamba", {}, "mamba2 x 2", None, "changes a model for one length"),
        ("decimamba", {"layers": [2]}, "mamba2 x 2", 2.0, "0 .. 1"),
        ("longmamba", {"reach": 2}, "mamba2 x 2", 2.0, "0 < reach < 1"),
        ("dt_scale", {"scale": 0}, "mamba2 x 2", 2.0, "> 0"),
        ("stuffed", {"retention": -1}, "mamba2 x 2", 2.0, "> 0"),
    ],
)
def test_impossible_settings_give_a_one_line_error(name, settings, layout, factor, message):
    with pytest.raises(ConfigError, match=message.replace("..", r"\.\.")) as caught:
        extended(name, settings, layout, factor)
    assert "\n" not in str(caught.value)
