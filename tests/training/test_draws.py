"""Random numbers of a step are those of its seed."""

import torch

from lcprobe.seeds import seed_of
from lcprobe.training.draws import StepDraws


def test_a_reseeded_step_draws_what_torch_draws_from_its_seed():
    StepDraws(3, 5, 0).reseed("step")
    ours = torch.rand(4)
    torch.manual_seed(seed_of("step", 3, 5))
    assert torch.equal(ours, torch.rand(4))
