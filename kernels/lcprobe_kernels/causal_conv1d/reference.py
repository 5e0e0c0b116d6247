"""causal_conv1d, token by token: the reference of every test, and the decoding step."""

import torch
from torch import Tensor
from torch.nn import functional as F


def step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    """One token. x: (batch, channels); state: (batch, width - 1, channels) -> y like x, and the new state."""
    window = torch.cat([state, x[:, None]], dim=1)
    acc_dtype = torch.promote_types(x.dtype, weight.dtype)
    y = (window.to(acc_dtype) * weight.T).sum(1)
    y = y if bias is None else y + bias
    return (F.silu(y) if silu else y).to(x.dtype), window[:, 1:].clone()


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = False,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`causal_conv1d` by its definition, all in its inputs' dtype: y (batch, seqlen, channels), and the state."""
    batch, seqlen, channels = x.shape
    state = x.new_zeros(batch, weight.shape[1] - 1, channels) if initial_state is None else initial_state
    out = []
    for t in range(seqlen):
        if starts is not None:
            state = state.where(~starts[:, t, None, None], torch.zeros((), dtype=state.dtype, device=state.device))
        y, state = step(x[:, t], state, weight, bias, silu)
        out.append(y)
    return torch.stack(out, dim=1), state
