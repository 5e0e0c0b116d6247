"""linear_recurrence in Triton: a walk over tiles of the sequence with the state in registers, forwards and backwards
in time.

One walk for each row and block of channels reads and writes every number once, but 2,560 channels are 20 programs:
too few for a GPU. So the sequence is split into parts where batch x channels leave multiprocessors idle: a first
kernel finds each part's product of decays and last value, and the walk of a part begins by scanning those of the
parts before it. No atomics, no order among programs: results repeat to the bit. Offsets that a row or a token
multiplies are 64-bit.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.triton_tools import last_dim_dense, processors

CHANNELS, TOKENS = 128, 16
"""A tile: each thread of four warps holds one channel's tokens in registers and scans them there, without shuffles.
Kernels do not hear that rows are aligned, or the compiler would give a thread eight channels and spread their tokens
over the warps. The walk backwards holds twice the numbers a token, and takes tiles of half the tokens."""
MIN_PART_TOKENS = 256
"""Tokens of a part at least."""
MIN_PROGRAMS_PER_SM, TARGET_PROGRAMS_PER_SM = 2, 8
"""Programs for each multiprocessor from which on nothing is split (a split reads its input twice), and those it aims
at."""


@triton.jit
def _after(a1, b1, a2, b2):
    """The pair of two pieces, one after the other. A decay of -1 marks a piece with a reset: nothing from before
    enters it."""
    reset = a2 < 0.0
    return tl.where(reset | (a1 < 0.0), -1.0, a1 * a2), tl.where(reset, b2, a2 * b1 + b2)


@triton.jit
def _enter(a, b, state):
    """What a piece ends with when `state` enters it."""
    return tl.where(a < 0.0, b, a * state + b)


@triton.jit
def _last(tile, BT: tl.constexpr):
    """The last row of a tile."""
    return tl.sum(tl.where((tl.arange(0, BT) == BT - 1)[:, None], tile, 0.0), 0)


@triton.jit
def _decays(log_a, starts, at, t, seqlen, inside, HAS_STARTS: tl.constexpr):
    """exp(log_a) of tokens t of a row; 1 outside the sequence, -1 where a document starts."""
    live = (t >= 0) & (t < seqlen)
    a = tl.exp(tl.load(log_a + at, mask=live[:, None] & inside, other=0.0).to(tl.float32))
    if HAS_STARTS:
        a = tl.where((tl.load(starts + t, mask=live, other=0) != 0)[:, None], -1.0, a)
    return a


@triton.jit
def _entering(products, ends, state, row, part, parts, D, c, BT: tl.constexpr, REVERSE: tl.constexpr):
    """What enters a part: `state`, which enters the sequence, taken through all parts before it (after it in
    reverse)."""
    gone = parts - 1 - part if REVERSE else part
    for done in range(0, gone, BT):
        j = done + tl.arange(0, BT)
        at = (row * parts + (parts - 1 - j if REVERSE else j))[:, None] * D + c[None, :]
        mask = (j < gone)[:, None] & (c < D)[None, :]
        a = tl.load(products + at, mask=mask, other=1.0)
        a, b = tl.associative_scan((a, tl.load(ends + at, mask=mask, other=0.0)), 0, _after)
        state = _enter(_last(a, BT), _last(b, BT), state)
    return state


@triton.jit(do_not_specialize_on_alignment=["D", "a_l", "u_l"])
def _ends_kernel(
    log_a, u, starts, products, ends, seqlen, D, per, parts, a_b, a_l, u_b, u_l,
    BT: tl.constexpr, BD: tl.constexpr, HAS_STARTS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Of each part: the product of its decays, and what it ends with after a state of zero (u is b, or dh in
    reverse)."""
    part, block, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    r, c = tl.arange(0, BT), block * BD + tl.arange(0, BD)
    i = BT - 1 - r if REVERSE else r  # a tile's rows are in the order of the walk
    shift = 1 if REVERSE else 0  # a gradient goes from t + 1 to t by the decay of t + 1
    inside = (c < D)[None, :]
    product, end = tl.zeros([BD], tl.float32) + 1.0, tl.zeros([BD], tl.float32)
    n = tl.cdiv(tl.minimum(per, seqlen - part * per), BT)
    for k in range(n):
        first = part * per + (n - 1 - k if REVERSE else k) * BT
        t, wide = first + i, tl.cast(first, tl.int64)
        at = (i + shift)[:, None] * a_l + c[None, :]
        a = _decays(log_a + row * a_b + wide * a_l, starts + row * seqlen, at, t + shift, seqlen, inside, HAS_STARTS)
        mask = (t < seqlen)[:, None] & inside
        b = tl.load(u + row * u_b + wide * u_l + i[:, None] * u_l + c[None, :], mask=mask, other=0.0).to(tl.float32)
        a, b = tl.associative_scan((a, b), 0, _after)
        product, end = _after(product, end, _last(a, BT), _last(b, BT))
    at = (row * parts + part) * D + c
    tl.store(products + at, product, mask=c < D)
    tl.store(ends + at, end, mask=c < D)


