"""gated_linear_attention: linear attention with a decaying state, and the corrections that newer models add to it.

    S_t = diag(exp(g_t)) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T     S: (d_k, d_v), zero at a document's first token
    o_t = scale q_t^T S_t                                              g <= 0, for each channel or each head

This is RWKV-7's recurrence (arXiv 2503.14456), transposed: theirs is S (diag(w) + a^T b) + v^T k with row vectors.
Special cases:

    a = b = 0                          gated linear attention (GLA, arXiv 2312.06635);
                                       g for each head: RetNet, Mamba2's SSD
    a = -beta exp(g) k, b = k, beta v  delta rule: S = (I - beta k k^T) diag(exp(g)) S + beta k v^T, argument `beta`
                                       (g for each head: Gated DeltaNet, 2412.06464; channel: Kimi Delta Attention)
    a = -erase exp(g) k, b = k         S = (I - k (erase k)^T) diag(exp(g)) S + k v^T: a delta rule that erases by
                                       channel, argument `erase` (Gated DeltaNet-2)
    a = b = 0, and o_t = scale q_t^T (S_{t-1} + diag(u) k_t v_t^T)
                                       RWKV-5 and 6 (arXiv 2404.05892): argument `bonus` is u

`reference` computes this token by token, `cpu` in matrix products, `fla` an adapter to flash-linear-attention's
kernels. This package has no Triton kernel for it: on a GPU half precision goes to fla where it is installed,
everything else to matrix products.
"""

from typing import Any

import torch
from torch import Tensor

