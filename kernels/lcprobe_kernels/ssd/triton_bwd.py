"""ssd backward in Triton: a walk in reverse that carries the state's gradient, dx with ddt, d(C B^T), then dB and dC.

No atomics: sums over rows, chunks and heads go through buffers, so that runs are reproducible to the bit.
x is read three times and dy four times in five launches; mamba-ssm's fourteen read each five times.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl

from lcprobe_kernels.ssd.cpu import _inner_state, _outer_state
from lcprobe_kernels.ssd.triton_fwd import document_begins, documents_of, softplus, ssd_tiles, within_32_bits
from lcprobe_kernels.triton_tools import add_dot_state, dot, last_dim_dense

ROWS, ROWS_FLOAT32 = 32, 16
"""Rows of a chunk's (q, q) products that the kernel of dx holds at a time."""
COLUMNS = 32
"""Columns of the state that it holds at a time."""
MIN_PROGRAMS = 512
"""Programs up to which a group's heads are split among several, so that a GPU is full."""


@triton.jit
def _dstates_kernel(
    dy, C, documents, log, dfinal, leaving, dinitial,
    seqlen, n_chunks, H, P, N, R, dy_b, dy_l, dy_h, C_b, C_l, C_g,
    HAS_STARTS: tl.constexpr, HAS_FINAL: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Walks a row's chunks backwards with the gradient of some columns of one head's state in registers.

    Stores the gradient of the state that leaves each chunk; a chunk's outputs add C^T (exp(l) dy) to what enters it.
    """
    part, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    group, inner = (tl.program_id(1) // R).to(tl.int64), tl.program_id(1) % R
    i, p, n = tl.arange(0, Q), tl.arange(0, BP), part * BN + tl.arange(0, BN)
    width = R * P
    tile, inside = n[:, None] * width + p[None, :], (n < N)[:, None] & (p < P)[None, :]
    own_state = (row * (H // R) + group) * N * width + inner * P
    dstate = tl.zeros([BN, BP], tl.float32)
    if HAS_FINAL:
        dstate = tl.load(dfinal + own_state + tile, mask=inside, other=0.0)
    for back in range(n_chunks):
        chunk = n_chunks - 1 - back
        first = tl.cast(chunk, tl.int64) * Q
        live = first + i < seqlen
        place = ((row * n_chunks + chunk) * (H // R) + group) * N * width + inner * P
        tl.store(leaving + place + tile, dstate, mask=inside)
        d = tl.load(
            dy + row * dy_b + first * dy_l + head * dy_h + i[:, None] * dy_l + p[None, :],
            mask=live[:, None] & (p < P)[None, :], other=0.0,
        )  # fmt: skip
        cs = tl.load(
            C + row * C_b + first * C_l + group * C_g + i[:, None] * C_l + n[None, :],
            mask=live[:, None] & (n < N)[None, :], other=0.0,
        )  # fmt: skip
        decay = tl.load(log + (row * n_chunks + chunk) * Q * H + head + i * H)
        own, last, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
        past = tl.where(own == before, tl.exp(decay), 0.0)
        kept = tl.where(last == before, tl.exp(tl.sum(tl.where(i == Q - 1, decay, 0.0), 0)), 0.0)
        dstate = dstate * kept + dot(tl.trans(cs), (d * past[:, None]).to(cs.dtype), INTERPRET, PRECISION)
    tl.store(dinitial + own_state + tile, dstate, mask=inside)


@triton.jit
def _dx_kernel(
    x, dt, A, B, C, D, bias, dy, documents, steps, log, entering, leaving, dx, ddt, sums,
    seqlen, n_chunks, H, P, N, R, dt_min, dt_max,
    x_b, x_l, x_h, dt_b, dt_l, dt_h, B_b, B_l, B_g, C_b, C_l, C_g, dy_b, dy_l, dy_h,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LIMIT: tl.constexpr, HAS_STARTS: tl.constexpr,
    HAS_PAST: tl.constexpr, HAS_NEXT: tl.constexpr, ROWS: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx, ddt, and this chunk's share of dA, dD and d dt_bias: first what goes through the states, then, ROWS outputs
    at a time, what stays inside the chunk; at once both would take twice the registers that there are."""
    chunk, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    far = head.to(tl.int64)
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
    dy += row * dy_b + first * dy_l + far * dy_h
    met = 0.0
    if HAS_PAST and HAS_NEXT:
        for column in range(0, N, 16):
            n = column + tl.arange(0, 16)
            tile, inside = n[:, None] * width + p[None, :], (n < N)[:, None] & (p < P)[None, :]
            state = tl.load(entering + place + tile, mask=inside, other=0.0)
            dstate = tl.load(leaving + place + tile, mask=inside, other=0.0)
            met += tl.sum(tl.sum(state * dstate, 1), 0)  # pyright: ignore[reportOperatorIssue]
    at = (row * n_chunks + chunk) * Q * H + head + i * H
    s, decay = tl.load(steps + at), tl.load(log + at)
    own, last, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
    # l_i - l_j holds the steps t with j < t <= i: sums that cancel nothing, unlike row sums less column sums
    dlog = tl.zeros([Q], tl.float32)
    if HAS_PAST:
        read = tl.zeros([Q, BP], tl.float32)
        for column in range(0, N, BN):
            n = column + tl.arange(0, BN)
            cs = tl.load(C + i[:, None] * C_l + n[None, :], mask=live[:, None] & (n < N)[None, :], other=0.0)
            inside = (n < N)[:, None] & (p < P)[None, :]
            state = tl.load(entering + place + n[:, None] * width + p[None, :], mask=inside, other=0.0)
            read = add_dot_state(read, cs, state, INTERPRET, PRECISION)
        d = tl.load(dy + i[:, None] * dy_l + p[None, :], mask=wide_p, other=0.0)
        sent = tl.where(own == before, tl.exp(decay), 0.0) * tl.sum(d * read, 1)
        dlog += tl.cumsum(sent, 0, reverse=True)
        tl.debug_barrier()  # or the compiler mixes the loops, whose tiles together pass the registers
    xs = tl.load(x + row * x_b + first * x_l + far * x_h + i[:, None] * x_l + p[None, :], mask=wide_p, other=0.0)
    dxdt = tl.zeros([Q, BP], tl.float32)
    if HAS_NEXT:
        for column in range(0, N, BN):
            n = column + tl.arange(0, BN)
            bs = tl.load(B + i[:, None] * B_l + n[None, :], mask=live[:, None] & (n < N)[None, :], other=0.0)
            tile, inside = n[:, None] * width + p[None, :], (n < N)[:, None] & (p < P)[None, :]
            dstate = tl.load(leaving + place + tile, mask=inside, other=0.0)
            dxdt = add_dot_state(dxdt, bs, dstate, INTERPRET, PRECISION)
        total = tl.sum(tl.where(i == Q - 1, decay, 0.0), 0)
        dxdt *= tl.where(own == last, tl.exp(total - decay), 0.0)[:, None]
        written = tl.sum(dxdt * xs, 1) * s
        dlog += tl.sum(tl.where(i[:, None] < i[None, :], written[:, None], 0.0), 0)
        if HAS_PAST:
            dlog += tl.where(last == before, tl.exp(total), 0.0) * met
    tl.debug_barrier()
    for begin in range(0, Q, ROWS):
        m = begin + tl.arange(0, ROWS)
        mt = chunk * Q + m
        there = mt < seqlen
        scores = tl.zeros([ROWS, Q], tl.float32)
        for column in range(0, N, BN):
            n = column + tl.arange(0, BN)
            bs = tl.load(B + i[:, None] * B_l + n[None, :], mask=live[:, None] & (n < N)[None, :], other=0.0)
            cm = tl.load(C + m[:, None] * C_l + n[None, :], mask=there[:, None] & (n < N)[None, :], other=0.0)
            scores += dot(cm, tl.trans(bs), INTERPRET, PRECISION)
        seen = m[:, None] >= i[None, :]
        if HAS_STARTS:
            own_m = tl.load(documents + row * seqlen + mt, mask=there, other=1 << 30)
            seen = seen & (t[None, :] >= own_m[:, None])
        later = tl.load(log + (row * n_chunks + chunk) * Q * H + head + m * H)
        weights = tl.where(seen, scores * tl.exp(tl.where(seen, later[:, None] - decay[None, :], 0.0)), 0.0)
        dm = tl.load(dy + m[:, None] * dy_l + p[None, :], mask=there[:, None] & (p < P)[None, :], other=0.0)
        dxdt += dot(tl.trans(weights).to(dm.dtype), dm, INTERPRET, PRECISION)
        moved = dot(dm, tl.trans(xs), INTERPRET, PRECISION) * s[None, :] * weights
        moved = tl.where(m[:, None] > i[None, :], moved, 0.0)
        dlog += tl.sum(tl.where(m[:, None] >= i[None, :], tl.cumsum(moved, 1) - moved, 0.0), 0)
    a = tl.load(A + head)
    d = tl.load(dy + i[:, None] * dy_l + p[None, :], mask=wide_p, other=0.0)
    dstep = tl.sum(dxdt * xs, 1) + dlog * a
    out = dxdt * s[:, None]
    if HAS_D:
        out += tl.load(D + head) * d
    tl.store(dx + ((row * seqlen + first) * H + head) * P + i[:, None] * (H * P) + p[None, :], out, mask=wide_p)
    v = tl.load(dt + row * dt_b + first * dt_l + i * dt_l + far * dt_h, mask=live, other=0.0).to(tl.float32)
    if HAS_BIAS:
        v += tl.load(bias + head)
    draw = dstep * tl.sigmoid(v)
    if HAS_LIMIT:
        soft = softplus(v)
        draw = tl.where((soft < dt_min) | (soft > dt_max), 0.0, draw)
    draw = tl.where(live, draw, 0.0)
    tl.store(ddt + (row * seqlen + first) * H + head + i * H, draw, mask=live)
    mine = sums + ((row * n_chunks + chunk) * H + head) * 3
    tl.store(mine, tl.sum(tl.where(live, dlog * s, 0.0), 0))
    tl.store(mine + 1, tl.sum(tl.sum(d * xs.to(tl.float32), 1), 0))
    tl.store(mine + 2, tl.sum(draw, 0))


@triton.jit
def _dscores_kernel(
    x, dy, documents, steps, log, out,
    seqlen, n_chunks, H, P, R, SPLITS, PER_SPLIT, x_b, x_l, x_h, dy_b, dy_l, dy_h,
    HAS_STARTS: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of C B^T inside a chunk, summed over some of a group's heads: (batch, chunks, n_groups, splits, q,
    q)."""
    chunk, row = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group, split = tl.program_id(1) // SPLITS, tl.program_id(1) % SPLITS
    i, p = tl.arange(0, Q), tl.arange(0, BP)
    first = (chunk * Q).to(tl.int64)
    inside = (first + i < seqlen)[:, None] & (p < P)[None, :]
    own, _, _ = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
    seen = i[:, None] >= i[None, :]
    if HAS_STARTS:
        seen = seen & ((chunk * Q + i)[None, :] >= own[:, None])
    total = tl.zeros([Q, Q], tl.float32)
    for k in range(PER_SPLIT):
        inner = split * PER_SPLIT + k
        head = group * R + inner
        far = head.to(tl.int64)
        there = (i * 0 + inner) < R  # (q,)
        here = inside & there[:, None]
        xs = tl.load(x + row * x_b + first * x_l + far * x_h + i[:, None] * x_l + p[None, :], mask=here, other=0.0)
        d = tl.load(
            dy + row * dy_b + first * dy_l + far * dy_h + i[:, None] * dy_l + p[None, :], mask=here, other=0.0
        )
        at = (row * n_chunks + chunk) * Q * H + head + i * H
        s, decay = tl.load(steps + at, mask=there, other=0.0), tl.load(log + at, mask=there, other=0.0)
        kept = tl.exp(tl.where(seen, decay[:, None] - decay[None, :], 0.0)) * s[None, :]
        total += tl.where(seen, dot(d, tl.trans(xs), INTERPRET, PRECISION) * kept, 0.0)
    place = (((row * n_chunks + chunk) * (H // R) + group) * SPLITS + split) * Q * Q
    tl.store(out + place + i[:, None] * Q + i[None, :], total)


@triton.jit
def _dbc_kernel(
    u, other, documents, steps, log, states, dscores, out,
    seqlen, n_chunks, H, P, N, R, SPLITS, PER_SPLIT, PARTS, u_b, u_l, u_h, o_b, o_l, o_g,
    OF_B: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_STATE: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dB (OF_B: u is x, other is C, `states` leave) or dC (u is dy, other is B, `states` enter) of one chunk and
    group, BN of their columns.

    The part through the states is summed over some of the group's heads; the first split adds the part inside the
    chunk.
    """
    chunk, part, row = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS, tl.program_id(2).to(tl.int64)
    group, split = tl.program_id(1) // SPLITS, tl.program_id(1) % SPLITS
    i, p, n = tl.arange(0, Q), tl.arange(0, BP), part * BN + tl.arange(0, BN)
    first = (chunk * Q).to(tl.int64)
    live = first + i < seqlen
    wide_n = live[:, None] & (n < N)[None, :]
    total = tl.zeros([Q, BN], tl.float32)
    if HAS_STATE:
        own, last, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
        width = R * P
        for k in range(PER_SPLIT):
            inner = split * PER_SPLIT + k
            head = group * R + inner
            far = head.to(tl.int64)
            there = (i * 0 + inner) < R  # (q,)
            here = (live & there)[:, None] & (p < P)[None, :]
            us = tl.load(
                u + row * u_b + first * u_l + far * u_h + i[:, None] * u_l + p[None, :], mask=here, other=0.0
            )
            at = (row * n_chunks + chunk) * Q * H + head + i * H
            decay = tl.load(log + at, mask=there, other=0.0)
            if OF_B:
                end = tl.sum(tl.where(i == Q - 1, decay, 0.0), 0)
                weight = tl.load(steps + at, mask=there, other=0.0) * tl.where(own == last, tl.exp(end - decay), 0.0)
            else:
                weight = tl.where(own == before, tl.exp(decay), 0.0)
            place = ((row * n_chunks + chunk) * (H // R) + group) * N * width + inner * P
            kept = ((p < P) & (p * 0 + inner < R))[:, None] & (n < N)[None, :]
            state = tl.load(states + place + n[None, :] * width + p[:, None], mask=kept, other=0.0)  # (p, n)
            total = add_dot_state(total, (us * weight[:, None]).to(us.dtype), state, INTERPRET, PRECISION)
    if split == 0:
        o = tl.load(
            other + row * o_b + first * o_l + group.to(tl.int64) * o_g + i[:, None] * o_l + n[None, :],
            mask=wide_n,
            other=0.0,
        )
        inside = dscores + ((row * n_chunks + chunk) * (H // R) + group) * Q * Q
        if OF_B:
            ds = tl.load(inside + i[None, :] * Q + i[:, None])
        else:
            ds = tl.load(inside + i[:, None] * Q + i[None, :])
        total += dot(ds.to(o.dtype), o, INTERPRET, PRECISION)
    groups = H // R
    place = (((row * SPLITS + split) * seqlen + first) * groups + group) * N
    tl.store(out + place + i[:, None] * (groups * N) + n[None, :], total, mask=wide_n)


def backward(
    dy, dfinal, x, dt, A, B, C, D, dt_bias, starts, steps, log, entering, dt_min, dt_max, has_initial, of_steps
):  # fmt: skip
    """See `lcprobe_kernels.ssd._backward`; the kernels compute the gradients of dt, A and dt_bias with the others."""
    batch, seqlen, h, p = x.shape
    g, n = B.shape[2:]
    c, q = log.shape[1:3]
    r = h // g
    x, dt, B, C, dy = (
        within_32_bits(last_dim_dense(x)),
        within_32_bits(dt),
        within_32_bits(last_dim_dense(B)),
        within_32_bits(last_dim_dense(C)),
        within_32_bits(last_dim_dense(dy.to(x.dtype))),
    )
    documents = document_begins(starts) if starts is not None else x
    has_past, has_next = c > 1 or has_initial, c > 1 or dfinal is not None
    tiles = ssd_tiles(x, q, p, n)
    sizes, flag = (seqlen, c, h, p, n, r), {"HAS_STARTS": starts is not None}
    sx, sB, sC, sdy = (t.stride()[:3] for t in (x, B, C, dy))

    leaving, dfirst = torch.empty_like(entering), torch.empty_like(entering[:, 0])
    halves = tiles | {"BN": min(64, tiles["BN"]), "num_stages": 2}
    dlast = _inner_state(dfinal.float(), g).contiguous() if dfinal is not None else dfirst
    _dstates_kernel[(triton.cdiv(n, halves["BN"]), h, batch)](
        dy, C, documents, log, dlast, leaving, dfirst, *sizes, *sdy, *sC, HAS_FINAL=dfinal is not None, **flag,
        **halves
    )  # fmt: skip

    dx, ddt = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, dt))
    sums = x.new_empty((batch * c, h, 3), dtype=torch.float32)
    rows = {"ROWS": min(q, ROWS_FLOAT32 if x.dtype == torch.float32 else ROWS), "BN": min(COLUMNS, tiles["BN"])}
    _dx_kernel[(c, h, batch)](
        x, dt, A, B, C, D if D is not None else A, dt_bias if dt_bias is not None else A, dy, documents, steps, log,
        entering, leaving, dx, ddt, sums, *sizes, dt_min, min(dt_max, 3e38),
        *sx, *dt.stride(), *sB, *sC, *sdy,
        HAS_D=D is not None, HAS_BIAS=dt_bias is not None, HAS_LIMIT=(dt_min, dt_max) != (0.0, float("inf")),
        HAS_PAST=has_past, HAS_NEXT=has_next, **flag, **(tiles | rows),
    )  # fmt: skip
    dA, dD, dbias = sums.sum(0).unbind(-1)

    splits = min(r, max(1, MIN_PROGRAMS // (batch * c * g)))  # no more partial sums than that
    per = -(-r // splits)
    parts = x.new_empty((batch, c, g, splits, q, q), dtype=torch.float32)
    _dscores_kernel[(c, g * splits, batch)](
        x, dy, documents, steps, log, parts, seqlen, c, h, p, r, splits, per, *sx, *sdy, **flag, **tiles
    )  # fmt: skip
    dscores, gradients, columns = parts.sum(3), [], triton.cdiv(n, tiles["BN"])
    for of_b, u, other, states, with_state in ((True, x, C, leaving, has_next), (False, dy, B, entering, has_past)):
        parts = x.new_empty((batch, splits, seqlen, g, n), dtype=torch.float32)
        _dbc_kernel[(c * columns, g * splits, batch)](
            u, other, documents, steps, log, states, dscores, parts,
            *sizes, splits, per, columns, *u.stride()[:3], *other.stride()[:3],
            OF_B=of_b, HAS_STATE=with_state, **flag, **tiles,
        )  # fmt: skip
        gradients.append(parts.sum(1).to(B.dtype))
    dinitial = _outer_state(dfirst, h, p).clone() if has_initial else x.new_empty(0, dtype=torch.float32)
    return dx, ddt, dA.clone(), *gradients, dD.clone(), dbias.clone(), dinitial
