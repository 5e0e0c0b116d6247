"""Parametrised: a module that defines the initial values and weight decay of its own parameters.

The innermost such module around a parameter is responsible for it, so that no rule depends on names of parameters in
other classes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


class Parametrised(nn.Module):
    """Base of mixers, encodings, MLPs, norms and the model. Parameters of an nn.Linear inside it need no rule of
    their own."""

    no_decay: Sequence[str] = ()
    """Names of own parameters without weight decay; those with fewer than two dimensions never decay."""
    residual_outputs: ClassVar[Sequence[str]] = ()
    """Names of own matrices that write into the residual stream: their initial values are scaled by 1 /
    sqrt(n_layers)."""
    depth: tuple[int, int] = (0, 1)
    """Index of the module's block and number of blocks, for initial values and decays that depend on them;
    LanguageModel sets it when it is built."""

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Write a parameter's initial value into `value`, float64. name: within this module.

        The default covers nn.Linear: matrices Kaiming-uniform with a = sqrt(5), PyTorch's default, biases zero as in
        the published Mamba2 family. Raises NotImplementedError for any other parameter.
        """
        owner, _, own_name = name.rpartition(".")
        if not isinstance(self.get_submodule(owner), nn.Linear) or not owner:
            raise NotImplementedError(f"{type(self).__name__}.init_parameter: no initial value for {name!r}")
        if own_name == "weight":
            bound = value.shape[1] ** -0.5
            value.uniform_(-bound, bound, generator=generator)
        else:
            value.zero_()


def init_convolution(value: Tensor, width: int, generator: torch.Generator) -> None:
    """PyTorch's default initial values for the weight or bias of a depthwise convolution over `width` tokens, in
    place."""
    value.uniform_(-(width**-0.5), width**-0.5, generator=generator)


def init_step_bias(value: Tensor, low: float, high: float, generator: torch.Generator, floor: float = 1e-4) -> None:
    """Biases whose softplus is log-uniform from low to high and at least `floor`, in place: the step sizes of Mamba2
    and of gated delta rules."""
    uniform = torch.rand(value.shape, generator=generator, dtype=torch.float64)
    dt = torch.exp(uniform * (math.log(high) - math.log(low)) + math.log(low)).clamp_min(floor)
    value.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus


def owners(model: nn.Module) -> Iterator[tuple[str, Parametrised, str]]:
    """(name, innermost Parametrised module, name within that module) of every parameter. Raises TypeError where there
    is none."""
    modules = dict(model.named_modules())
    for name, _ in model.named_parameters():
        prefix = name
        while prefix:
            prefix = prefix.rpartition(".")[0]
            module = modules[prefix]
            if isinstance(module, Parametrised):
                yield name, module, name[len(prefix) + 1 :] if prefix else name
                break
        else:
            raise TypeError(f"{name}: in no Parametrised module, which would define its initial value")


def no_decay_names(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: fewer than two dimensions, or listed in their module's
    `no_decay`."""
    dims = {name: p.dim() for name, p in model.named_parameters()}
    return {name for name, owner, own_name in owners(model) if dims[name] < 2 or own_name in owner.no_decay}
