"""causal_conv1d by the CUDA kernels of the package of that name (Dao-AILab/causal-conv1d, versions 1.5 to 1.7).

Called are the two functions below its autograd function (cpp_functions.py), which mamba-ssm calls too. What this
adapter makes of its conventions (csrc/causal_conv1d.cpp):

- tensors are (batch, channels, seqlen), channels last in memory, their strides and addresses multiples of 8 numbers;
- weights and bias may be of another dtype than x: they are float32, as its sums are;
- documents are numbers, int32, and exclude an initial state;
- without a bias the backward of some versions fails, so it gets one of zeros, whose gradient is dropped;
- sums of weights' gradients are in any order, unless torch.use_deterministic_algorithms asks otherwise.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

ALIGNED = 8
"""Numbers that its vectors hold at most."""


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None, silu: bool
) -> Tensor:
    """See `lcprobe_kernels.causal_conv1d._forward`; y alone."""
    y = _api().causal_conv1d_fwd_function(
        _channels_first(x), **_options(weight, bias, initial, starts), final_states_out=None, silu_activation=silu
    )
    return y.transpose(1, 2).contiguous()


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    starts: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.causal_conv1d._backward`."""
    there = weight.new_zeros(weight.shape[0]) if bias is None else bias
    dx, dweight, dbias, dinitial = _api().causal_conv1d_bwd_function(
        _channels_first(x),
        **_options(weight, there, initial, starts),
        dout=_channels_first(dy),
        dfinal_states=None,
        dx=None,
        return_dinitial_states=initial is not None,
        silu_activation=silu,
    )
    dbias = weight.new_empty(0) if bias is None else dbias
    dinitial = x.new_empty(0) if initial is None else dinitial.transpose(1, 2).contiguous()
    return dx.transpose(1, 2).contiguous(), dweight, dbias, dinitial


def _api() -> Any:
    return import_module("causal_conv1d.cpp_functions")


def _options(weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None) -> dict[str, Any]:
    """The arguments that both functions share."""
    return {
        "weight": weight,
        "bias": None if bias is None else bias.contiguous(),
        "seq_idx": None if starts is None else starts.cumsum(1, dtype=torch.int32),
        "initial_states": None if initial is None else initial.contiguous().transpose(1, 2),
    }


def _channels_first(x: Tensor) -> Tensor:
    """(batch, seqlen, channels) -> (batch, channels, seqlen), without a copy where the memory is as it must be."""
    strides = [*x.stride()[:2], x.storage_offset()]
    fits = x.stride(2) == 1 and min(strides[:2]) > 1 and not any(n % ALIGNED for n in strides)
    return (x if fits else x.contiguous()).transpose(1, 2)
