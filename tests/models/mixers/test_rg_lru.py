"""rg_lru in addition to the contract and to its oracles: shapes of releases, initial values, limits, errors."""

import pytest
import torch
from torch.nn import functional as F

from lcprobe.errors import ConfigError
from lcprobe.models.mixers.rg_lru import RGLRU, RGLRUConfig
from lcprobe.models.token_context import TokenContext
from tests.models.initialised import initialised


def test_the_released_layer_has_its_number_of_parameters():
    """RecurrentGemma-2B: transformers' RecurrentGemmaRecurrentBlock at width 2560 with 10 heads."""
    assert RGLRU.cost(RGLRUConfig(n_blocks=10), 2560, 1).params == 20_999_680


def test_initial_values_are_the_released_ones():
    mixer = initialised(RGLRU(RGLRUConfig(n_blocks=4), 512))
    squares = (-2 * F.softplus(mixer.a_param)).exp().sort().values
    assert torch.allclose(squares, torch.linspace(0.81, 0.998, 512), atol=0.02)
    for value, std in (
        (mixer.in_proj.weight, 512**-0.5),
        (mixer.conv_weight, 0.05),
        (mixer.gate_weight, 128**-0.5),
        (mixer.out_proj.weight, (2 / 512) ** 0.5),
    ):
        assert abs(value.std() / std - 1) < 0.06
    assert not any(p.any() for name, p in mixer.named_parameters() if name.endswith("bias"))


def test_a_closed_recurrence_gate_has_finite_gradients():
    """Where r is 0 in float32, a is 1 and the derivative of sqrt(1 - a^2) infinite; it is bounded."""
    mixer = initialised(RGLRU(RGLRUConfig(n_blocks=2), 8))
    with torch.no_grad():
        mixer.gate_bias.view(2, 2, -1)[:, 1] = -200.0  # of the recurrence gates
    x = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
    mixer(x, TokenContext(torch.arange(9)))[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())


def test_small_decay_rates_are_not_rounded_away():
    """1 - a^2 of 1e-9 is 0 in float32 where a is squared; the inputs of such a channel would be lost."""
    mixer = initialised(RGLRU(RGLRUConfig(n_blocks=1), 4))
    u, first = torch.ones(1, 2, 4), torch.tensor([[True, False]])
    with torch.no_grad():
        mixer.a_param.fill_(-22.0)
        single = mixer.decays_and_inputs(u, first)[1]
        exact = mixer.double().decays_and_inputs(u.double(), first)[1]
    assert (single / exact - 1).abs().max() < 1e-6


def test_the_state_of_a_sequence_carries_over_to_another():
    """A token at the start of a row keeps what a given state holds, decayed, as in any other place."""
    mixer = initialised(RGLRU(RGLRUConfig(n_blocks=2), 8))
    x, where = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1)), TokenContext(torch.arange(3))
    with torch.no_grad():
        fresh = mixer.new_state(1)
        _, after = mixer(x, where, fresh)
        _, carried = mixer(x, where, type(fresh)(torch.ones_like(fresh.h), fresh.conv))
    kept = carried.h - after.h
    assert (kept > 0).all()
    assert (kept < 1).all()


@pytest.mark.parametrize(
    ("settings", "d_model", "message"),
    [
        ({}, 36, "n_blocks: given 8; allowed: a divisor of expand x d_model (36)"),
        ({"n_blocks": 10, "expand": 1.5}, 64, "n_blocks: given 10; allowed: a divisor of expand x d_model (96)"),
    ],
)
def test_blocks_that_do_not_divide_are_one_line(settings, d_model, message):
    with pytest.raises(ConfigError) as caught:
        RGLRU(RGLRUConfig(**settings), d_model)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_blocks": 0}, "n_blocks: given 0; allowed: >= 1"),
        ({"a_init_range": (0.9, 1.0)}, "a_init_range: given [0.9, 1.0]; allowed: 0 < low <= high < 1"),
        ({"d_conv": 1}, "d_conv: given 1; allowed: >= 2"),
        ({"expand": 0.0}, "expand: given 0.0; allowed: > 0"),
    ],
)
def test_settings_out_of_range_are_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        RGLRUConfig(**settings).check("it")
    assert str(caught.value) == f"it.{message}"