@triton.jit(do_not_specialize_on_alignment=["D", "a_l", "b_l"])
def _forward_kernel(
    log_a, b, starts, products, ends, initial, h, final, seqlen, D, per, parts, a_b, a_l, b_b, b_l,
    BT: tl.constexpr, BD: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_INITIAL: tl.constexpr,
):  # fmt: skip
    part, block, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, c = tl.arange(0, BT), block * BD + tl.arange(0, BD)
    inside = (c < D)[None, :]
    state = tl.zeros([BD], tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + row * D + c, mask=c < D, other=0.0)
    state = _entering(products, ends, state, row, part, parts, D, c, BT, False)
    for k in range(tl.cdiv(tl.minimum(per, seqlen - part * per), BT)):
        first = part * per + k * BT
        t, wide = first + i, tl.cast(first, tl.int64)
        at = i[:, None] * a_l + c[None, :]
        a = _decays(log_a + row * a_b + wide * a_l, starts + row * seqlen, at, t, seqlen, inside, HAS_STARTS)
        mask = (t < seqlen)[:, None] & inside
        u = tl.load(b + row * b_b + wide * b_l + i[:, None] * b_l + c[None, :], mask=mask, other=0.0).to(tl.float32)
        a, u = tl.associative_scan((a, u), 0, _after)
        out = _enter(a, u, state[None, :])
        tl.store(h + (row * seqlen + wide) * D + i[:, None] * D + c[None, :], out, mask=mask)
        state = _last(out, BT)
    if part == parts - 1:
        tl.store(final + row * D + c, state, mask=c < D)


@triton.jit(do_not_specialize_on_alignment=["D", "a_l", "u_l"])
def _backward_kernel(
    dh, log_a, h, starts, products, ends, initial, dfinal, dlog_a, db, dinitial,
    seqlen, D, per, parts, a_b, a_l, u_b, u_l,
    BT: tl.constexpr, BD: tl.constexpr,
    HAS_STARTS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_FINAL: tl.constexpr,
):  # fmt: skip
    part, block, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, c = BT - 1 - tl.arange(0, BT), block * BD + tl.arange(0, BD)
    inside = (c < D)[None, :]
    g = tl.zeros([BD], tl.float32)
    if HAS_FINAL:
        g = tl.load(dfinal + row * D + c, mask=c < D, other=0.0)
    g = _entering(products, ends, g, row, part, parts, D, c, BT, True)
    n = tl.cdiv(tl.minimum(per, seqlen - part * per), BT)
    for k in range(n):
        first = part * per + (n - 1 - k) * BT
        t, wide = first + i, tl.cast(first, tl.int64)
        log_tile, own_starts = log_a + row * a_b + wide * a_l, starts + row * seqlen
        at = i[:, None] * a_l + c[None, :]
        later = _decays(log_tile, own_starts, at + a_l, t + 1, seqlen, inside, HAS_STARTS)
        mask = (t < seqlen)[:, None] & inside
        u = tl.load(dh + row * u_b + wide * u_l + i[:, None] * u_l + c[None, :], mask=mask, other=0.0).to(tl.float32)
        later, u = tl.associative_scan((later, u), 0, _after)
        out = _enter(later, u, g[None, :])
        g = _last(out, BT)
        place = (row * seqlen + wide) * D + i[:, None] * D + c[None, :]
        tl.store(db + place, out, mask=mask)
        a = _decays(log_tile, own_starts, at, t, seqlen, inside, HAS_STARTS)
        back = tl.where(a < 0.0, 0.0, a * out)  # what goes on to the state before; a start has none
        before = tl.load(h + place - D, mask=mask & (t > 0)[:, None], other=0.0).to(tl.float32)
        if HAS_INITIAL:
            very_first = tl.load(initial + row * D + c, mask=c < D, other=0.0)
            before = tl.where((t == 0)[:, None], very_first[None, :], before)
            if first == 0:
                tl.store(dinitial + row * D + c, _last(back, BT), mask=c < D)
        tl.store(dlog_a + place, tl.where(a < 0.0, 0.0, back * before), mask=mask)


