"""rms_norm in Triton: one kernel each way, every element read and written once; a row's group stays in registers.

A program processes ROWS rows of one group. The backward pass walks a strip of rows and accumulates dweight: one row
of partial sums per program, added in a fixed order, so that there are no atomics. Rows are addressed with 64 bits.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.triton_tools import last_dim_dense

MOST_STRIPS = 1024
"""Strips of rows at most, each with a row of partial sums: some programs a multiprocessor."""


@triton.jit
def _forward_kernel(
    x, residual, weight, gate, y, total, scales, rows, d, groups, x_r, res_r, gate_r, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_GATE: tl.constexpr, ZERO_CENTRED: tl.constexpr, ROWS: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    r, c, group = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BD), tl.program_id(1)
    at, inside = group * d + c, (r < rows)[:, None] & (c < d)[None, :]
    far = r.to(tl.int64)[:, None]
    u = tl.load(x + far * x_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        u += tl.load(residual + far * res_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(total + far * (groups * d) + at[None, :], u, mask=inside)
    if HAS_GATE:
        z = tl.load(gate + far * gate_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
        u = u * (z / (1.0 + tl.exp(-z)))
    scale = tl.rsqrt(tl.sum(u * u, 1) / d + eps)
    w = tl.load(weight + at, mask=c < d, other=0.0).to(tl.float32)
    if ZERO_CENTRED:
        w += 1.0
    tl.store(y + far * (groups * d) + at[None, :], u * scale[:, None] * w[None, :], mask=inside)
    tl.store(scales + r.to(tl.int64) * groups + group, scale, mask=r < rows)


@triton.jit
def _backward_kernel(
    dy, dtotal, total, weight, gate, scales, dx, dgate, sums, rows, d, groups, strip, dy_r, dt_r, t_r, gate_r,
    HAS_RESIDUAL: tl.constexpr, HAS_GATE: tl.constexpr, ZERO_CENTRED: tl.constexpr, ROWS: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    c, group = tl.arange(0, BD), tl.program_id(1)
    at = group * d + c
    w = tl.load(weight + at, mask=c < d, other=0.0).to(tl.float32)
    if ZERO_CENTRED:
        w += 1.0
    dweight = tl.zeros([BD], tl.float32)
    for step in range(0, strip, ROWS):
        r = tl.program_id(0) * strip + step + tl.arange(0, ROWS)
        live = (r < rows) & (step + tl.arange(0, ROWS) < strip)
        inside, far = live[:, None] & (c < d)[None, :], r.to(tl.int64)[:, None]
        u = tl.load(total + far * t_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
        g = tl.load(dy + far * dy_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(scales + r.to(tl.int64) * groups + group, mask=live, other=0.0)
        plain = u
        if HAS_GATE:
            z = tl.load(gate + far * gate_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
            sigmoid = 1.0 / (1.0 + tl.exp(-z))
            u = u * (z * sigmoid)
        normed = u * scale[:, None]
        dweight += tl.sum(g * normed, 0)
        dn = g * w[None, :]
        du = scale[:, None] * (dn - normed * (tl.sum(dn * normed, 1) / d)[:, None])
        if HAS_GATE:
            tl.store(
                dgate + far * (groups * d) + at[None, :],
                du * plain * sigmoid * (1.0 + z * (1.0 - sigmoid)),
                mask=inside,
            )
            du = du * (z * sigmoid)
        if HAS_RESIDUAL:
            du += tl.load(dtotal + far * dt_r + at[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + far * (groups * d) + at[None, :], du, mask=inside)
    tl.store(sums + tl.program_id(0).to(tl.int64) * (groups * d) + at, dweight, mask=c < d)


def forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    n_groups: int,
    zero_centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.rms_norm._forward`."""
    flat = _rows(x)
    rows, width = flat.shape
    res, z = (flat if t is None else _rows(t) for t in (residual, gate))
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = torch.empty(x.shape if residual is not None else (0,), dtype=weight.dtype, device=x.device)
    scales = torch.empty((*x.shape[:-1], n_groups), dtype=torch.float32, device=x.device)
    flags, d = _tiles(width // n_groups), width // n_groups
    _forward_kernel[(triton.cdiv(rows, flags["ROWS"]), n_groups)](
        flat, res, weight, z, y, total, scales, rows, d, n_groups, flat.stride(0), res.stride(0), z.stride(0), eps,
        HAS_RESIDUAL=residual is not None, HAS_GATE=gate is not None, ZERO_CENTRED=zero_centred, **flags,
    )  # fmt: skip
    return y, total, scales


def backward(
    dy: Tensor,
    dtotal: Tensor | None,
    total: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    zero_centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.rms_norm._backward`."""
    flat, g = _rows(total), _rows(dy)
    (rows, width), groups = flat.shape, scale.shape[-1]
    more, z = (flat if t is None else _rows(t) for t in (dtotal, gate))
    d, flags = width // groups, _tiles(width // groups)
    strip = max(flags["ROWS"], triton.cdiv(rows, MOST_STRIPS))
    dx = torch.empty(total.shape, dtype=total.dtype, device=total.device)
    dgate = torch.empty(
        total.shape if gate is not None else (0,),
        dtype=weight.dtype if gate is None else gate.dtype,
        device=dx.device,
    )
    n = triton.cdiv(rows, strip)
    sums = torch.empty((n, width), dtype=torch.float32, device=dx.device)
    _backward_kernel[(n, groups)](
        g, more, flat, weight, z, scale, dx, dgate, sums, rows, d, groups, strip,
        g.stride(0), more.stride(0), flat.stride(0), z.stride(0),
        HAS_RESIDUAL=dtotal is not None, HAS_GATE=gate is not None, ZERO_CENTRED=zero_centred, **flags,
    )  # fmt: skip
    return dx, sums.sum(0), dgate


def _rows(t: Tensor) -> Tensor:
    """(rows, d) with a dense last dimension; a copy only where leading dimensions do not fold into one stride."""
    return last_dim_dense(t).flatten(0, -2) if t.dim() > 1 else last_dim_dense(t)[None]


def _tiles(d: int) -> dict:
    """One group a row, several rows where a group is small."""
    width = max(16, triton.next_power_of_2(d))
    return {"ROWS": max(1, 2048 // width), "BD": width, "num_warps": min(8, max(4, width // 512))}
