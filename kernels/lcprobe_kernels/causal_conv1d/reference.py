"""causal_conv1d by its definition: one token after the other. Any float dtype, any device; the oracle of the tests."""

import torch
from torch import Tensor
from torch.nn import functional as F


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = False,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `causal_conv1d`, in the inputs' dtype: y and the final state."""
    window = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2]) if initial_state is None else initial_state
    out = []
    for t in range(x.shape[1]):
        if starts is not None:
            window = window.where(~starts[:, t, None, None], 0)
        y, window = step(x[:, t], window, weight, bias, silu)
        out.append(y)
    return torch.stack(out, dim=1), window


def step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    """One token. x: (batch, channels); state: (batch, width - 1, channels) -> y like x, and the new state."""
    window = torch.cat([state, x[:, None]], dim=1)
    y = (window * weight.T).sum(1)
    y = y if bias is None else y + bias
    return F.silu(y) if silu else y, window[:, 1:]
