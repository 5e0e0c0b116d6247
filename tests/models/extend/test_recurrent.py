"""What holds for extensions of Mamba2 layers beside the recurrence (test_oracles): chunks, decoding, the identity, calibration."""

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
NAMES = ["dt_scale", "a_scale", "stuffed", "state_window", "decimamba", "longmamba"]
CHANGED = {
    "dt_scale": {"scale": 0.5},
    "a_scale": {"scale": [0.5, 1.5]},
    "stuffed": {},
    "state_window": {"window": 7},
    "decimamba": {"kept": 0.5},
    "longmamba": {"kept": 0.5, "reach": 1e-9},
}
SAME = {
    "dt_scale": {"scale": 1.0},
    "a_scale": {"scale": 1.0, "mode": "log"},
    "stuffed": {"retention": 1.0, "insertion": 1.0},
    "decimamba": {"kept": 1.0},
    "longmamba": {"kept": 1.0},
}


def model(layout="mamba2 x 2"):
    mixers = {"mamba2": MAMBA, "attention": {"head_dim": 8}}
    config = {"layout": layout, "d_model": 16, "vocab_size": 32, "mixers": mixers, "initializer_range": 0.5}
    return LanguageModel(build(ModelConfig, config, "model")).initialise(2).double().eval()


def text(n, length, seed):
    return torch.randint(0, 32, (n, length), generator=torch.Generator().manual_seed(seed + 7))


def extended(name, settings, layout="mamba2 x 2", factor=2.0):
    made = model(layout)
    choice = choose(EXTENSIONS, {"type": name, **settings}, "pe.extend")
    return change(made, choice.create(), ExtensionContext(16, factor, text))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_chunks_and_decoding_equal_the_whole_and_the_checkpoint_stays(name):
    layout = "mamba2, attention" if name != "a_scale" else "mamba2 x 2"
    made, plain = extended(name, CHANGED[name], layout), model(layout)
    tokens = text(2, 33, 0)
    whole, _ = made.hidden(tokens)
    for cuts in ([10, 11, 30], list(range(1, 33))):
        state, parts, edges = made.new_state(2), [], [0, *cuts, 33]
        for lo, hi in zip(edges, edges[1:], strict=False):
            part, state = made.hidden(tokens[:, lo:hi], state=state)
            parts.append(part)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-9
    assert (plain.hidden(tokens)[0] - whole).abs().max() > 1e-4, "the method does something"
    for key, value in plain.state_dict().items():
        assert torch.equal(value, made.state_dict()[key])
    fork = state.fork(2).rows(torch.tensor([0, 3]))
    assert (
        made.hidden(tokens[:, :3], state=fork)[0] - made.hidden(tokens[:, :3], state=state)[0]
    ).abs().max() < 1e-12


@pytest.mark.parametrize("name", SAME)
@torch.no_grad()
def test_the_identity_is_bit_for_bit(name):
    tokens = text(2, 40, 1)
    assert torch.equal(extended(name, SAME[name]).hidden(tokens)[0], model().hidden(tokens)[0])


@torch.no_grad()
def test_a_window_over_everything_changes_nothing():
    tokens = text(2, 20, 1)
    assert (extended("state_window", {"window": 20}).hidden(tokens)[0] - model().hidden(tokens)[0]).abs().max() < 1e-9


def test_calibration_ends_where_no_single_layer_can_do_better():
    made, ids, weights = model("mamba2 x 3"), text(4, 32, 5), torch.ones(4, 32)
    with torch.no_grad():
        before = float(made.loss(ids, weights)[0])
        values = [0.25, 1.0, 4.0]
        choice = choose(EXTENSIONS, {"type": "a_scale", "search": {"values": values, "rounds": 4}}, "pe.extend")
        choice.create().apply(made, ExtensionContext(16, 2.0, lambda n, length, seed: ids))
        after = float(made.loss(ids, weights)[0])
        assert after < before
        scans = [block.mixer.scan for block in made.blocks]
        assert any(scan.a != 1.0 for scan in scans)
        for scan in scans:
            best = scan.a
            for value in values:
                scan.a = value
                assert float(made.loss(ids, weights)[0]) >= after
            scan.a = best


@pytest.mark.parametrize(
    ("name", "settings", "layout", "factor", "said"),
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
def test_what_does_not_fit_is_one_line(name, settings, layout, factor, said):
    with pytest.raises(ConfigError, match=said.replace("..", r"\.\.")) as caught:
        extended(name, settings, layout, factor)
    assert "\n" not in str(caught.value)
