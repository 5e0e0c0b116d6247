"""Extensions of frequencies, in addition to their equations and peers (test_oracles): identities, limits, open
factors."""

import math

import pytest
import torch

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.rotary import RescaledFrequencies, Rescaling, rebased
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.rope import RoPE, RoPEConfig

L, D = 2048, 64
DEVICE = torch.device("cpu")
FACTORS = [1 + 0.1 * i for i in range(D // 2)]
METHODS = [name for name in EXTENSIONS if issubclass(EXTENSIONS.load(name), Rescaling)]


def trained(base=10000.0, dim=D):
    return RoPE(RoPEConfig(base), HeadShape(1, 1, dim, dim)).frequencies(DEVICE)


def changed(mapping, factor, length=None, base=10000.0, context_length=L):
    choice = choose(EXTENSIONS, mapping, "pe.extend")
    return RescaledFrequencies(choice.cls, choice.config, context_length, factor)(trained(base), length)


@pytest.mark.parametrize("length", [None, 100, 8 * L])
@pytest.mark.parametrize("method", METHODS)
def test_factor_one_changes_no_bit(method, length):
    ours, scale = changed({"type": method}, 1.0, length)
    assert torch.equal(ours, trained())
    assert scale == 1.0


def test_ntk_keeps_the_fastest_pair_and_interpolates_the_slowest():
    ours, _ = changed({"type": "ntk"}, 4.0)
    assert ours[0] == 1
    assert ours[-1].item() == pytest.approx(trained()[-1].item() / 4, rel=1e-12)
    assert torch.allclose(ours, trained(10000 * 4 ** (D / (D - 2))), rtol=1e-12)


def test_variants_of_dynamic_ntk():
    assert torch.equal(changed({"type": "ntk_dynamic", "variant": "length"}, 7.0, 4 * L)[0], rebased(trained(), 4.0))
    hf, _ = changed({"type": "ntk_dynamic"}, 4.0, 4 * L)
    assert (trained()[-1] / hf[-1]).item() == pytest.approx(13)  # 4 x 4 - 3


def test_ramps_of_yarn():
    dim, scale = changed({"type": "yarn"}, 4.0)
    rotations, same = changed({"type": "yarn", "ramp": "rotations"}, 4.0)
    assert scale == same == pytest.approx(1.138629, abs=1e-6)
    assert torch.equal(rotations, changed({"type": "ntk_by_parts"}, 4.0)[0])
    assert 0.5 < ((dim - rotations).abs() / rotations).max() < 1


@pytest.mark.parametrize("inner", [None, "pi", {"type": "yarn", "ramp": "rotations"}])
def test_resonance_rounds_the_wavelengths_of_its_inner_method(inner):
    ours, scale = changed({"type": "resonance", "scaling": inner}, 4.0)
    before, same = (
        (trained(), 1.0) if inner is None else changed({"type": inner} if isinstance(inner, str) else inner, 4.0)
    )
    assert scale == same
    waves = 2 * math.pi / ours
    assert (waves - waves.round()).abs().max() < 1e-9
    assert (waves - 2 * math.pi / before).abs().max() <= 0.5 + 1e-9
    turns = torch.arange(3, dtype=torch.float64)[:, None] * waves.round() * ours  # full turns
    assert (turns.cos() - 1).abs().max() < 1e-12


def test_drop_sets_all_frequencies_to_zero():
    assert not changed({"type": "drop"}, 4.0)[0].any()


def test_longrope_is_as_trained_inside_the_training_length_without_short_factors():
    ours, scale = changed({"type": "longrope", "long": FACTORS}, 4.0, L)
    assert torch.equal(ours, trained())
    assert scale == 1
    assert changed({"type": "longrope", "long": FACTORS}, 4.0, L + 1)[1] == pytest.approx(
        math.sqrt(1 + math.log(4) / math.log(L))
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_open_factor_is_the_length_over_the_training_length(method):
    mapping = {"type": method} | ({"long": FACTORS} if method == "longrope" else {})
    open_, fixed = changed(mapping, None, 4 * L), changed(mapping, 4.0, 4 * L)
    assert torch.equal(open_[0], fixed[0])
    assert open_[1] == fixed[1]
    assert torch.equal(changed(mapping, None, L)[0], trained())
    with pytest.raises(ConfigError, match=r"pe\.factor"):
        changed(mapping, None)


def test_zero_frequencies_stay_zero():
    still = torch.cat([trained(), torch.zeros(4, dtype=torch.float64)])
    for method in METHODS:
        mapping = {"type": method} | ({"long": [2.0] * 36} if method == "longrope" else {})
        choice = choose(EXTENSIONS, mapping, "pe.extend")
        ours, _ = RescaledFrequencies(choice.cls, choice.config, L, 4.0)(still, 2 * L)
        assert ours.isfinite().all()
        assert not ours[32:].any(), method
