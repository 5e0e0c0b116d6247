"""linear_recurrence by flash-linear-attention's kernels for HGRN (fla-core 0.6.0, ops/hgrn/fused_recurrent.py).

They go through a sequence token by token, a program for 32 to 128 channels, with the state in float32 registers.

Inputs are passed in float32, since the final state comes in their dtype. A document's start is a decay of 0.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def forward(
    log_a: Tensor, b: Tensor, initial_state: Tensor | None, starts: Tensor | None, return_state: bool
) -> tuple[Tensor, Tensor]:
    """See `lcprobe_kernels.linear_recurrence._forward`."""
    h, state = _api().fused_recurrent_hgrn_fwd(
        x=b.float().contiguous(),
        g=_decays(log_a, starts),
        initial_state=_dense(initial_state),
        output_final_state=True,
    )
    return h.to(b.dtype), state if return_state else state.new_empty(0)


def backward(
    dh: Tensor, dfinal: Tensor | None, log_a: Tensor, h: Tensor, initial_state: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.linear_recurrence._backward`."""
    db, dlog_a, dinitial = _api().fused_recurrent_hgrn_bwd(
        g=_decays(log_a, starts),
        o=h.contiguous(),
        do=dh.contiguous(),
        dht=_dense(dfinal),
        initial_state=_dense(initial_state),
    )
    if initial_state is None:
        return dlog_a.to(log_a.dtype), db.to(h.dtype), db.new_empty(0)
    return dlog_a.to(log_a.dtype), db.to(h.dtype), dinitial.to(initial_state.dtype)


def _api() -> Any:
    return import_module("fla.ops.hgrn.fused_recurrent")


def _decays(log_a: Tensor, starts: Tensor | None) -> Tensor:
    decays = log_a.float()
    return (decays if starts is None else decays.masked_fill(starts[..., None], -torch.inf)).contiguous()


def _dense(state: Tensor | None) -> Tensor | None:
    return None if state is None else state.contiguous()
