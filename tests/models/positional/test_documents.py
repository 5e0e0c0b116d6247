"""A document reads the same wherever it stands in a packed row, whichever encoding a model has."""

import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import build

N = 40
IDS = torch.randint(0, 40, (2, N), generator=torch.Generator().manual_seed(0))
BEGINS = [[17], [9, 28]]


def model(name, **settings):
    mixers = {"attention": {"head_dim": 16, "n_kv_heads": 1}}
    sizes = {
        "layout": "attention+mlp x 2",
        "d_model": 32,
        "d_ff": 16,
        "vocab_size": 40,
        "context_length": N,
        "mixers": mixers,
    }
    made = (
        LanguageModel(build(ModelConfig, {**sizes, "positional": {"type": name}, **settings}, "model"))
        .initialise(2)
        .double()
    )
    with torch.no_grad():
        for own, p in made.named_parameters():
            if "positional" in own:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
            elif "in_proj" in own:
                p.mul_(3)
    return made.eval()


def starts():
    made = torch.zeros(2, N, dtype=torch.bool)
    for row, places in enumerate(BEGINS):
        made[row, places] = True
    return made


@torch.no_grad()
@pytest.mark.parametrize("name", POSITIONAL)
def test_a_document_of_a_packed_row_equals_the_same_one_alone(name):
    made = model(name)
    packed, _ = made.hidden(IDS, starts=starts())
    for row, places in enumerate(BEGINS):
        for lo, hi in zip([0, *places], [*places, N], strict=True):
            alone, _ = made.hidden(IDS[row : row + 1, lo:hi])
            assert (packed[row, lo:hi] - alone[0]).abs().max() < 1e-11
    state, parts = made.new_state(2), []
    for lo, hi in ((0, 12), (12, 13), (13, 30), (30, N)):
        some = starts()[:, lo:hi] if lo < 30 else None  # what follows goes on in the last document
        hidden, state = made.hidden(IDS[:, lo:hi], starts=some, state=state)
        parts.append(hidden)
    assert (torch.cat(parts, 1) - packed).abs().max() < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("name", ["learned", "sinusoidal", "fope"])
def test_drawn_positions_begin_anew_too(name):
    """The first tokens of every document of a row stand at the first of the row's drawn positions."""
    made = model(name, positions={"type": "randomized", "max_length": N if name == "learned" else 200})
    packed, _ = made.hidden(IDS, starts=starts(), length=N)
    for row, places in enumerate(BEGINS):
        for lo, hi in zip([0, *places], [*places, N], strict=True):
            alone, _ = made.hidden(IDS[row : row + 1, lo:hi], length=N)
            assert (packed[row, lo:hi] - alone[0]).abs().max() < 1e-11
