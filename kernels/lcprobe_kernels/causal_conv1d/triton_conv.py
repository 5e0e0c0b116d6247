"""causal_conv1d in Triton: one kernel forward, one backward, each reading and writing every element once from memory.

A program holds (BT tokens, BC channels). Taps are loads of the same tile some tokens earlier, which come from L1. Backward needs
the gradient before SiLU at `width` shifts, so the convolution is done again there instead of being stored; sums over tokens leave
each program as one row of partial sums, added in a fixed order. Rows are addressed with 64 bits.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.causal_conv1d import cpu
from lcprobe_kernels.triton_tools import unit

BC = 64
BT = {"forward": 32, "backward": 16}
"""Backward holds the tile at `width` shifts: 32 tokens would spill."""


@triton.jit
def _past(
    x, initial, documents, row, t, own, c, back, seqlen, C, x_b, x_l, here, HAS_INITIAL: tl.constexpr, HAS_STARTS: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """(BT, BC) float32: what stands `back` tokens before tokens `t`, zero across a document's start."""
    s = t - back
    there = (s >= 0) & (s < seqlen) & (t < seqlen)
    if HAS_STARTS:
        other = tl.load(documents + row * seqlen + s, mask=there, other=-1)
        there = there & (other == own)
    at = row * x_b + s.to(tl.int64)[:, None] * x_l + c[None, :]
    v = tl.load(x + at, mask=there[:, None] & here, other=0.0).to(tl.float32)
    if HAS_INITIAL:
        before = (s < 0) & (t < seqlen) & (t >= 0)
        if HAS_STARTS:
            before = before & (own == 0)
        at = (row * (W - 1) + (s + W - 1).to(tl.int64)[:, None]) * C + c[None, :]
        v += tl.load(initial + at, mask=before[:, None] & here, other=0.0).to(tl.float32)
    return v


