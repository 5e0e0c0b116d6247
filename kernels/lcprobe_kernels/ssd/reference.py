"""ssd, token by token: the reference of every test, and the decoding step."""

import torch
from torch import Tensor
from torch.nn import functional as F


def step_size(dt: Tensor, dt_bias: Tensor | None, dt_limit: tuple[float, float]) -> Tensor:
    """clamp(softplus(dt + dt_bias)): (..., n_heads)."""
    return F.softplus(dt if dt_bias is None else dt + dt_bias).clamp(*dt_limit)


def step(state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """One token, dt after `step_size`, without D. state: (batch, n_heads, head_dim, d_state); x: (batch, n_heads,
    head_dim); dt: (batch, n_heads); B, C: (batch, n_groups, d_state) -> y like x, and the new state."""
    per_group = x.shape[1] // B.shape[1]
    b, c = B.repeat_interleave(per_group, dim=1), C.repeat_interleave(per_group, dim=1)  # (batch, n_heads, d_state)
    decay = torch.exp(dt * A)
    state = decay[..., None, None] * state + (dt[..., None] * x)[..., None] * b[:, :, None, :]
    return (state * c[:, :, None, :]).sum(-1), state


def reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`ssd` by its recurrence, all in its inputs' dtype: y (batch, seqlen, n_heads, head_dim), and the state."""
    batch, seqlen, n_heads, head_dim = x.shape
    dt = step_size(dt, dt_bias, dt_limit)
    state = x.new_zeros(batch, n_heads, head_dim, B.shape[3]) if initial_state is None else initial_state
    out = []
    for t in range(seqlen):
        if starts is not None:
            state = state.where(
                ~starts[:, t, None, None, None], torch.zeros((), dtype=state.dtype, device=state.device)
            )
        y, state = step(state, x[:, t], dt[:, t], A, B[:, t], C[:, t])
        out.append(y if D is None else y + D[:, None] * x[:, t])
    return torch.stack(out, dim=1), state
