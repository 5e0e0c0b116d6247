"""Wrapped encodings: their parameters, and the declared length that an open factor needs."""

import pytest
import torch
from torch import nn

from lcprobe.errors import ConfigError
from lcprobe.models.positional.contract import PositionalEncoding
from tests.models.extend.small_models import IDS, changed, logits, model_of


class Slope(PositionalEncoding):
    """An encoding with a parameter of its own."""

    family = "bias"

    def __init__(self, shape):
        super().__init__(None, shape)
        self.slope = nn.Parameter(torch.tensor([0.1, 0.3], dtype=torch.float64))

    def bias(self, distance):
        return -self.slope.view(-1, *[1] * distance.dim()) * distance


@torch.no_grad()
@pytest.mark.parametrize("name", ["window", "temperature", "logn"])
def test_wrapped_encodings_keep_their_parameters(name):
    model = model_of()
    for block in model.blocks:
        block.mixer.positional = Slope(block.mixer.positional.shape)
    names = list(model.state_dict())
    assert "blocks.0.mixer.positional.slope" in names
    model = changed(name, model=model)
    assert list(model.state_dict()) == names
    before = logits(model)
    model.load_state_dict({k: v * 2 if k.endswith("slope") else v for k, v in model.state_dict().items()})
    assert (logits(model) - before).abs().max() > 1e-3
    assert model.float().blocks[0].mixer.positional.inner.slope.dtype == torch.float32


def test_an_open_factor_needs_a_declared_length():
    model = changed("yarn", None)
    assert model.needs_length
    assert not changed("yarn", 4.0).needs_length
    assert changed("ntk_dynamic", 4.0).needs_length
    with pytest.raises(ConfigError, match=r"pe\.factor"):
        model.hidden(IDS)