@triton.jit
def _before_silu(
    x, weight, bias, initial, documents, row, t, c, seqlen, C, x_b, x_l, here,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_STARTS: tl.constexpr,
    W: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The convolution at tokens `t`, in float32."""
    own = t * 0
    if HAS_STARTS:
        own = tl.load(documents + row * seqlen + t, mask=(t >= 0) & (t < seqlen), other=-2)
    y = tl.zeros([BT, BC], tl.float32)
    for k in tl.static_range(W):
        w = tl.load(weight + c * W + k, mask=c < C, other=0.0).to(tl.float32)
        y += w[None, :] * _past(
            x, initial, documents, row, t, own, c, W - 1 - k, seqlen, C, x_b, x_l, here, HAS_INITIAL, HAS_STARTS, W
        )
    if HAS_BIAS:
        y += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _forward_kernel(
    x, weight, bias, initial, documents, y, seqlen, C, x_b, x_l,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_STARTS: tl.constexpr,
    W: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    t, c, row = tl.program_id(0) * BT + tl.arange(0, BT), tl.program_id(1) * BC + tl.arange(0, BC), tl.program_id(2).to(tl.int64)
    here = (c < C)[None, :]
    out = _before_silu(
        x, weight, bias, initial, documents, row, t, c, seqlen, C, x_b, x_l, here, HAS_BIAS, HAS_INITIAL, HAS_STARTS, W, BT, BC
    )
    if SILU:
        out = out / (1.0 + tl.exp(-out))
    at = (row * seqlen + t.to(tl.int64)[:, None]) * C + c[None, :]
    tl.store(y + at, out, mask=(t < seqlen)[:, None] & here)


@triton.jit
def _backward_kernel(
    dy, x, weight, bias, initial, documents, dx, sums, seqlen, n_blocks, C, dy_b, dy_l, x_b, x_l,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_STARTS: tl.constexpr,
    W: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx of a tile, and the tile's share of dweight (W rows) and dbias (the last row)."""
    block, row = tl.program_id(0), tl.program_id(2).to(tl.int64)
    t, c = block * BT + tl.arange(0, BT), tl.program_id(1) * BC + tl.arange(0, BC)
    here, own = (c < C)[None, :], t * 0
    if HAS_STARTS:
        own = tl.load(documents + row * seqlen + t, mask=t < seqlen, other=-2)
    total = tl.zeros([BT, BC], tl.float32)
    for k in tl.static_range(W):
        s = t + k  # a later token that sees token t through tap W - 1 - k
        there = s < seqlen
        g = tl.load(dy + row * dy_b + s.to(tl.int64)[:, None] * dy_l + c[None, :], mask=there[:, None] & here, other=0.0).to(
            tl.float32
        )
        if SILU:
            v = _before_silu(
                x,
                weight,
                bias,
                initial,
                documents,
                row,
                s,
                c,
                seqlen,
                C,
                x_b,
                x_l,
                here,
                HAS_BIAS,
                HAS_INITIAL,
                HAS_STARTS,
                W,
                BT,
                BC,
            )
            gate = 1.0 / (1.0 + tl.exp(-v))
            g = g * gate * (1.0 + v * (1.0 - gate))
            g = tl.where(there[:, None], g, 0.0)
        w = tl.load(weight + c * W + (W - 1 - k), mask=c < C, other=0.0).to(tl.float32)
        if k == 0:
            for j in tl.static_range(W):
                past = _past(
                    x, initial, documents, row, t, own, c, W - 1 - j, seqlen, C, x_b, x_l, here, HAS_INITIAL, HAS_STARTS, W
                )
                place = ((row * n_blocks + block) * (W + 1) + j) * C + c
                tl.store(sums + place, tl.sum(g * past, 0), mask=c < C)
            tl.store(sums + ((row * n_blocks + block) * (W + 1) + W) * C + c, tl.sum(g, 0), mask=c < C)
        if HAS_STARTS:
            other = tl.load(documents + row * seqlen + s, mask=there, other=-1)
            g = tl.where((other == own)[:, None], g, 0.0)
        total += w[None, :] * g
    at = (row * seqlen + t.to(tl.int64)[:, None]) * C + c[None, :]
    tl.store(dx + at, total, mask=(t < seqlen)[:, None] & here)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor]:
    """See `lcprobe_kernels.causal_conv1d._forward`; nothing is kept for backward."""
    x, y = unit(x), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid, common = _launch(x, weight, bias, initial, starts, BT["forward"])
    _forward_kernel[grid](
        *common, y, *x.shape[1:], *x.stride()[:2], SILU=silu, BT=BT["forward"], **_flags(weight, bias, initial, starts)
    )
    return y, y.new_empty(0, dtype=weight.dtype)


def backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.causal_conv1d._backward`."""
    x, dy = unit(x), unit(dy)
    grid, common = _launch(x, weight, bias, initial, starts, BT["backward"])
    (batch, seqlen, channels), width, n_blocks = x.shape, weight.shape[1], grid[0]
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sums = torch.empty((batch * n_blocks, width + 1, channels), dtype=torch.float32, device=x.device)
    _backward_kernel[grid](
        dy, *common, dx, sums, seqlen, n_blocks, channels, *dy.stride()[:2], *x.stride()[:2],
        SILU=silu, BT=BT["backward"], **_flags(weight, bias, initial, starts),
    )  # fmt: skip
    total = sums.sum(0)
    dinitial = dx.new_empty(0, dtype=weight.dtype)
    if initial is not None:  # only the first width - 1 tokens see the state
        few = width - 1
        part = (x[:, :few], weight, bias, initial, None if starts is None else starts[:, :few], silu)
        _, before = cpu.forward(*part)
        dinitial = cpu.backward(dy[:, :few], x[:, :few], weight, initial, part[4], before)[3]
    return dx, total[:width].t().contiguous().to(weight.dtype), total[width].clone(), dinitial


def _launch(x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None, bt: int):
    documents = x if starts is None else starts.cumsum(1, dtype=torch.int32)
    grid = (triton.cdiv(x.shape[1], bt), triton.cdiv(x.shape[2], BC), x.shape[0])
    given = (x, weight.contiguous(), weight if bias is None else bias, x if initial is None else initial.contiguous(), documents)
    return grid, given


def _flags(weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None) -> dict:
    has = {"HAS_BIAS": bias is not None, "HAS_INITIAL": initial is not None, "HAS_STARTS": starts is not None}
    return {**has, "W": weight.shape[1], "BC": BC, "num_warps": 4}
