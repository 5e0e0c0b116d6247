"""causal_conv1d backward in one Triton kernel: a walk over a segment's tokens with the window in registers.

Each token is read once: z is recomputed from the window, dz follows from dy, and dx of a token is complete width - 1
tokens later. A segment begins with the window before it and walks width - 1 tokens past its end. Gradients of weight
and bias are summed in registers, one partial sum a segment, so there are no atomics and runs are reproducible to the
bit. Block sizes follow from the shapes and are not tuned, or another process might add up in another order.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl

from lcprobe_kernels.triton_tools import last_dim_dense

PROGRAMS_TO_FILL = 1024
"""Programs of one warp that fill a GPU: eight for each multiprocessor."""


@triton.jit
def _earlier(
    x, initial, documents, row, first, c, BACK: tl.constexpr, WIDTH: tl.constexpr, seqlen, C, x_b, x_l,
    HAS_INITIAL: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """The input BACK tokens before a segment, and its document: 0 before the row."""
    begins = c * 0 + first  # the interpreter takes no mask from a scalar
    v = tl.load(x + row * x_b + (first - BACK) * x_l + c, mask=(c < C) & (begins > 0), other=0.0).to(tl.float32)
    if HAS_INITIAL:
        at = initial + (row * (WIDTH - 1) + WIDTH - 1 - BACK) * C
        v += tl.load(at + c, mask=(c < C) & (begins == 0), other=0.0).to(tl.float32)
    document = 0
    if HAS_STARTS:
        document = tl.load(documents + row * seqlen + first - BACK, mask=first > 0, other=0)
    return v, document


@triton.jit
def _backward_kernel(
    dy, x, taps, bias, initial, documents, dx, dinitial, sums, seqlen, C, segments, x_b, x_l, dy_b, dy_l,
    WIDTH: tl.constexpr, SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    HAS_STARTS: tl.constexpr,
    STEPS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    segment, part, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    OWN: tl.constexpr = STEPS - WIDTH + 1
    first = tl.cast(segment, tl.int64) * OWN
    c = part * BC + tl.arange(0, BC)
    there = c < C
    zero = tl.zeros([BC], tl.float32)
    b = zero
    if HAS_BIAS:
        b = tl.load(bias + c, mask=there, other=0.0)
    # w, x, d: weight, input and document of the token that many back; a: its dx so far; g: sum for its weight's
    # gradient
    w0 = tl.load(taps + (WIDTH - 1) * C + c, mask=there, other=0.0)
    w1 = tl.load(taps + (WIDTH - 2) * C + c, mask=there, other=0.0)
    x1, d1 = _earlier(
        x, initial, documents, row, first, c, 1, WIDTH, seqlen, C, x_b, x_l, HAS_INITIAL, HAS_STARTS
    )  # fmt: skip
    w2, w3, x2, x3, d2, d3 = zero, zero, zero, zero, 0, 0
    if WIDTH > 2:
        w2 = tl.load(taps + (WIDTH - 3) * C + c, mask=there, other=0.0)
        x2, d2 = _earlier(
            x, initial, documents, row, first, c, 2, WIDTH, seqlen, C, x_b, x_l, HAS_INITIAL, HAS_STARTS
        )  # fmt: skip
    if WIDTH > 3:
        w3 = tl.load(taps + c, mask=there, other=0.0)
        x3, d3 = _earlier(
            x, initial, documents, row, first, c, 3, WIDTH, seqlen, C, x_b, x_l, HAS_INITIAL, HAS_STARTS
        )  # fmt: skip
    a1, a2, a3, g0, g1, g2, g3, gb = zero, zero, zero, zero, zero, zero, zero, zero
    d0 = 0
    x_at, dy_at = x + row * x_b + first * x_l + c, dy + row * dy_b + first * dy_l + c
    dx_at = dx + (row * seqlen + first) * C + c
    for step in tl.range(0, STEPS, loop_unroll_factor=4):
        i = tl.cast(step, tl.int32)
        t = c * 0 + first + i  # the interpreter takes no mask from a scalar
        live = t < seqlen
        x0 = tl.load(x_at + i * x_l, mask=there & live, other=0.0).to(tl.float32)
        dz = tl.load(dy_at + i * dy_l, mask=there & live, other=0.0).to(tl.float32)
        if HAS_STARTS:
            d0 = tl.load(documents + row * seqlen + first + i, mask=first + i < seqlen, other=-1)
        u1, u2, u3 = tl.where(d1 == d0, x1, 0.0), tl.where(d2 == d0, x2, 0.0), tl.where(d3 == d0, x3, 0.0)
        if SILU:
            z = b + w0 * x0 + w1 * u1
            if WIDTH > 2:
                z += w2 * u2
            if WIDTH > 3:
                z += w3 * u3
            s = tl.sigmoid(z)
            dz = dz * s * (1.0 + z * (1.0 - s))
        mine = tl.where(live & (t < first + OWN), dz, 0.0)
        g0 += mine * x0
        g1 += mine * u1
        g2 += mine * u2
        g3 += mine * u3
        gb += mine
        dz = tl.where(live, dz, 0.0)
        a1 = a1 + tl.where(d1 == d0, w1 * dz, 0.0)
        a2 = a2 + tl.where(d2 == d0, w2 * dz, 0.0)
        a3 = a3 + tl.where(d3 == d0, w3 * dz, 0.0)
        done = a1
        if WIDTH == 3:
            done = a2
        if WIDTH == 4:
            done = a3
        t -= WIDTH - 1  # the token whose dx is complete
        tl.store(dx_at + (i - WIDTH + 1) * C, done, mask=there & (t >= first) & (t < seqlen))
        if HAS_INITIAL:
            tl.store(dinitial + (row * (WIDTH - 1) + i) * C + c, done, mask=there & (t < 0))
        a3, a2, a1 = a2, a1, w0 * dz
        x3, x2, x1 = x2, x1, x0
        d3, d2, d1 = d2, d1, d0
    mine = sums + (row * segments + segment) * (WIDTH + 1) * C + c
    tl.store(mine + (WIDTH - 1) * C, g0, mask=there)
    tl.store(mine + (WIDTH - 2) * C, g1, mask=there)
    if WIDTH > 2:
        tl.store(mine + (WIDTH - 3) * C, g2, mask=there)
    if WIDTH > 3:
        tl.store(mine, g3, mask=there)
    tl.store(mine + WIDTH * C, gb, mask=there)


def backward(dy, x, weight, bias, initial, starts, silu):
    """See `lcprobe_kernels.causal_conv1d._backward`."""
    batch, seqlen, channels = x.shape
    x, dy, taps = last_dim_dense(x), last_dim_dense(dy), weight.t().contiguous()
    width = taps.shape[0]
    bc = min(256, triton.next_power_of_2(channels))
    parts = triton.cdiv(channels, bc)
    # the longer a segment, the fewer tokens are read twice and the fewer partial sums are written
    steps = min(256, max(16, triton.next_power_of_2(batch * seqlen * parts // PROGRAMS_TO_FILL)))
    segments = triton.cdiv(seqlen, steps - width + 1)
    documents = x if starts is None else starts.cumsum(1, dtype=torch.int32)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dinitial = torch.empty(0 if initial is None else initial.shape, dtype=x.dtype, device=x.device)
    sums = torch.empty(batch * segments, width + 1, channels, dtype=torch.float32, device=x.device)
    _backward_kernel[(segments, parts, batch)](
        dy, x, taps, taps if bias is None else bias.contiguous(), x if initial is None else initial.contiguous(),
        documents,
        dx, dinitial, sums, seqlen, channels, segments, *x.stride()[:2], *dy.stride()[:2],
        WIDTH=width, SILU=silu, HAS_BIAS=bias is not None, HAS_INITIAL=initial is not None,
        HAS_STARTS=starts is not None,
        STEPS=steps, BC=bc, num_warps=1,
    )  # fmt: skip
    total = sums.sum(0)
    dbias = total.new_empty(0) if bias is None else total[width].clone()
    return dx, total[:width].t().contiguous(), dbias, dinitial
