"""Parametrised: a module that says how its own parameters start and which of them do not decay.

The model asks the innermost such module around each parameter, so no rule goes by a parameter's name in another class.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


class Parametrised(nn.Module):
    """Base of mixers, encodings, MLPs, norms and the model. Parameters of nn.Linear inside it need no rule of their own."""

    no_decay: Sequence[str] = ()
    """Names of own parameters without weight decay, beside those below two dimensions, which never decay."""
    residual_outputs: ClassVar[Sequence[str]] = ()
    """Names of own matrices that write into the residual stream: they start smaller, by 1 / sqrt(n_layers)."""

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Fill a parameter's initial value in place. name: within this module; value: float64.

        The default knows nn.Linear: matrices Kaiming-uniform with a = sqrt(5), PyTorch's default, biases zero as in the published
        Mamba2 family. Raises NotImplementedError for any other parameter.
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
    """PyTorch's default for the weight or the bias of a depthwise convolution over `width` tokens, in place."""
    value.uniform_(-(width**-0.5), width**-0.5, generator=generator)


def owners(model: nn.Module) -> Iterator[tuple[str, Parametrised, str]]:
    """(name, its innermost Parametrised module, name within that module) of every parameter. Raises TypeError without one."""
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
            raise TypeError(f"{name}: in no module that says how its parameters start")


def no_decay_names(model: nn.Module) -> set[str]:
    """Parameters without weight decay: everything below two dimensions and what its module lists as `no_decay`."""
    dims = {name: p.dim() for name, p in model.named_parameters()}
    return {name for name, owner, own_name in owners(model) if dims[name] < 2 or own_name in owner.no_decay}
