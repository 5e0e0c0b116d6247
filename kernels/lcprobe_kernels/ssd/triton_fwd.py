"""ssd forward in two Triton kernels: a walk over chunks that carries the state, then all chunks' outputs at once.

mamba-ssm launches five (cumsum, C B^T, chunk state, state passing, scan): it writes C B^T out and passes over every
chunk's state three times. Here the walk keeps the state in registers and writes what enters each chunk, once; each
program of the scan forms its own C B^T on chip.

No offset passes 2^31 in 32 bits: row, head, group and a chunk's first token are 64-bit before a stride multiplies
them. What stays 32-bit is an offset inside one chunk, i * stride with i < 128, for which `within_32_bits` keeps
strides below 2^24, and a place inside one group's state or (q, q) product.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.backends import interpreting
from lcprobe_kernels.ssd.cpu import _inner_state, _outer_state
from lcprobe_kernels.ssd.tiles import columns_that_fit, padded
from lcprobe_kernels.triton_tools import add_dot_state, dot, last_dim_dense, precision, shared_memory

TOKENS = 64
"""Inputs of a chunk that the scan holds at a time."""


@triton.jit
def softplus(v):
    """log(1 + exp(v)) to full relative precision; log1p by Kahan's correction, since the language has none."""
    u = tl.exp(-tl.abs(v))
    w = 1.0 + u
    rest = w - 1.0
    small = rest == 0.0
    return tl.maximum(v, 0.0) + tl.where(small, u, tl.log(w) * (u / tl.where(small, 1.0, rest)))


@triton.jit
def documents_of(documents, row, chunk, seqlen, Q: tl.constexpr, HAS_STARTS: tl.constexpr):
    """Where the document begins of each token of a chunk, of its last token, and of the state that enters: 0 without
    boundaries."""
    i = tl.arange(0, Q)
    own, last, before = i * 0, 0, 0
    if HAS_STARTS:
        base = documents + row * seqlen
        t = chunk * Q + i
        own = tl.load(base + t, mask=t < seqlen, other=1 << 30)
        last = tl.load(base + tl.minimum(chunk * Q + Q, seqlen) - 1)
        before = tl.load(base + chunk * Q - 1, mask=chunk > 0, other=-1)
    return own, last, before


