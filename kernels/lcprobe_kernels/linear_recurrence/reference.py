"""linear_recurrence, token by token: the reference of every test, and the decoding step."""

import torch
from torch import Tensor


def step(log_a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """One token: all (batch, d) -> the new state."""
    return torch.addcmul(b, log_a.exp(), state)


def reference(
    log_a: Tensor, b: Tensor, *, initial_state: Tensor | None = None, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`linear_recurrence` by its definition, all in its inputs' dtype: h (batch, seqlen, d), and the state."""
    state = torch.zeros_like(b[:, 0]) if initial_state is None else initial_state
    out = []
    for t in range(b.shape[1]):
        after = step(log_a[:, t], b[:, t], state)
        state = after if starts is None else torch.where(starts[:, t, None], b[:, t], after)
        out.append(state)
    return torch.stack(out, dim=1), state
