"""Extensions of frequencies: transformers' rope utilities as the oracle, the papers' formulas where it has none."""

import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lcprobe.choices import choose, target
from lcprobe.errors import ConfigError
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.rotary import Rescaling, Scaled, rebased
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.rope import RoPE, RoPEConfig

L, D = 2048, 64
DEVICE = torch.device("cpu")
FACTORS = [1 + 0.1 * i for i in range(D // 2)]
METHODS = [name for name in EXTENSIONS if issubclass(target(EXTENSIONS, name, "x"), Rescaling)]


def trained(base=10000.0, dim=D):
    return RoPE(RoPEConfig(base), HeadShape(1, 1, dim, dim)).frequencies(DEVICE)


def changed(mapping, factor, length=None, base=10000.0, context_length=L):
    choice = choose(EXTENSIONS, mapping, "pe.extend")
    return Scaled(choice.made_by, choice.config, context_length, factor)(trained(base), length)


def theirs(kind, factor, length=None, base=10000.0, **more):
    rope = {"rope_type": kind, "rope_theta": base, "factor": factor, "original_max_position_embeddings": L, **more}
    config = LlamaConfig(hidden_size=D, num_attention_heads=1, head_dim=D, max_position_embeddings=L, rope_parameters=rope)
    return ROPE_INIT_FUNCTIONS[kind](config, None, length)


CASES = [
    ("pi", {"type": "pi"}, "linear", {}, None),
    ("ntk_dynamic", {"type": "ntk_dynamic"}, "dynamic", {}, 4 * L),
    ("ntk_dynamic, short", {"type": "ntk_dynamic"}, "dynamic", {}, L // 2),
    ("yarn", {"type": "yarn"}, "yarn", {}, None),
    ("yarn, not truncated", {"type": "yarn", "truncate": False}, "yarn", {"truncate": False}, None),
    ("yarn, other ends", {"type": "yarn", "a": 2, "b": 16}, "yarn", {"beta_fast": 16, "beta_slow": 2}, None),
    ("llama3", {"type": "llama3"}, "llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}, None),
    ("ntk_by_parts", {"type": "ntk_by_parts", "a": 2, "b": 9}, "llama3", {"low_freq_factor": 2.0, "high_freq_factor": 9.0}, None),
    ("longrope", {"type": "longrope", "long": FACTORS, "short": [1.0] * 32}, "longrope",
     {"long_factor": FACTORS, "short_factor": [1.0] * 32}, 4 * L),
    ("longrope, short", {"type": "longrope", "long": FACTORS, "short": FACTORS[::-1]}, "longrope",
     {"long_factor": FACTORS, "short_factor": FACTORS[::-1]}, L),
]  # fmt: skip


@pytest.mark.parametrize("factor", [1.5, 4.0, 32.0])
@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_frequencies_equal_transformers(case, factor, base):
    _, mapping, kind, more, length = case
    ours, scale = changed(mapping, factor, length, base)
    expected, expected_scale = theirs(kind, factor, length, base, **more)
    assert ours.dtype == torch.float64
    assert (ours - expected).abs().max() < 1.2e-7  # theirs are float32, at most 1
    assert ((ours - expected) / expected).abs().max() < 2e-6
    assert scale == pytest.approx(expected_scale, abs=1e-12)


@pytest.mark.parametrize("length", [None, 100, 8 * L])
@pytest.mark.parametrize("method", METHODS)
def test_factor_one_is_the_identity_bit_for_bit(method, length):
    ours, scale = changed({"type": method}, 1.0, length)
    assert torch.equal(ours, trained())
    assert scale == 1.0


def test_ntk_keeps_the_fastest_pair_and_interpolates_the_slowest():
    ours, _ = changed({"type": "ntk"}, 4.0)
    assert ours[0] == 1
    assert ours[-1].item() == pytest.approx(trained()[-1].item() / 4, rel=1e-12)
    assert torch.allclose(ours, trained(10000 * 4 ** (D / (D - 2))), rtol=1e-12)


def test_dynamic_ntk_forms_differ_and_are_what_their_names_say():
    assert torch.equal(changed({"type": "ntk_dynamic", "variant": "length"}, 7.0, 4 * L)[0], rebased(trained(), 4.0))
    hf, _ = changed({"type": "ntk_dynamic"}, 4.0, 4 * L)
    assert (trained()[-1] / hf[-1]).item() == pytest.approx(13)  # 4 x 4 - 3


def test_ntk_by_parts_is_the_papers_ramp():
    ours, _ = changed({"type": "ntk_by_parts"}, 4.0)
    for theta, got in zip(trained().tolist(), ours.tolist(), strict=True):
        turns = L * theta / (2 * math.pi)
        kept = min(1, max(0, (turns - 1) / 31))
        assert got == pytest.approx((1 - kept) * theta / 4 + kept * theta, rel=1e-12)


def test_yarns_ramps_differ_by_name():
    dim, scale = changed({"type": "yarn"}, 4.0)
    rotations, same = changed({"type": "yarn", "ramp": "rotations"}, 4.0)
    assert scale == same == pytest.approx(1.138629, abs=1e-6)
    assert torch.equal(rotations, changed({"type": "ntk_by_parts"}, 4.0)[0])
    assert 0.5 < ((dim - rotations).abs() / rotations).max() < 1


@pytest.mark.parametrize("inner", [None, "pi", {"type": "yarn", "ramp": "rotations"}])
def test_resonance_rounds_wavelengths_after_its_method(inner):
    ours, scale = changed({"type": "resonance", "scaling": inner}, 4.0)
    before, same = (trained(), 1.0) if inner is None else changed({"type": inner} if isinstance(inner, str) else inner, 4.0)
    assert scale == same
    waves = 2 * math.pi / ours
    assert (waves - waves.round()).abs().max() < 1e-9
    assert (waves - 2 * math.pi / before).abs().max() <= 0.5 + 1e-9
    turns = torch.arange(3, dtype=torch.float64)[:, None] * waves.round() * ours  # back to the same angles
    assert (turns.cos() - 1).abs().max() < 1e-12


def test_drop_turns_nothing():
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


def test_pairs_that_do_not_turn_stay_still():
    still = torch.cat([trained(), torch.zeros(4, dtype=torch.float64)])
    for method in METHODS:
        mapping = {"type": method} | ({"long": [2.0] * 36} if method == "longrope" else {})
        choice = choose(EXTENSIONS, mapping, "pe.extend")
        ours, _ = Scaled(choice.made_by, choice.config, L, 4.0)(still, 2 * L)
        assert ours.isfinite().all()
        assert not ours[32:].any(), method
