"""mamba3 in addition to the contract and to its oracle: the released size, definitions, long sequences, errors."""

import math

import pytest
import torch
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.mamba3 import Mamba3, Mamba3Config, heavy_tail
from lcprobe.models.token_context import TokenContext
from tests.models.initialised import initialised

RELEASES = "softplus (mamba-ssm 2.3.2, flash-linear-attention 0.6.0) | heavy_tail (mamba from June 2026)"


def test_the_released_layer_has_its_number_of_parameters():
    """flash-linear-attention's Mamba3 on the meta device, at its defaults and with other settings."""
    assert Mamba3.cost(Mamba3Config("softplus"), 2048, 1).params == 26_165_632
    other = Mamba3Config("softplus", output_norm=True, n_groups=2, rope_fraction=1.0)
    assert Mamba3.cost(other, 1024, 1).params == 6_990_144


@pytest.mark.parametrize("given", [{}, {"definition": "gaussian"}, {"definition": None}])
def test_a_definition_is_required_and_errors_tell_the_releases_apart(given):
    with pytest.raises(ConfigError) as caught:
        choose(MIXERS, {"type": "mamba3", **given}, "model.mixers.it")
    message = str(caught.value)
    assert message.startswith("model.mixers.it.definition: given ")
    assert message.endswith(f"; allowed: {RELEASES}")


def test_heavy_tail_is_smooth_where_its_pieces_meet_and_has_finite_slopes():
    x = torch.tensor([-1e6, -1.0, 0.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = heavy_tail(x)
    assert torch.allclose(y, torch.tensor([1 / (1 + 1e6), 0.5, 1.0, 2.0, 4.0], dtype=torch.float64))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope, torch.tensor([1 / (1 + 1e6) ** 2, 0.25, 1.0, 1.0, 1.0], dtype=torch.float64))


def test_definitions_compute_different_functions_of_the_same_weights():
    x, outputs = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(0)), []
    for definition in ("softplus", "heavy_tail"):
        mixer = initialised(Mamba3(Mamba3Config(definition, head_dim=8, d_state=8), 16))
        outputs.append(mixer(x, TokenContext(torch.arange(9)))[0])
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3 * outputs[0].abs().max()


def test_initial_values_are_the_released_ones():
    mixer = initialised(Mamba3(Mamba3Config("softplus", head_dim=4), 128))
    dt = F.softplus(mixer.dt_bias).log().sort().values
    assert torch.allclose(dt, torch.linspace(math.log(1e-3), math.log(0.1), 64), atol=0.9)
    for name in ("B_bias", "C_bias", "B_norm_weight", "C_norm_weight", "D"):
        assert (mixer.get_parameter(name) == 1).all()


def test_angles_stay_exact_over_long_sequences():
    """After 20,000 tokens of float32, read in pieces, theta is that of exact arithmetic to float32's precision."""
    mixer = Mamba3(Mamba3Config("softplus", head_dim=4, d_state=4), 4)
    generator = torch.Generator().manual_seed(0)
    angles, dt = torch.randn(1, 20_000, 1, generator=generator), torch.rand(1, 20_000, 2, generator=generator)
    theta, where = mixer.new_state(1).angles, TokenContext(torch.arange(1))
    for lo in range(0, 20_000, 1_000):
        theta = mixer.theta(angles[:, lo : lo + 1_000], dt[:, lo : lo + 1_000], where, theta)[:, -1]
    turns = [math.fsum((math.pi * dt[0, :, h].double() * angles[0, :, 0].double().tanh()).tolist()) for h in (0, 1)]
    apart = (
        torch.remainder(theta[0, :, 0] - torch.tensor(turns, dtype=torch.float64) + math.pi, 2 * math.pi) - math.pi
    )
    assert apart.abs().max() < 1e-7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_state": 0}, "d_state: given 0; allowed: >= 1"),
        ({"chunk_size": 24}, "chunk_size: given 24; allowed: a power of two"),
        ({"A_floor": 0.0}, "A_floor: given 0.0; allowed: > 0"),
        ({"dt_min": 0.2}, "dt_min: given 0.2; allowed: 0 < dt_min <= dt_max (0.1)"),
        (
            {"rope_fraction": 0.1, "d_state": 16},
            "rope_fraction: given 0.1; allowed: a fraction up to 1 of which two channels or more rotate (d_state 16)",
        ),
        (
            {"rope_fraction": 1.5},
            "rope_fraction: given 1.5; allowed: a fraction up to 1 of which two channels or more rotate (d_state 128)",
        ),
    ],
)
def test_settings_out_of_range_are_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        Mamba3Config("softplus", **settings).check("it")
    assert str(caught.value) == f"it.{message}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_dim": 24}, "head_dim: given 24; allowed: a divisor of expand x d_model (128)"),
        ({"n_groups": 3}, "n_groups: given 3; allowed: a divisor of the number of heads (2)"),
    ],
)
def test_heads_that_do_not_divide_are_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        Mamba3(Mamba3Config("softplus", **settings), 64)
    assert str(caught.value) == message