from lcprobe_kernels.backends import deterministic, note, path_of, without_autocast
from lcprobe_kernels.errors import (
    ArgumentError,
    check_first,
    check_flag,
    check_like,
    check_no_tangent,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.gated_linear_attention import cpu
from lcprobe_kernels.gated_linear_attention.reference import reference, step
from lcprobe_kernels.packed import check_boundaries, resolve_starts

__all__ = ["gated_linear_attention", "gated_linear_attention_step", "reference"]
NAME = "gated_linear_attention"


def gated_linear_attention(
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
    boundaries: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    chunk_size: int = 64,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """A sequence of any length; accumulation and state in float32 (float64 for float64 inputs).

    q, k: (batch, seqlen, n_heads, d_k). v: (batch, seqlen, n_heads, d_v). All three of one dtype. log_decay: (batch,
    seqlen, n_heads, d_k) or (batch, seqlen, n_heads, 1), <= 0 (-inf forgets everything). bonus: (n_heads, d_k). beta:
    (batch, seqlen, n_heads). erase: like q. a, b: like q, both or neither. At most one of bonus, beta, erase and
    (a, b). scale: factor of q, d_k^-0.5 unless given. initial_state: (batch, n_heads, d_k, d_v). starts: (batch,
    seqlen) bool, True where a token begins a document and the state resets, and boundaries: of these documents, see
    `packed.documents_of`, where the host knows them; or cu_seqlens: (n_documents + 1,), see `packed.starts_of`.
    chunk_size: a power of two.

    Returns o like v, and with `return_state` the final state (batch, n_heads, d_k, d_v). Raises ArgumentError for
    other shapes, dtypes, devices, values and combinations, in forward mode (jvp) and for a second derivative, which
    only `reference` has. An empty batch gives empty outputs.

    NaN or infinity in a token: on a CPU outputs before it, of other documents and of other heads are as without it;
    from it to its document's end, or to a token whose decay is 0 and so keeps nothing, those of its head are NaN,
    never finite garbage. Not confined: gradients, which may be NaN in all of the row; a GPU, where NaN may also fill
    its chunk and later documents.
    """
    starts = resolve_starts(NAME, q, starts, cu_seqlens, initial_state)
    _check(q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts, chunk_size)
    check_flag(NAME, "return_state", return_state)
    check_boundaries(NAME, boundaries)
    scale = float(q.shape[3] ** -0.5 if scale is None else scale)
    needs = tuple(name for name, t in (("documents", starts), ("initial state", initial_state)) if t is not None)
    if torch.is_grad_enabled() and (q.requires_grad or v.requires_grad):
        needs = ("gradients", *deterministic(), *needs)
    note(NAME, q, needs)
    check_no_tangent(NAME, q, k, v, log_decay, bonus, beta, erase, a, b, initial_state)
    with without_autocast(q.device):  # decays and states stay in float32 or wider
        if q.shape[1] == 1:
            o, state = _one_token(q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts)
        elif q.shape[0] and path_of(NAME, q.device, q.dtype, needs) == "fla":
            from lcprobe_kernels.gated_linear_attention import fla

            given = (q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts)
            o, state = fla.run(*given, None if starts is None else boundaries)
        else:
            o, state = _by_chunks(
                q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts, chunk_size
            )
    return o.to(v.dtype), state if return_state else None


def gated_linear_attention_step(
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
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One token after `state` (batch, n_heads, d_k, d_v), which is left as it is. Arguments as above without seqlen.

    Returns o (batch, n_heads, d_v) and the new state in float32 (float64 for float64 states). Raises ArgumentError as
    above.
    """
    given = {"beta": beta, "erase": erase, "a": a, "b": b}
    for name, x in (("q", q), ("k", k), ("v", v), ("log_decay", log_decay), *given.items(), ("state", state)):
        if x is not None or name not in given:
            check_tensor(f"{NAME}_step", name, x)
        if name in ("q", "k", "v", "log_decay") and x is not None and x.dim() != 3:
            raise ArgumentError(f"{NAME}_step: {name}", f"shape {tuple(x.shape)}", "(batch, n_heads, d)")
    rows = {name: None if x is None else x[:, None] for name, x in given.items()}
    _check(
        q[:, None],
        k[:, None],
        v[:, None],
        log_decay[:, None],
        bonus,
        rows["beta"],
        rows["erase"],
        rows["a"],
        rows["b"],
        scale,
        state,
        None,
        1,
    )
    acc_dtype = torch.promote_types(torch.promote_types(v.dtype, state.dtype), torch.float32)
    with without_autocast(q.device):
        q = q.to(acc_dtype) * (q.shape[2] ** -0.5 if scale is None else scale)
        extra = {name: None if x is None else x.to(acc_dtype) for name, x in (given | {"bonus": bonus}).items()}
        o, state = step(q, k.to(acc_dtype), v.to(acc_dtype), log_decay.to(acc_dtype), state.to(acc_dtype), **extra)
    return o.to(v.dtype), state


def _one_token(q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts) -> tuple[Tensor, Tensor]:
    """One token of decoding: plain products, without chunks."""
    acc_dtype = torch.promote_types(v.dtype, torch.float32)
    if initial_state is None:
        initial_state = v.new_zeros(q.shape[0], *q.shape[2:], v.shape[3])
    if starts is not None:
        initial_state = initial_state.masked_fill(starts[:, :, None, None], 0.0)
    extra = {"beta": beta, "erase": erase, "a": a, "b": b}
    now = {name: x[:, 0].to(acc_dtype) for name, x in extra.items() if x is not None}
    q, k, v, log_decay = (x[:, 0].to(acc_dtype) for x in (q, k, v, log_decay))
    bonus = None if bonus is None else bonus.to(acc_dtype)
    o, state = step(q * scale, k, v, log_decay, initial_state.to(acc_dtype), bonus=bonus, **now)
    return o[:, None], state


def _by_chunks(
    q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts, chunk_size
) -> tuple[Tensor, Tensor]:
    """The special cases folded into one recurrence (see cpu.py), whose products are one op forward and one
    backward."""
    acc_dtype = torch.promote_types(v.dtype, torch.float32)
    k, v = k.to(acc_dtype), v.to(acc_dtype)
    q, w = q.to(acc_dtype) * scale, log_decay.to(acc_dtype).exp()
    initial = None if initial_state is None else initial_state.to(acc_dtype)
    first = None if starts is None else starts[:, :, None, None]
    if first is not None:
        w = torch.where(first, w * 0, w)  # NaN stays
    if beta is not None:
        beta = beta.to(acc_dtype)[..., None]
        a, v = -beta * w * k, beta * v
    elif erase is not None:
        a = -erase.to(acc_dtype) * w * k
    elif a is not None and b is not None:
        a, b = a.to(acc_dtype), b.to(acc_dtype)
        a = a if first is None else torch.where(first, a * 0, a)
    if bonus is None:
        o, state, _ = gated_linear_attention_fwd(q, k, v, w, a, b, initial, True, chunk_size)
        return o, state
    before = q if first is None else q.masked_fill(first, 0.0)
    o, state, _ = gated_linear_attention_fwd(before, k, v, w, None, None, initial, False, chunk_size)
    return o + (q * bonus.to(acc_dtype) * k).sum(-1, keepdim=True) * v, state


@torch.library.custom_op("lcprobe::gated_linear_attention_fwd", mutates_args=())
def gated_linear_attention_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    initial: Tensor | None,
    inclusive: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """S_t = diag(w_t) S_{t-1} + k_t v_t^T + b_t (a_t^T S_{t-1}), b = k where only a is given; q reads S_t, or S_{t-1}
    unless `inclusive`. Returns o, the final state, and the state that enters each segment, for the backward pass."""
    if q.shape[0] == 0:
        return _shapes(q, k, v, w, a, b, initial, inclusive, chunk_size)
    return cpu.forward(cpu.Inputs(q, k, v, w, a, b), initial, inclusive, chunk_size)


@gated_linear_attention_fwd.register_fake
def _shapes(q, k, v, w, a, b, initial, inclusive, chunk_size):
    batch, seqlen, n_heads, d_k = q.shape
    d_v = v.shape[3]
    count = -(-seqlen // cpu.segment(q, v, chunk_size))
    final = v.new_empty(batch, n_heads, d_k, d_v)
    return v.new_empty(batch, seqlen, n_heads, d_v), final, v.new_empty(count, batch, n_heads, d_k, d_v)


@torch.library.custom_op("lcprobe::gated_linear_attention_bwd", mutates_args=())
def gated_linear_attention_bwd(
    do: Tensor,
    dfinal: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    entering: Tensor,
    inclusive: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, w, a, b (empty where not given) and the initial state."""
    if q.shape[0] == 0:
        return _no_gradients(do, dfinal, q, k, v, w, a, b, entering, inclusive, chunk_size)
    dfinal = torch.zeros_like(entering[0]) if dfinal is None else dfinal
    gradients = cpu.backward(do, dfinal, cpu.Inputs(q, k, v, w, a, b), entering, inclusive, chunk_size)
    dq, dk, dv, dw, da, db, dinitial = (q.new_empty(0) if x is None else x for x in gradients)
    return dq, dk, dv, dw, da, db, dinitial


@gated_linear_attention_bwd.register_fake
def _no_gradients(do, dfinal, q, k, v, w, a, b, entering, inclusive, chunk_size):
    like = [q.new_empty(0) if x is None else x.new_empty(x.shape) for x in (q, k, v, w, a, b)]
    return (*like, q.new_empty(entering.shape[1:]))


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, initial, ctx.inclusive, ctx.chunk_size = inputs
    ctx.has_initial = initial is not None
    ctx.given = [x is not None for x in tensors]
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, do: Tensor | None, dfinal: Tensor | None, _: Tensor | None) -> tuple:
    q, k, v, w, a, b, entering = ctx.saved_tensors
    do = torch.zeros_like(v) if do is None else do
    with without_autocast(do.device):  # also where backward() is called under autocast
        *gradients, dinitial = gated_linear_attention_bwd(
            do, dfinal, q, k, v, w, a, b, entering, ctx.inclusive, ctx.chunk_size
        )
    gradients = [x if there else None for x, there in zip(gradients, ctx.given, strict=True)]
    return (*gradients, dinitial if ctx.has_initial else None, None, None)


gated_linear_attention_fwd.register_autograd(_backward, setup_context=_setup)
refuse_second_derivative(NAME)


def _check(q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts, chunk_size) -> None:
    check_first(NAME, "q", q, ("batch", "seqlen", "n_heads", "d_k"))
    batch, seqlen, n_heads, d_k = q.shape
    check_tensor(NAME, "v", v)
    if v.dim() != 4 or v.shape[3] == 0:
        raise ArgumentError(f"{NAME}: v", f"shape {tuple(v.shape)}", f"({batch}, {seqlen}, {n_heads}, d_v >= 1)")
    d_v, token = v.shape[3], (batch, seqlen, n_heads)
    check_tensor(NAME, "log_decay", log_decay)
    if log_decay.dim() != 4 or log_decay.shape[3] not in (1, d_k):
        allowed = f"({batch}, {seqlen}, {n_heads}, {d_k}) or ({batch}, {seqlen}, {n_heads}, 1)"
        raise ArgumentError(f"{NAME}: log_decay", f"shape {tuple(log_decay.shape)}", allowed)
    exclusive = {"bonus": bonus, "beta": beta, "erase": erase, "a, b": a if b is None else b}
    corrections = [name for name, x in exclusive.items() if x is not None]
    if len(corrections) > 1:
        allowed = "one of bonus, beta, erase and (a, b), or none"
        raise ArgumentError(f"{NAME}: corrections", " with ".join(corrections), allowed)
    if (a is None) != (b is None):
        raise ArgumentError(f"{NAME}: a, b", "a without b" if b is None else "b without a", "both or neither")
    check_like(NAME, "k", k, (*token, d_k), ("q", q), q.dtype)
    check_like(NAME, "v", v, (*token, d_v), ("q", q), q.dtype)
    check_like(NAME, "log_decay", log_decay, (*token, log_decay.shape[3]), ("q", q))
    more = [(name, x, (*token, d_k)) for name, x in (("erase", erase), ("a", a), ("b", b))]
    more += [("bonus", bonus, (n_heads, d_k)), ("beta", beta, token)]
    for name, x, shape in (*more, ("initial_state", initial_state, (batch, n_heads, d_k, d_v))):
        if x is not None:
            check_like(NAME, name, x, shape, ("q", q))
    if starts is not None:
        check_like(NAME, "starts", starts, (batch, seqlen), ("q", q), torch.bool)
    if scale is not None and (not isinstance(scale, (int, float)) or isinstance(scale, bool)):
        raise ArgumentError(f"{NAME}: scale", repr(scale), "a number, or None")
    whole = isinstance(chunk_size, int) and not isinstance(chunk_size, bool)
    if not whole or chunk_size < 1 or chunk_size & (chunk_size - 1):
        raise ArgumentError(f"{NAME}: chunk_size", repr(chunk_size), "a power of two")
