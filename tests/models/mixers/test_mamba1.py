"""mamba1 in addition to the contract and to its oracles: the released size, initial values, memory, errors."""

import pytest
import torch
from torch.nn import functional as F

from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.mamba1 import Mamba1, Mamba1Config
from lcprobe.models.parts import model_cost
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from tests.models.initialised import initialised


def test_the_released_model_has_its_number_of_parameters():
    """state-spaces/mamba-130m: 129,135,360 in mamba_ssm, with the vocabulary padded to 50,280."""
    given = {"layout": "mamba1", "n_layers": 24, "d_model": 768, "vocab_size": 50280, "vocab_multiple": 8}
    assert model_cost(build(ModelConfig, given, "model"), 2048).params == 129_135_360


def test_initial_values_are_the_released_ones():
    mixer = initialised(Mamba1(Mamba1Config(), 256))
    dt = F.softplus(mixer.dt_proj.bias).log().sort().values
    assert torch.allclose(dt, torch.linspace(-6.908, -2.303, 512), atol=0.5)
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1.0, 17.0).expand(512, 16))
    assert (mixer.D == 1).all()
    assert mixer.dt_proj.weight.abs().max() <= 16**-0.5
    assert mixer.dt_proj.weight.std() > 0.9 * (16 * 3) ** -0.5


def test_training_memory_is_that_of_inputs_and_one_chunk():
    """Tensors kept for the backward pass have less than half the numbers of one (seqlen, channels, d_state)."""
    seqlen, mixer = 64, initialised(Mamba1(Mamba1Config(d_state=64, chunk_size=8), 8))
    kept = {}

    def note(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // 4
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        mixer(torch.randn(1, seqlen, 8), TokenContext(torch.arange(seqlen)))
    assert sum(kept.values()) < seqlen * 16 * 64 / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_state": 0}, "d_state: given 0; allowed: >= 1"),
        ({"dt_rank": 0}, "dt_rank: given 0; allowed: >= 1 or null"),
        ({"chunk_size": 0}, "chunk_size: given 0; allowed: >= 1 or null"),
        ({"d_conv": 1}, "d_conv: given 1; allowed: >= 2"),
        ({"expand": 0.0}, "expand: given 0.0; allowed: > 0"),
        ({"dt_min": 0.2}, "dt_min: given 0.2; allowed: 0 < dt_min <= dt_max (0.1)"),
    ],
)
def test_settings_out_of_range_are_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        Mamba1Config(**settings).check("it")
    assert str(caught.value) == f"it.{message}"


def test_a_width_without_channels_is_one_line():
    with pytest.raises(ConfigError) as caught:
        Mamba1(Mamba1Config(expand=0.01), 8)
    assert str(caught.value) == "expand: given 0.01; allowed: at least 1 / d_model (1 / 8)"
