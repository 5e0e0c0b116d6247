"""causal_conv1d forward in one Triton kernel: a tile of tokens and channels, read once for each tap and, but for the
first time, from the cache. Offsets that a row or a tile multiplies are 64-bit.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl

from lcprobe_kernels.backends import interpreting
from lcprobe_kernels.triton_tools import last_dim_dense


@triton.jit
def _forward_kernel(
    x, taps, bias, initial, documents, y, seqlen, C, x_b, x_l,
    WIDTH: tl.constexpr, SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    HAS_STARTS: tl.constexpr,
    BL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    chunk, part, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, c = tl.arange(0, BL), part * BC + tl.arange(0, BC)
    first = tl.cast(chunk, tl.int64) * BL
    t, there = first + i, c < C
    live = t < seqlen
    own = i * 0
    if HAS_STARTS:
        own = tl.load(documents + row * seqlen + t, mask=live, other=-1)
    z = tl.zeros([BL, BC], tl.float32)
    if HAS_BIAS:
        z += tl.load(bias + c[None, :], mask=there[None, :], other=0.0)
    for back in tl.static_range(WIDTH):
        seen = live & (t >= back)
        if HAS_STARTS:
            seen = seen & (own == tl.load(documents + row * seqlen + t - back, mask=seen, other=-2))
        read = tl.load(
            x + row * x_b + first * x_l + (i - back)[:, None] * x_l + c[None, :],
            mask=seen[:, None] & there[None, :],
            other=0.0,
        ).to(tl.float32)
        if HAS_INITIAL and back > 0:
            before = (t < back) & live & (own == 0)
            read += tl.load(
                initial + (row * (WIDTH - 1) + WIDTH - 1 - back + t)[:, None] * C + c[None, :],
                mask=before[:, None] & there[None, :], other=0.0,
            ).to(tl.float32)  # fmt: skip
        z += read * tl.load(taps + (WIDTH - 1 - back) * C + c[None, :], mask=there[None, :], other=0.0)
    if SILU:
        z = z * tl.sigmoid(z)
    out = y + (row * seqlen + first) * C + i[:, None] * C + c[None, :]
    tl.store(out, z, mask=live[:, None] & there[None, :])


def forward(x, weight, bias, initial, starts, silu):
    """See `lcprobe_kernels.causal_conv1d._forward`; y alone."""
    batch, seqlen, channels = x.shape
    x, taps = last_dim_dense(x), weight.t().contiguous()  # by rows, as x lies
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    documents = x if starts is None else starts.cumsum(1, dtype=torch.int32)
    bl = 16 if interpreting() else 64  # there, so that short sequences cross a border
    bc = min(64, triton.next_power_of_2(channels))
    _forward_kernel[(triton.cdiv(seqlen, bl), triton.cdiv(channels, bc), batch)](
        x, taps, taps if bias is None else bias.contiguous(), x if initial is None else initial.contiguous(),
        documents, y,
        seqlen, channels, *x.stride()[:2], WIDTH=weight.shape[1], SILU=silu, HAS_BIAS=bias is not None,
        HAS_INITIAL=initial is not None, HAS_STARTS=starts is not None, BL=bl, BC=bc, num_warps=4,
    )  # fmt: skip
    return y
