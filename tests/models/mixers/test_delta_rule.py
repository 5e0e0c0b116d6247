"""Mixers with a gated delta rule, in addition to the contract and to their oracles: shapes of releases, initial values,
errors."""

import dataclasses

import pytest
import torch

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.mixers import MIXERS
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import field_docs
from tests.models.initialised import initialised

NAMES = ["delta_product", "gated_deltanet", "gdn2", "kda"]
RELEASES = {
    # transformers' Qwen3NextGatedDeltaNet at the settings of Qwen3-Next-80B-A3B
    "Qwen3-Next": ("gated_deltanet", {"head_dim": 128, "value_heads": 2}, 2048, 33_718_464),
    # transformers' KimiLinearDeltaAttention at the settings of Kimi-Linear-48B-A3B
    "Kimi-Linear": ("kda", {"head_dim": 128, "expand": 4096 / 2304, "expand_v": 4096 / 2304}, 2304, 39_514_272),
    # flash-linear-attention's GatedDeltaNet at its defaults
    "fla's GatedDeltaNet": ("gated_deltanet", {"head_dim": 256, "expand": 0.75, "expand_v": 1.5}, 2048, 25_215_500),
    # its GatedDeltaProduct and GatedDeltaNet2
    "fla's GatedDeltaProduct": (
        "delta_product",
        {"head_dim": 256, "expand": 0.75, "expand_v": 1.5},
        2048,
        34_683_404,
    ),
    "fla's GatedDeltaNet2": ("gdn2", {"head_dim": 128}, 2048, 26_243_216),
}


def config_of(name, **settings):
    return choose(MIXERS, {"type": name, **settings}, "model.mixers.it").config


@pytest.mark.parametrize("release", RELEASES)
def test_layers_of_releases_have_their_number_of_parameters(release):
    name, settings, d_model, parameters = RELEASES[release]
    assert MIXERS.load(name).cost(config_of(name, **settings), d_model, 1).params == parameters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("settings", "d_model", "message"),
    [
        ({"head_dim": 24}, 64, "head_dim: given 24; allowed: a divisor of expand x d_model (64)"),
        ({"head_dim": 8, "expand": 0.1}, 64, "head_dim: given 8; allowed: a divisor of expand x d_model (6)"),
        (
            {"head_dim": 8, "expand_v": 1.3},
            64,
            "expand_v: given 1.3; allowed: a width (now 83) that 8 heads of values divide",
        ),
    ],
)
def test_heads_that_do_not_divide_are_one_line(name, settings, d_model, message):
    with pytest.raises(ConfigError) as caught:
        MIXERS.load(name)(config_of(name, **settings), d_model)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("delta_product", {"n_steps": 0}, "n_steps: given 0; allowed: >= 1"),
        ("gdn2", {"rank": 0}, "rank: given 0; allowed: >= 1 or null"),
        ("kda", {"rank": -1}, "rank: given -1; allowed: >= 1 or null"),
        ("gated_deltanet", {"chunk_size": 24}, "chunk_size: given 24; allowed: a power of two"),
        ("gated_deltanet", {"value_heads": 0}, "value_heads: given 0; allowed: >= 1"),
        ("gated_deltanet", {"A_init_range": [0, 16]}, "A_init_range: given [0.0, 16.0]; allowed: 0 < low <= high"),
        ("gated_deltanet", {"dt_min": 0.2}, "dt_min: given 0.2; allowed: 0 < dt_min <= dt_max (0.1)"),
        ("gated_deltanet", {"d_conv": 1}, "d_conv: given 1; allowed: >= 2"),
    ],
)
def test_settings_out_of_range_are_one_line(name, settings, message):
    with pytest.raises(ConfigError) as caught:
        config_of(name, **settings)
    assert str(caught.value) == f"model.mixers.it.{message}"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring_inherited_ones_too(name):
    cls = MIXERS.load(name).Config
    assert set(field_docs(cls)) == {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("name", NAMES)
def test_decays_start_in_their_range(name):
    """Where nothing is projected, -log(alpha) is A softplus(dt_bias): between 0.01 x 1e-3 and 16 x 0.1."""
    mixer = initialised(MIXERS.load(name)(config_of(name, head_dim=4), 256))
    projected = mixer.project(torch.zeros(1, 1, 256))
    exponent = -mixer.log_decay(projected.decay)
    low, high = mixer.config.A_init_range
    assert low * 0.9e-3 < exponent.min() < high * 0.01
    assert low * 0.1 < exponent.max() < high * 0.101


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("negative", [False, True])
def test_a_key_written_twice_holds_its_second_value_only(name, negative):
    """With beta = 1 and no decay the rule replaces what a key holds; with beta = 2 it also changes its sign. gdn2
    erases with 2 then, but writes with 1."""
    settings = {"head_dim": 8, "expand_v": 1, "negative_eigenvalues": negative}
    if name == "delta_product":
        settings["n_steps"] = 1
    mixer = initialised(MIXERS.load(name)(config_of(name, **settings), 8))
    written = torch.zeros(1, 8, 8)
    written[:, 0, 0] = 3.0
    with torch.no_grad():
        mixer.A_log.fill_(-40.0)
        for parameter in (mixer.conv_weight, mixer.out_proj.weight):
            parameter.zero_()
        mixer.conv_weight[:, -1] = 1.0
    held = []

    def project(x, plain=mixer.project):
        given = plain(x)
        qkv = torch.zeros_like(given.qkv)
        qkv[..., 8], qkv[..., 16:] = 30.0, held[-1]  # one key, and the value to write
        return given._replace(qkv=qkv, beta=torch.full_like(given.beta, 40.0))

    mixer.project = project
    state = mixer.new_state(1)
    for value in (5.0, 7.0):
        held.append(value)
        _, state = mixer(written[:, :1], TokenContext(torch.arange(1)), state)
    silu = torch.nn.functional.silu
    first, second = silu(torch.tensor(5.0)), silu(torch.tensor(7.0))
    scale = 2 if negative and name != "gdn2" else 1
    want = scale * second - (scale * first if negative else 0)
    assert (state.memory[0, 0, 0] - want).abs().max() < 1e-4


def test_one_step_of_delta_product_is_gated_deltanet():
    shared, x = {"head_dim": 4, "value_heads": 2, "negative_eigenvalues": True}, torch.randn(2, 20, 8)
    product = initialised(MIXERS.load("delta_product")(config_of("delta_product", n_steps=1, **shared), 8))
    net = MIXERS.load("gated_deltanet")(config_of("gated_deltanet", **shared), 8)
    net.load_state_dict(product.state_dict())
    where = TokenContext(torch.arange(20))
    assert torch.equal(product(x, where)[0], net(x, where)[0])


def test_gdn2_with_both_gates_equal_to_one_beta_is_kda():
    shared, x = {"head_dim": 4, "rank": 3}, torch.randn(2, 20, 8, dtype=torch.float64)
    kda = initialised(MIXERS.load("kda")(config_of("kda", **shared), 8)).double()
    gdn2 = MIXERS.load("gdn2")(config_of("gdn2", **shared), 8).double()
    qkv, beta, ranks = kda.in_proj.weight.split([24, 2, 6])
    channels = beta.repeat_interleave(4, 0)
    weights = {**kda.state_dict(), "in_proj.weight": torch.cat([qkv, channels, channels, ranks])}
    gdn2.load_state_dict({**weights, "gate_proj.bias": torch.zeros(8)})
    where = TokenContext(torch.arange(20))
    assert (kda(x, where)[0] - gdn2(x, where)[0]).abs().max() < 1e-12
