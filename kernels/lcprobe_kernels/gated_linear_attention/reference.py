"""The recurrence of gated_linear_attention token by token: the reference of every test, and the decoding step."""

import torch
from torch import Tensor


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    *,
    bonus: Tensor | None = None,
    beta: Tensor | None = None,
    erase: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token, each form as in its paper. q, k, erase, a, b: (batch, n_heads, d_k), q scaled. v: (batch, n_heads,
    d_v). beta: (batch, n_heads). Returns o like v and the new state (batch, n_heads, d_k, d_v)."""
    decayed = log_decay.exp()[..., None] * state
    if bonus is not None:
        written = k[..., None] * v[..., None, :]
        return read(q, state + bonus[..., None] * written), decayed + written
    if beta is not None:
        error = v - read(k, decayed)  # the delta rule's prediction error for this key
        state = decayed + (beta[..., None] * k)[..., None] * error[..., None, :]
    elif erase is not None:
        state = decayed + k[..., None] * (v - read(erase * k, decayed))[..., None, :]
    elif a is not None and b is not None:
        state = decayed + b[..., None] * read(a, state)[..., None, :] + k[..., None] * v[..., None, :]
    else:
        state = decayed + k[..., None] * v[..., None, :]
    return read(q, state), state


def read(q: Tensor, state: Tensor) -> Tensor:
    """q^T S: (..., d_k) and (..., d_k, d_v) -> (..., d_v)."""
    return (q[..., None] * state).sum(-2)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    bonus: Tensor | None = None,
    beta: Tensor | None = None,
    erase: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """gated_linear_attention in the dtype of its inputs. Returns o and the final state."""
    batch, seqlen, n_heads, d_k = q.shape
    q = q * (d_k**-0.5 if scale is None else scale)
    state = q.new_zeros(batch, n_heads, d_k, v.shape[3]) if initial_state is None else initial_state
    extra, out = {"beta": beta, "erase": erase, "a": a, "b": b}, []
    for t in range(seqlen):
        if starts is not None:
            state = state.masked_fill(starts[:, t, None, None, None], 0.0)
        now = {name: x[:, t] for name, x in extra.items() if x is not None}
        o, state = step(q[:, t], k[:, t], v[:, t], log_decay[:, t], state, bonus=bonus, **now)
        out.append(o)
    return torch.stack(out, dim=1), state
