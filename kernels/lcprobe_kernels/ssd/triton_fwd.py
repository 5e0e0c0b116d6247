"""ssd forward in three Triton kernels: step sizes, l and what a chunk adds to the state; the pass over states; the scan.

mamba-ssm takes five (cumsum, C B^T, chunk state, state passing, scan) and writes C B^T out. Here each program forms its own
C B^T on chip. Programs are (chunk, head, row); offsets that a row multiplies are 64-bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.backends import interpreting
from lcprobe_kernels.ssd.cpu import _inner_state, _outer_state
from lcprobe_kernels.triton_tools import dot, dot_state


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
    """Of each token of a chunk, of its last token, and of the state that enters: 0 everywhere without boundaries."""
    i = tl.arange(0, Q)
    own, last, before = i * 0, 0, 0
    if HAS_STARTS:
        base = documents + row * seqlen
        t = chunk * Q + i
        own = tl.load(base + t, mask=t < seqlen, other=-1)
        last = tl.load(base + tl.minimum(chunk * Q + Q, seqlen) - 1)
        before = tl.load(base + chunk * Q - 1, mask=chunk > 0, other=0)
    return own, last, before


@triton.jit
def _chunk_kernel(
    x, dt, A, B, bias, documents, added, steps, log, carry,
    seqlen, n_chunks, H, P, N, R, dt_min, dt_max,
    x_b, x_l, x_h, dt_b, dt_l, dt_h, B_b, B_l, B_g,
    HAS_BIAS: tl.constexpr, HAS_LIMIT: tl.constexpr, HAS_STARTS: tl.constexpr, WANT_STATE: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    chunk, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i = tl.arange(0, Q)
    t = chunk * Q + i
    live, first = t < seqlen, (chunk * Q).to(tl.int64)
    v = tl.load(dt + row * dt_b + first * dt_l + i * dt_l + head * dt_h, mask=live, other=0.0).to(tl.float32)
    if HAS_BIAS:
        v += tl.load(bias + head)
    s = softplus(v)
    if HAS_LIMIT:
        s = tl.where(s < dt_min, dt_min, tl.where(s > dt_max, dt_max, s))  # lets NaN through
    s = tl.where(live, s, 0.0)
    a = s * tl.load(A + head)
    decay = tl.cumsum(a, 0)
    total = tl.sum(tl.where(i == Q - 1, decay, 0.0), 0)  # the same sum as the last entry, to the bit
    at = (row * n_chunks + chunk) * Q * H + head + i * H
    tl.store(steps + at, s)
    tl.store(log + at, decay)
    if WANT_STATE:
        own, last, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
        tl.store(carry + (row * n_chunks + chunk) * H + head, tl.where(last == before, tl.exp(total), 0.0))
        p, n = tl.arange(0, BP), tl.arange(0, BN)
        xs = tl.load(
            x + row * x_b + first * x_l + head * x_h + i[:, None] * x_l + p[None, :],
            mask=live[:, None] & (p < P)[None, :], other=0.0,
        )  # fmt: skip
        bs = tl.load(
            B + row * B_b + first * B_l + i[:, None] * B_l + (head // R) * B_g + n[None, :],
            mask=live[:, None] & (n < N)[None, :], other=0.0,
        )  # fmt: skip
        weight = s * tl.where(own == last, tl.exp(total - decay), 0.0)
        state = dot(tl.trans(bs), (xs * weight[:, None]).to(bs.dtype), INTERPRET, EXACT)  # (n, p)
        width = R * P
        place = ((row * n_chunks + chunk) * (H // R) + head // R) * N * width + (head % R) * P
        tl.store(added + place + n[:, None] * width + p[None, :], state, mask=(n < N)[:, None] & (p < P)[None, :])


@triton.jit
def _pass_kernel(states, carry, initial, final, n_chunks, H, P, R, SIZE, GROUP, HAS_INITIAL: tl.constexpr, BLOCK: tl.constexpr):
    """What each chunk adds -> the state that enters it, in place."""
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < SIZE
    head = at // GROUP * R + at % (R * P) // P
    state = tl.zeros([BLOCK], tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + row * SIZE + at, mask=live, other=0.0)
    for chunk in range(n_chunks):
        place = (row * n_chunks + chunk) * SIZE + at
        added = tl.load(states + place, mask=live, other=0.0)
        kept = tl.load(carry + (row * n_chunks + chunk) * H + head, mask=live, other=0.0)
        tl.store(states + place, state, mask=live)
        state = state * kept + added
    tl.store(final + row * SIZE + at, state, mask=live)


@triton.jit
def _scan_kernel(
    x, B, C, D, documents, steps, log, entering, y,
    seqlen, n_chunks, H, P, N, R,
    x_b, x_l, x_h, B_b, B_l, B_g, C_b, C_l, C_g,
    HAS_D: tl.constexpr, HAS_STARTS: tl.constexpr, HAS_PAST: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, INTERPRET: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    chunk, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, p, n = tl.arange(0, Q), tl.arange(0, BP), tl.arange(0, BN)
    t = chunk * Q + i
    live = t < seqlen
    first = (chunk * Q).to(tl.int64)
    wide_p, wide_n = live[:, None] & (p < P)[None, :], live[:, None] & (n < N)[None, :]
    xs = tl.load(x + row * x_b + first * x_l + head * x_h + i[:, None] * x_l + p[None, :], mask=wide_p, other=0.0)
    bs = tl.load(B + row * B_b + first * B_l + i[:, None] * B_l + (head // R) * B_g + n[None, :], mask=wide_n, other=0.0)
    cs = tl.load(C + row * C_b + first * C_l + i[:, None] * C_l + (head // R) * C_g + n[None, :], mask=wide_n, other=0.0)
    at = (row * n_chunks + chunk) * Q * H + head + i * H
    s, decay = tl.load(steps + at), tl.load(log + at)
    own, _, before = documents_of(documents, row, chunk, seqlen, Q, HAS_STARTS)
    seen = (i[:, None] >= i[None, :]) & (own[:, None] == own[None, :])
    weights = dot(cs, tl.trans(bs), INTERPRET, EXACT) * tl.exp(tl.where(seen, decay[:, None] - decay[None, :], 0.0)) * s[None, :]
    out = dot(tl.where(seen, weights, 0.0).to(xs.dtype), xs, INTERPRET, EXACT)
    if HAS_PAST:
        width = R * P
        place = ((row * n_chunks + chunk) * (H // R) + head // R) * N * width + (head % R) * P
        inside = (n < N)[:, None] & (p < P)[None, :]
        state = tl.load(entering + place + n[:, None] * width + p[None, :], mask=inside, other=0.0)
        past = tl.where(own == before, tl.exp(decay), 0.0)
        out += past[:, None] * dot_state(cs, state, INTERPRET, EXACT)
    if HAS_D:
        out += tl.load(D + head) * xs.to(tl.float32)
    tl.store(y + ((row * seqlen + first) * H + head) * P + i[:, None] * (H * P) + p[None, :], out, mask=wide_p)


def forward(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state):
    """See `lcprobe_kernels.ssd._forward`."""
    batch, seqlen, h, p = x.shape
    g, n = B.shape[2:]
    r, c = h // g, -(-seqlen // q)
    x, B, C = (unit(t) for t in (x, B, C))
    new = lambda *shape: torch.empty(shape, dtype=torch.float32, device=x.device)  # noqa: E731
    steps, log, carry, entering = new(batch, c, q, h), new(batch, c, q, h), new(batch, c, h), new(batch, c, g, n, r * p)
    documents = starts.cumsum(1, dtype=torch.int32) if starts is not None else x
    has_past, want_state = c > 1 or initial is not None, c > 1 or initial is not None or return_state
    tiles = tile_sizes(x, q, p, n)
    limits = (dt_min, min(dt_max, 3e38))
    _chunk_kernel[(c, h, batch)](
        x, dt, A, B, dt_bias if dt_bias is not None else A, documents, entering, steps, log, carry,
        seqlen, c, h, p, n, r, *limits, *x.stride()[:3], *dt.stride(), *B.stride()[:3],
        HAS_BIAS=dt_bias is not None, HAS_LIMIT=(dt_min, dt_max) != (0.0, float("inf")), HAS_STARTS=starts is not None,
        WANT_STATE=want_state, **tiles,
    )  # fmt: skip
    final = x.new_empty(0, dtype=torch.float32)
    if want_state:
        last = new(batch, g, n, r * p)
        first = _inner_state(initial, g).contiguous() if initial is not None else last
        pass_states(_pass_kernel, entering, carry, first, last, p, r, HAS_INITIAL=initial is not None)
        final = _outer_state(last, h, p) if return_state else final
    else:
        entering.zero_()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _scan_kernel[(c, h, batch)](
        x, B, C, D if D is not None else A, documents, steps, log, entering, y,
        seqlen, c, h, p, n, r, *x.stride()[:3], *B.stride()[:3], *C.stride()[:3],
        HAS_D=D is not None, HAS_STARTS=starts is not None, HAS_PAST=has_past, **tiles,
    )  # fmt: skip
    return y, final, steps, log, entering


def unit(t: Tensor) -> Tensor:
    """The tensor with its last dimension dense; other strides stay, so that slices of one projection are not copied."""
    return t if t.stride(-1) == 1 else t.contiguous()


def tile_sizes(x: Tensor, q: int, p: int, n: int) -> dict:
    """Powers of two that hold a chunk, and how to multiply."""
    return {
        "Q": q,
        "BP": max(16, triton.next_power_of_2(p)),
        "BN": max(16, triton.next_power_of_2(n)),
        "INTERPRET": interpreting(),
        "EXACT": x.dtype == torch.float32,
        "num_warps": 8 if q >= 128 else 4,
        "num_stages": 1,
    }


def pass_states(kernel, states: Tensor, carry: Tensor, first: Tensor, last: Tensor, p: int, r: int, **flags: bool) -> None:
    """Run a pass over chunk states (batch, chunks, n_groups, d_state, r x head_dim), in place."""
    batch, c, g, n, width = states.shape
    size = g * n * width
    block = min(1024, triton.next_power_of_2(size))
    grid = (triton.cdiv(size, block), batch)
    kernel[grid](states, carry, first, last, c, g * r, p, r, size, n * width, BLOCK=block, **flags)
