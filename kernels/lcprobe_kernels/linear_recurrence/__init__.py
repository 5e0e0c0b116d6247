"""linear_recurrence: h_t = a_t h_{t-1} + b_t, elementwise, a = exp(log_a): RG-LRU (arXiv 2402.19427, eq. 4) and
others.

Backward is the same recurrence run backwards in time (Martin & Cundy 2018, arXiv 1709.04057), g_t = dL/dh_t in total:

    g_t = dh_t + a_{t+1} g_{t+1}      db_t = g_t      dlog_a_t = g_t a_t h_{t-1}      dh_0 = a_1 g_1

`reference` is the definition. The fast forms (`cpu`, and Triton in `triton_scan`) scan pieces of the sequence from a
zero state, keep the product of each piece's decays, and then add the state that entered the piece to every token.
Decays are multiplied and never divided, so with log_a <= 0 nothing overflows, and a = 0 (log_a = -inf) is exact.
"""

from typing import Any, Optional

import torch
from torch import Tensor

from lcprobe_kernels.backends import implementation, note, without_autocast
from lcprobe_kernels.direct import of_backward, with_gradients
from lcprobe_kernels.errors import (
    check_first,
    check_flag,
    check_like,
    check_no_tangent,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.linear_recurrence.reference import reference, step
from lcprobe_kernels.packed import resolve_starts

__all__ = ["linear_recurrence", "linear_recurrence_step", "reference"]
NAME = "linear_recurrence"


def linear_recurrence(
    log_a: Tensor,
    b: Tensor,
    *,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """A sequence of any length; accumulation and state in float32 (float64 for float64 b).

    log_a, b: (batch, seqlen, d), log_a <= 0, -inf where everything before is forgotten. initial_state: (batch, d).
    starts: (batch, seqlen) bool, True where a token begins a document: there h = b, and log_a is ignored; or
    cu_seqlens: (n_documents + 1,), see `packed.starts_of`.

    Returns h like b, and with `return_state` the final state (batch, d). The gradient of log_a takes h as it was
    returned, rounded to b's dtype. Differentiable once, in reverse mode.
    Raises ArgumentError for other shapes, dtypes and devices.
    """
    starts = resolve_starts(NAME, b, starts, cu_seqlens, initial_state)
    _check(log_a, b, initial_state, starts, return_state)
    note(NAME, b)
    acc_dtype = torch.promote_types(b.dtype, torch.float32)
    initial_state = None if initial_state is None else initial_state.to(acc_dtype)
    with without_autocast(b.device):  # decays and states stay in float32 or wider
        if b.shape[1] == 1:
            h = _one(log_a[:, 0].to(acc_dtype), b[:, 0].to(acc_dtype), initial_state, starts)
            return h[:, None].to(b.dtype), h if return_state else None
        h, state = _differentiable(log_a, b, initial_state, starts, return_state)
    return h, state if return_state else None


def linear_recurrence_step(log_a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of decoding: all (batch, d), state float32 or wider -> h like b, and the new state.

    Raises ArgumentError as `linear_recurrence` does.
    """
    check_first(f"{NAME}_step", "b", b, ("batch", "d"))
    check_like(f"{NAME}_step", "log_a", log_a, tuple(b.shape), ("b", b))
    check_tensor(f"{NAME}_step", "state", state)
    h, after = linear_recurrence(log_a[:, None], b[:, None], initial_state=state, return_state=True)
    assert after is not None
    return h[:, 0], after


def _one(log_a: Tensor, b: Tensor, state: Tensor | None, starts: Tensor | None) -> Tensor:
    h = step(log_a, b, torch.zeros_like(b) if state is None else state)
    return h if starts is None else torch.where(starts, b, h)


@torch.library.custom_op("lcprobe::linear_recurrence_fwd", mutates_args=())
def _forward(
    log_a: Tensor,
    b: Tensor,
    initial_state: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    starts: Optional[Tensor],  # noqa: UP045
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """h, and the final state (empty unless requested)."""
    return implementation(NAME, b, "triton_scan").forward(log_a, b, initial_state, starts, return_state)


@_forward.register_fake
def _(log_a, b, initial_state, starts, return_state):
    acc_dtype = torch.promote_types(b.dtype, torch.float32)
    state = b.new_empty((b.shape[0], b.shape[2]) if return_state else (0,), dtype=acc_dtype)
    return torch.empty_like(b, memory_format=torch.contiguous_format), state


@torch.library.custom_op("lcprobe::linear_recurrence_bwd", mutates_args=())
def _backward(
    dh: Tensor,
    dfinal: Optional[Tensor],  # noqa: UP045
    log_a: Tensor,
    h: Tensor,
    initial_state: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
) -> tuple[Tensor, Tensor, Tensor]:
    """dlog_a, db, dinitial_state; the last is empty without an initial state."""
    return implementation(NAME, h, "triton_scan").backward(dh, dfinal, log_a, h, initial_state, starts)


@_backward.register_fake
def _(dh, dfinal, log_a, h, initial_state, starts):
    like = lambda t: torch.empty_like(t, memory_format=torch.contiguous_format)  # noqa: E731
    state = (
        like(initial_state)
        if initial_state is not None
        else h.new_empty(0, dtype=torch.promote_types(h.dtype, torch.float32))
    )
    return like(log_a), like(h), state


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    log_a, _, initial_state, starts, _ = inputs
    ctx.save_for_backward(log_a, output[0], initial_state, starts)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dh: Any, dfinal: Any) -> Any:
    log_a, h, initial_state, starts = ctx.saved_tensors
    dh = torch.zeros_like(h) if dh is None else dh
    dlog_a, db, dinitial = _differentiate(dh, dfinal, log_a, h, initial_state, starts)
    return dlog_a, db, None if initial_state is None else dinitial, None, None


_differentiable = with_gradients(_forward, _save, _gradients)
refuse_second_derivative(NAME)


def _check(log_a: Tensor, b: Tensor, initial_state: Tensor | None, starts: Tensor | None, return_state: bool) -> None:
    check_first(NAME, "b", b, ("batch", "seqlen", "d"))
    check_like(NAME, "log_a", log_a, tuple(b.shape), ("b", b))
    if initial_state is not None:
        check_like(NAME, "initial_state", initial_state, (b.shape[0], b.shape[2]), ("b", b))
    if starts is not None:
        check_like(NAME, "starts", starts, tuple(b.shape[:2]), ("b", b), torch.bool)
    check_flag(NAME, "return_state", return_state)
    check_no_tangent(NAME, log_a, b, initial_state)