def forward(log_a, b, initial, starts, return_state):
    """See `lcprobe_kernels.linear_recurrence._forward`."""
    log_a, b = last_dim_dense(log_a), last_dim_dense(b)
    grid, products, ends, sizes, tiles = _parts(b)
    flags = {"HAS_STARTS": starts is not None}
    starts = b if starts is None else starts.to(torch.uint8)
    strides = (*log_a.stride()[:2], *b.stride()[:2])
    if grid[0] > 1:
        _ends_kernel[grid](log_a, b, starts, products, ends, *sizes, *strides, REVERSE=False, **flags, **tiles)
    h, final = torch.empty(b.shape, dtype=b.dtype, device=b.device), torch.empty_like(products[:, 0])
    _forward_kernel[grid](
        log_a, b, starts, products, ends, final if initial is None else initial.contiguous(), h, final, *sizes,
        *strides,
        HAS_INITIAL=initial is not None, **flags, **tiles,
    )  # fmt: skip
    return h, final if return_state else b.new_empty(0, dtype=torch.float32)


def backward(dh, dfinal, log_a, h, initial, starts):
    """See `lcprobe_kernels.linear_recurrence._backward`."""
    log_a, dh = last_dim_dense(log_a), last_dim_dense(dh)
    grid, products, ends, sizes, tiles = _parts(h)
    flags = {"HAS_STARTS": starts is not None}
    starts = h if starts is None else starts.to(torch.uint8)
    strides = (*log_a.stride()[:2], *dh.stride()[:2])
    if grid[0] > 1:
        _ends_kernel[grid](log_a, dh, starts, products, ends, *sizes, *strides, REVERSE=True, **flags, **tiles)
    dlog_a, db = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (log_a, h))
    dinitial = torch.empty_like(products[:, 0])
    _backward_kernel[grid](
        dh, log_a, h, starts, products, ends, dinitial if initial is None else initial.contiguous(),
        dinitial if dfinal is None else dfinal.float().contiguous(), dlog_a, db, dinitial, *sizes, *strides,
        HAS_INITIAL=initial is not None, HAS_FINAL=dfinal is not None,
        **flags, **tiles | {"BT": TOKENS // 2},
    )  # fmt: skip
    return dlog_a, db, dinitial if initial is not None else h.new_empty(0, dtype=torch.float32)


def _parts(b: Tensor) -> tuple[tuple[int, int, int], Tensor, Tensor, tuple[int, int, int, int], dict]:
    """The grid (parts, blocks of channels, batch), room for parts' products and ends, sizes, and the tile."""
    batch, seqlen, d = b.shape
    blocks = triton.cdiv(d, CHANNELS)
    available = processors()
    fills = batch * blocks >= MIN_PROGRAMS_PER_SM * available
    parts = (
        1
        if fills
        else max(
            1,
            min(triton.cdiv(TARGET_PROGRAMS_PER_SM * available, max(1, batch * blocks)), seqlen // MIN_PART_TOKENS),
        )
    )
    per = triton.cdiv(triton.cdiv(seqlen, parts), TOKENS) * TOKENS
    parts = triton.cdiv(seqlen, per)
    products, ends = (b.new_empty(batch, parts, d, dtype=torch.float32) for _ in range(2))
    tiles = {"BT": TOKENS, "BD": CHANNELS, "num_warps": 4}
    return (parts, blocks, batch), products, ends, (seqlen, d, per, parts), tiles
