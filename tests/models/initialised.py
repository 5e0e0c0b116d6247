"""Initial values of a module outside a model."""

import torch

from lcprobe.models.parameters import Parametrised, owners


@torch.no_grad()
def initialised(module: Parametrised, seed: int = 0):
    """The module with every parameter at an initial value drawn from (seed, its index)."""
    parameters = dict(module.named_parameters())
    for i, (name, owner, own_name) in enumerate(owners(module)):
        value = torch.empty(parameters[name].shape, dtype=torch.float64)
        owner.init_parameter(own_name, value, torch.Generator().manual_seed(seed + i))
        parameters[name].copy_(value)
    return module
