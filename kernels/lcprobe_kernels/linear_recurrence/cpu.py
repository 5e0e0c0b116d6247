"""linear_recurrence in whole-tensor operations: any device, any float dtype, tuned for CPUs.

A segment of the sequence that fits the cache is cut into about as many chunks as a chunk has tokens. All chunks are
walked abreast, one token of each at a time, together with the products of their decays; a walk over the chunks then
carries the state, and one operation adds what it brings to every token. So 3 sqrt(segment) small steps do for a
segment, every number is read from memory once, and a product of decays never exceeds 1: nothing is divided and
nothing overflows.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

SEGMENT_ELEMENTS = 1 << 19
"""Elements of a segment: its decays and states, 2 MB each in float32, stay in cache."""


def forward(log_a, b, initial, starts, return_state):
    """See `lcprobe_kernels.linear_recurrence._forward`."""
    batch, seqlen, d = b.shape
    acc_dtype = torch.promote_types(b.dtype, torch.float32)
    state = b.new_zeros(batch, d, dtype=acc_dtype) if initial is None else initial
    h = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    for lo, hi, size in _segments(batch, seqlen, d):
        decay, values = _room(b, size, hi - lo, acc_dtype)
        torch.exp(log_a[:, lo:hi].to(acc_dtype), out=decay[:, : hi - lo])
        values[:, : hi - lo] = b[:, lo:hi]
        state = _walk(decay, values, state, None if starts is None else starts[:, lo:hi], size[1], reverse=False)
        h[:, lo:hi] = values[:, : hi - lo]
    return h, state if return_state else b.new_empty(0, dtype=acc_dtype)


def backward(dh, dfinal, log_a, h, initial, starts):
    """See `lcprobe_kernels.linear_recurrence._backward`."""
    batch, seqlen, d = h.shape
    acc_dtype = torch.promote_types(h.dtype, torch.float32)
    dlog_a, db = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (log_a, h))
    state = h.new_zeros(batch, d, dtype=acc_dtype) if dfinal is None else dfinal.to(acc_dtype)
    later = h.new_ones(batch, 1, d, dtype=acc_dtype)  # decay after the segment
    for lo, hi, size in reversed(_segments(batch, seqlen, d)):
        a = log_a[:, lo:hi].to(acc_dtype).exp()
        decay, g = _room(h, size, hi - lo, acc_dtype)
        decay[:, : hi - lo - 1], decay[:, hi - lo - 1 : hi - lo] = a[:, 1:], later
        g[:, : hi - lo] = dh[:, lo:hi]
        resets = None
        if starts is not None:  # no gradient passes back over a start
            end = starts[:, hi : hi + 1] if hi < seqlen else torch.zeros_like(starts[:, :1])
            resets = torch.cat([starts[:, lo + 1 : hi], end], 1)
        state = _walk(decay, g, state, resets, size[1], reverse=True)
        later = a[:, :1].clone()
        db[:, lo:hi] = g[:, : hi - lo]
        moved = a.mul_(g[:, : hi - lo])
        moved[:, int(lo == 0) :].mul_(h[:, max(lo, 1) - 1 : hi - 1])
        if lo == 0:
            moved[:, 0].mul_(0.0 if initial is None else initial)
        dlog_a[:, lo:hi] = moved
    if starts is not None:
        dlog_a[starts] = 0.0
    if initial is None:
        return dlog_a, db, h.new_empty(0, dtype=acc_dtype)
    dinitial = later[:, 0] * state
    return dlog_a, db, dinitial if starts is None else dinitial.masked_fill_(starts[:, :1], 0.0)


def _segments(batch: int, seqlen: int, d: int) -> Sequence[tuple[int, int, tuple[int, int]]]:
    """First token, last token + 1, and (chunks, tokens a chunk) of each segment."""
    most = max(1, min(seqlen, SEGMENT_ELEMENTS // max(1, batch * d)))
    q = max(1, round(most**0.5))
    full = -(-most // q) * q
    return [(lo, min(lo + full, seqlen), (-(-min(full, seqlen - lo) // q), q)) for lo in range(0, seqlen, full)]


def _room(like: Tensor, size: tuple[int, int], n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Decays and values of whole chunks; those past n neither decay nor add."""
    decay, values = (like.new_empty(like.shape[0], size[0] * size[1], like.shape[2], dtype=dtype) for _ in range(2))
    decay[:, n:], values[:, n:] = 1.0, 0.0
    return decay, values


def _walk(decay: Tensor, values: Tensor, state: Tensor, resets: Tensor | None, q: int, reverse: bool) -> Tensor:
    """values_t += decay_t values_{t-1} (t + 1 in reverse) in place, the first after `state`; decay is used up.

    resets: (batch, n), where values_t stays what it is, whatever came before. Returns the last value.
    """
    if values.is_meta:  # where memory is counted, without values: too few tokens to matter
        resets = None
    batch, n, d = values.shape
    a, h = decay.view(batch, n // q, q, d), values.view(batch, n // q, q, d)
    order, chunks = (range(q)[::-1], range(n // q)[::-1]) if reverse else (range(q), range(n // q))
    A, H = a.unbind(2), h.unbind(2)
    at = {} if resets is None else _by_position(resets, (batch, n // q, q))
    for before, i in pairwise(order):
        own = H[i][at[i]] if i in at else None
        H[i].addcmul_(A[i], H[before])
        A[i].mul_(A[before])
        if own is not None:
            H[i][at[i]], A[i][at[i]] = own, 0.0
    last, whole = H[order[-1]], A[order[-1]]
    if resets is None:
        kept = own = ended = None
    else:
        since = _since(resets, (batch, n // q, q), reverse)
        kept, ended = since.nonzero(as_tuple=True), since[:, :, order[-1], None]
        own = h[kept]
    carried = torch.empty_like(last)
    for j in chunks:
        carried[:, j] = state
        state = torch.addcmul(last[:, j], whole[:, j], state)
        if ended is not None:
            state = torch.where(ended[:, j], last[:, j], state)
    h.addcmul_(a, carried[:, :, None])
    if kept is not None and own is not None:
        h[kept] = own
    return state


def _in_chunks(resets: Tensor, shape: tuple[int, int, int]) -> Tensor:
    there = torch.zeros(shape, dtype=torch.bool, device=resets.device)
    there.view(shape[0], -1)[:, : resets.shape[1]] = resets
    return there


def _by_position(resets: Tensor, shape: tuple[int, int, int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Rows and chunks of the resets, by their place in the chunk."""
    row, chunk, place = _in_chunks(resets, shape).nonzero(as_tuple=True)
    return {i: (row[place == i], chunk[place == i]) for i in place.unique().tolist()}


def _since(resets: Tensor, shape: tuple[int, int, int], reverse: bool) -> Tensor:
    """(batch, chunks, q): tokens that a reset of their chunk keeps from what enters it."""
    there = _in_chunks(resets, shape)
    return (there.flip(2).cumsum(2).flip(2) if reverse else there.cumsum(2)) > 0