@triton.jit
def _states_kernel(
    x, dt, A, B, bias, documents, initial, entering, final, steps, log,
    seqlen, n_chunks, H, P, N, R, dt_min, dt_max,
    x_b, x_l, x_h, dt_b, dt_l, dt_h, B_b, B_l, B_g,
    HAS_BIAS: tl.constexpr, HAS_LIMIT: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    WANT_STATE: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Walks a row's chunks with some columns of one head's state in registers: step sizes, l, and every entering
    state."""
    part, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    group, inner = (tl.program_id(1) // R).to(tl.int64), tl.program_id(1) % R
    i, p, n = tl.arange(0, Q), tl.arange(0, BP), part * BN + tl.arange(0, BN)
    width = R * P
    tile, inside = n[:, None] * width + p[None, :], (n < N)[:, None] & (p < P)[None, :]
    own_state = (row * (H // R) + group) * N * width + inner * P
    state = tl.zeros([BN, BP], tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + own_state + tile, mask=inside, other=0.0)
    a = tl.load(A + head)
    for chunk in range(n_chunks):
        first = tl.cast(chunk, tl.int64) * Q
        live = first + i < seqlen
        v = tl.load(dt + row * dt_b + first * dt_l + head * dt_h + i * dt_l, mask=live, other=0.0).to(tl.float32)
        if HAS_BIAS:
            v += tl.load(bias + head)
        s = softplus(v)
        if HAS_LIMIT:
            s = tl.where(s < dt_min, dt_min, tl.where(s > dt_max, dt_max, s))  # lets NaN through
        # a step that is not finite stays out of the running sum, which later documents share, and is NaN itself
        known = tl.abs(s * a) < float("inf")
        s = tl.where(live, tl.where(known, s, float("nan")), 0.0)
        decay = tl.cumsum(tl.where(live & known, s * a, 0.0), 0)
        at = (row * n_chunks + chunk) * Q * H + head + i * H
        if part == 0:
            tl.store(steps + at, s)
            tl.store(log + at, decay)
        if WANT_STATE:
            own, last, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
            place = ((row * n_chunks + chunk) * (H // R) + group) * N * width + inner * P
            tl.store(entering + place + tile, state, mask=inside)
            xs = tl.load(
                x + row * x_b + first * x_l + head * x_h + i[:, None] * x_l + p[None, :],
                mask=live[:, None] & (p < P)[None, :], other=0.0,
            )  # fmt: skip
            bs = tl.load(
                B + row * B_b + first * B_l + group * B_g + i[:, None] * B_l + n[None, :],
                mask=live[:, None] & (n < N)[None, :], other=0.0,
            )  # fmt: skip
            total = tl.sum(tl.where(i == Q - 1, decay, 0.0), 0)
            weight = s * tl.exp(total - decay)
            if HAS_STARTS:  # chosen, not multiplied by 0: NaN stays in its document
                xs = tl.where((own == last)[:, None], xs, 0.0).to(xs.dtype)
                bs = tl.where((own == last)[:, None], bs, 0.0).to(bs.dtype)
                weight = tl.where(own == last, weight, 0.0)
            carried = tl.where(last == before, state * tl.exp(total), 0.0)
            state = carried + dot(tl.trans(bs), (xs * weight[:, None]).to(bs.dtype), INTERPRET, PRECISION)
    if WANT_STATE:
        tl.store(final + own_state + tile, state, mask=inside)


@triton.jit
def _scan_kernel(
    x, B, C, D, documents, steps, log, entering, y,
    seqlen, n_chunks, H, P, N, R,
    x_b, x_l, x_h, B_b, B_l, B_g, C_b, C_l, C_g,
    HAS_D: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_PAST: tl.constexpr,
    TOKENS: tl.constexpr, Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of one chunk: first what the entering state brings, then, TOKENS inputs at a time, what stays inside
    it; at once, both operands of the products would pass the registers before sm_90."""
    chunk, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    group, inner = (tl.program_id(1) // R).to(tl.int64), tl.program_id(1) % R
    i, p = tl.arange(0, Q), tl.arange(0, BP)
    t = chunk * Q + i
    live = t < seqlen
    first = (chunk * Q).to(tl.int64)
    wide_p = live[:, None] & (p < P)[None, :]
    width = R * P
    place = ((row * n_chunks + chunk) * (H // R) + group) * N * width + inner * P
    B += row * B_b + first * B_l + group * B_g
    C += row * C_b + first * C_l + group * C_g
    x += row * x_b + first * x_l + head * x_h
    at = (row * n_chunks + chunk) * Q * H + head
    s, decay = tl.load(steps + at + i * H), tl.load(log + at + i * H)
    own, _, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
    out = tl.zeros([Q, BP], tl.float32)
    if HAS_PAST:
        for column in range(0, N, BN):
            n = column + tl.arange(0, BN)
            cs = tl.load(C + i[:, None] * C_l + n[None, :], mask=live[:, None] & (n < N)[None, :], other=0.0)
            inside = (n < N)[:, None] & (p < P)[None, :]
            state = tl.load(entering + place + n[:, None] * width + p[None, :], mask=inside, other=0.0)
            out = add_dot_state(out, cs, state, INTERPRET, PRECISION)
        out = tl.exp(decay)[:, None] * out
        if HAS_STARTS:
            out = tl.where((own == before)[:, None], out, 0.0)
        tl.debug_barrier()  # or the compiler mixes both loops, whose tiles together pass the registers
    for begin in range(0, Q, TOKENS):
        m = begin + tl.arange(0, TOKENS)
        there = chunk * Q + m < seqlen
        scores = tl.zeros([Q, TOKENS], tl.float32)
        for column in range(0, N, BN):
            n = column + tl.arange(0, BN)
            bs = tl.load(B + m[:, None] * B_l + n[None, :], mask=there[:, None] & (n < N)[None, :], other=0.0)
            cs = tl.load(C + i[:, None] * C_l + n[None, :], mask=live[:, None] & (n < N)[None, :], other=0.0)
            scores += dot(cs, tl.trans(bs), INTERPRET, PRECISION)
        xs = tl.load(x + m[:, None] * x_l + p[None, :], mask=there[:, None] & (p < P)[None, :], other=0.0)
        seen = i[:, None] >= m[None, :]
        if HAS_STARTS:
            seen = seen & ((chunk * Q + m)[None, :] >= own[:, None])
        # 0 * NaN would reach rows that do not see it: a token that is not finite counts as 0, with NaN for a weight
        # where it is seen
        finite = tl.abs(xs.to(tl.float32)) < float("inf")
        xs = tl.where(finite, xs, 0.0).to(xs.dtype)
        factor = tl.where(tl.min(finite.to(tl.int32), 1) == 1, tl.load(steps + at + m * H), float("nan"))
        kept = tl.exp(tl.where(seen, decay[:, None] - tl.load(log + at + m * H)[None, :], 0.0))
        weights = tl.where(seen, scores * kept * factor[None, :], 0.0)
        out += dot(weights.to(xs.dtype), xs, INTERPRET, PRECISION)
    if HAS_D:
        xs = tl.load(x + i[:, None] * x_l + p[None, :], mask=wide_p, other=0.0).to(tl.float32)
        out += tl.load(D + head) * tl.where(tl.abs(xs) < float("inf"), xs, 0.0)
    tl.store(y + ((row * seqlen + first) * H + head) * P + i[:, None] * (H * P) + p[None, :], out, mask=wide_p)
    lost = tl.sum(s * 0.0, 0)
    if lost != lost:  # backward reads l, and must not take a decay across such a step for known
        tl.store(log + at + i * H, decay + tl.cumsum(s * 0.0, 0))


def forward(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state):
    """See `lcprobe_kernels.ssd._forward`."""
    batch, seqlen, h, p = x.shape
    g, n = B.shape[2:]
    r, c = h // g, -(-seqlen // q)
    x, dt, B, C = (
        within_32_bits(last_dim_dense(x)),
        within_32_bits(dt),
        within_32_bits(last_dim_dense(B)),
        within_32_bits(last_dim_dense(C)),
    )
    new = lambda *shape: torch.empty(shape, dtype=torch.float32, device=x.device)  # noqa: E731
    steps, log, entering, last = (
        new(batch, c, q, h),
        new(batch, c, q, h),
        new(batch, c, g, n, r * p),
        new(batch, g, n, r * p),
    )
    documents = document_begins(starts) if starts is not None else x
    has_past = c > 1 or initial is not None
    want_state, tiles = has_past or return_state, ssd_tiles(x, q, p, n)
    halves = tiles | {"BN": min(64, tiles["BN"]), "num_stages": 2}
    _states_kernel[(triton.cdiv(n, halves["BN"]), h, batch)](
        x, dt, A, B, dt_bias if dt_bias is not None else A, documents,
        _inner_state(initial, g).contiguous() if initial is not None else last, entering, last, steps, log,
        seqlen, c, h, p, n, r, dt_min, min(dt_max, 3e38), *x.stride()[:3], *dt.stride(), *B.stride()[:3],
        HAS_BIAS=dt_bias is not None, HAS_LIMIT=(dt_min, dt_max) != (0.0, float("inf")),
        HAS_STARTS=starts is not None,
        HAS_INITIAL=initial is not None, WANT_STATE=want_state, **halves,
    )  # fmt: skip
    if not want_state:
        entering.zero_()
    final = _outer_state(last, h, p).clone() if return_state else x.new_empty(0, dtype=torch.float32)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _scan_kernel[(c, h, batch)](
        x, B, C, D if D is not None else A, documents, steps, log, entering, y,
        seqlen, c, h, p, n, r, *x.stride()[:3], *B.stride()[:3], *C.stride()[:3],
        HAS_D=D is not None, HAS_STARTS=starts is not None, HAS_PAST=has_past, TOKENS=min(q, TOKENS), **tiles,
    )  # fmt: skip
    return y, final, steps, log, entering


def document_begins(starts: Tensor) -> Tensor:
    """Where the document of each token begins, -1 where it began before the first token, (batch, seqlen) int32.

    A token sees those from there on: one number per row of a tile, where a comparison of documents takes one per
    column too, and their registers.
    """
    t = torch.arange(starts.shape[1], dtype=torch.int32, device=starts.device)
    return torch.where(starts, t, -1).cummax(1).values


def within_32_bits(t: Tensor) -> Tensor:
    """The tensor, copied where tokens lie so far apart that a place inside a chunk would not fit 32 bits."""
    return t if t.stride(1) < 1 << 24 else t.contiguous()


def ssd_tiles(x: Tensor, q: int, p: int, n: int) -> dict:
    """Powers of two that hold a chunk and some columns of the state, and how to multiply."""
    return {
        "Q": q,
        "BP": padded(p),
        "BN": columns_that_fit(q, shared_memory(), p, n, x.dtype),
        "INTERPRET": interpreting(),
        "PRECISION": precision(x.dtype),
        "num_warps": 8 if q > 32 else 4,
        "num_stages": 1,
    }
