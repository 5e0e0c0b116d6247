"""The norm of gradients does not depend on how processes divide them."""

import math

import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from lcprobe.training.strategies.division import Division
from lcprobe.training.strategies.gradients import clip_gradients, squares

CPU = torch.device("cpu")


def test_parts_have_the_squares_of_their_whole():
    """In float32 a sum of so many is off by more than 1e-6 of itself, and by another share for each size."""
    whole = torch.rand(1 << 21, generator=torch.Generator().manual_seed(0)) * 1e-3
    exact = math.fsum(whole.double().square().tolist())
    assert float(squares([whole], CPU)) == pytest.approx(exact, rel=1e-12)
    for n in (2, 7):
        assert float(squares(whole.chunk(n), CPU)) == pytest.approx(exact, rel=1e-12)
    assert float(squares([whole[:0], whole], CPU)) == pytest.approx(exact, rel=1e-12), "a process without rows"
    assert float(squares([], CPU)) == 0


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("most", [0.1, 1e6])
def test_gradients_are_clipped_to_a_norm(most, dtype, close):
    """As torch.nn.utils.clip_grad_norm_ does, in the dtype of the weights."""
    sizes = {"layout": "attention+mlp", "d_model": 16, "d_ff": 16, "vocab_size": 64}
    model = LanguageModel(build(ModelConfig, {**sizes, "mixers": {"attention": {"head_dim": 8}}}, "model"))
    model.initialise(0).to(dtype)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    model.loss(tokens, torch.ones(2, 16))[0].backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    norm = clip_gradients(model, Division(), most)
    after = [parameter.grad.clone() for parameter in model.parameters()]
    for parameter, grad in zip(model.parameters(), before, strict=True):
        parameter.grad = grad
    assert float(norm) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(model.parameters(), most)), rel=close)
    for parameter, grad in zip(model.parameters(), after, strict=True):
        assert torch.allclose(grad, parameter.grad, rtol=close, atol=0)
