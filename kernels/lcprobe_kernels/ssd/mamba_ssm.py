"""ssd by mamba-ssm's own Triton kernels (state-spaces/mamba, ops/triton/ssd_combined.py, version 2.3.2).

Called are the two functions below its autograd function, so that compiled models and ours see one op. What this
adapter makes of them:

- states that enter chunks are written in C's dtype, and multiplied in it: C is passed in float32, so that they are
  not rounded to half precision (the product has the ten bits of TF32, where ours has sixteen). Its backward rounds
  them, and their gradients, to x's dtype, as it does all operands of its products;
- the backward accumulates with atomics, unless torch.use_deterministic_algorithms asks otherwise (since 2.3.2;
  MAMBA_DETERMINISTIC in the environment overrides that);
- `dt_bias=None` fails in its step function, so a bias of zeros is passed;
- it gives the initial state to the first token's document even where that token begins another;
- offsets have 32 bits: `abilities` leaves inputs of 2^31 numbers to others.
"""

from typing import Any

import torch
from torch import Tensor

from lcprobe_kernels.peers import triton_code


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    starts: Tensor | None,
    dt_min: float,
    dt_max: float,
    chunk_size: int,
    return_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.ssd._forward`."""
    options = _options(A, D, dt_bias, initial_state, starts, dt_min, dt_max)
    y, *_, state = _api()._mamba_chunk_scan_combined_fwd(x, dt, A, B, C.to(A.dtype), chunk_size, **options)[:6]
    state = state.to(A.dtype) if return_state else A.new_empty(0)
    return y.contiguous(), state.contiguous(), A.new_empty(0), A.new_empty(0), A.new_empty(0)


def backward(
    dy: Tensor,
    dfinal: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    starts: Tensor | None,
    dt_min: float,
    dt_max: float,
    initial_state: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.ssd._backward`. Its outputs are read only where it gates them, so x stands in for them."""
    options = _options(A, D, dt_bias, initial_state, starts, dt_min, dt_max)
    dx, ddt, dA, dB, dC, dD, _, dbias, dinitial = _api()._mamba_chunk_scan_combined_bwd(
        dy, x, dt, A, B, C, x, chunk_size, dfinal_states=dfinal, **options
    )
    dD = torch.zeros_like(A) if dD is None else dD
    if initial_state is None:
        dinitial = A.new_empty(0)
    elif starts is not None:
        dinitial = dinitial.where(~starts[:, :1, None, None], 0)
    wide = [t.to(A.dtype).contiguous() for t in (dA, dD, dbias, dinitial)]
    dx, ddt, dB, dC = (t.to(like.dtype).contiguous() for t, like in ((dx, x), (ddt, dt), (dB, B), (dC, C)))
    return dx, ddt, wide[0], dB, dC, wide[1], wide[2], wide[3]


def _api() -> Any:
    return triton_code("mamba_ssm.ops.triton.ssd_combined")


def _options(
    A: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    starts: Tensor | None,
    dt_min: float,
    dt_max: float,
) -> dict[str, Any]:
    """The arguments that both functions share."""
    if starts is not None and initial_state is not None:
        initial_state = initial_state.where(~starts[:, :1, None, None], 0)
    return {
        "D": D,
        "dt_bias": torch.zeros_like(A) if dt_bias is None else dt_bias,
        "initial_states": initial_state,
        "seq_idx": None if starts is None else starts.cumsum(1, dtype=torch.int32),
        "dt_softplus": True,
        "dt_limit": (dt_min, dt_max),
    }
