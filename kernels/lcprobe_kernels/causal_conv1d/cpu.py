"""causal_conv1d as shifted multiply-adds in place: any device, any float dtype, any width, tuned for CPUs.

Every row is treated as one document after zeros. The few tokens whose window contains a document's start or the
initial state are then recomputed from gathered windows, so that the cost of boundaries is proportional to their
number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Edges:
    """Tokens that are recomputed: their positions, and the taps of their windows (n, width)."""

    rows: Tensor
    tokens: Tensor
    at: Tensor
    """The token that each tap reads; negative in the state."""
    seen: Tensor
    """Whether the tap reads a token of the same document."""


def forward(x, weight, bias, initial, starts, silu):
    """See `lcprobe_kernels.causal_conv1d._forward`."""
    xs, taps = x.to(weight.dtype).contiguous(), weight.t().contiguous()  # dense: it is read width times
    width, seqlen = taps.shape[0], x.shape[1]
    z = torch.empty(x.shape, dtype=xs.dtype, device=x.device)
    torch.mul(xs, taps[-1], out=z) if bias is None else torch.addcmul(bias, xs, taps[-1], out=z)
    for back in range(1, min(width, seqlen)):
        z[:, back:].addcmul_(xs[:, :-back], taps[-1 - back])
    edges = _edges(x, width, initial, starts)
    if edges is not None:
        again = (_windows(edges, xs, initial) * taps).sum(1)
        z[edges.rows, edges.tokens] = again if bias is None else again + bias
    return (F.silu(z) if silu else z).to(x.dtype), z if silu else z.new_empty(0)


def backward(dy, x, weight, bias, initial, starts, kept, silu):
    """See `lcprobe_kernels.causal_conv1d._backward`."""
    xs, taps = x.to(weight.dtype).contiguous(), weight.t().contiguous()  # dense: it is read width times
    width, seqlen = taps.shape[0], x.shape[1]
    dz = dy.to(weight.dtype)
    if silu:
        dz = torch.ops.aten.silu_backward(dz, kept)
    dbias = dz.sum((0, 1)) if bias is not None else dz.new_empty(0)
    edges = _edges(x, width, initial, starts)
    if edges is not None:
        dz = dz if silu else dz.clone()
        dagain = dz[edges.rows, edges.tokens][:, None]  # (n, 1, channels)
        dz[edges.rows, edges.tokens] = 0
    dx, dtaps = torch.empty(x.shape, dtype=xs.dtype, device=x.device), torch.zeros_like(taps)
    torch.mul(dz, taps[-1], out=dx)
    dtaps[-1] = (dz * xs).sum((0, 1))
    for back in range(1, min(width, seqlen)):
        dx[:, :-back].addcmul_(dz[:, back:], taps[-1 - back])
        dtaps[-1 - back] = (dz[:, back:] * xs[:, :-back]).sum((0, 1))
    dinitial = xs.new_empty(0) if initial is None else torch.zeros(initial.shape, dtype=xs.dtype, device=x.device)
    if edges is not None:
        dtaps += (dagain * _windows(edges, xs, initial)).sum(0)  # pyright: ignore[reportPossiblyUnboundVariable]
        dread = (dagain * taps).masked_fill_(~edges.seen[..., None], 0)  # pyright: ignore[reportPossiblyUnboundVariable]
        rows, before = edges.rows[:, None], (edges.at < 0)[..., None]
        if initial is not None:
            place = (edges.at + width - 1).clamp_max(width - 2)
            flat = (rows * (width - 1) + place).expand(dread.shape[:-1]).flatten()
            passed = dread.masked_fill(~before, 0).flatten(0, -2)
            dinitial.view(-1, dinitial.shape[-1]).index_add_(0, flat, passed)
            dread.masked_fill_(before, 0)
        flat = (rows * seqlen + edges.at.clamp_min(0)).expand(dread.shape[:-1]).flatten()
        dx.view(-1, dx.shape[-1]).index_add_(0, flat, dread.flatten(0, -2))  # in order; index_put_ adds in any
    return dx.to(x.dtype), dtaps.t().contiguous(), dbias, dinitial.to(x.dtype)


def _edges(x: Tensor, width: int, initial: Tensor | None, starts: Tensor | None) -> Edges | None:
    """The tokens to recompute, or None if every row is one document after zeros."""
    if initial is None and starts is None:
        return None
    if x.is_meta:  # where memory is counted, without values: too few tokens to matter
        return None
    batch, seqlen = x.shape[:2]
    near, documents = torch.zeros(batch, seqlen, dtype=torch.bool, device=x.device), None
    if starts is not None:
        documents = starts.cumsum(1)
        if initial is None:  # no edge where a row begins with a document
            documents = documents - documents[:, :1]
        documents = F.pad(documents, (width - 1, 0))  # what comes before belongs to document 0
        near = documents[:, :seqlen] != documents[:, width - 1 :]
    if initial is not None:
        near[:, : width - 1] = True
    rows, tokens = near.nonzero(as_tuple=True)
    if not len(rows):
        return None
    at = tokens[:, None] - torch.arange(width - 1, -1, -1, device=x.device)
    seen = at >= 0 if initial is None else torch.ones_like(at, dtype=torch.bool)
    if documents is not None:
        seen = seen & (documents[rows[:, None], at + width - 1] == documents[rows, tokens + width - 1][:, None])
    return Edges(rows, tokens, at, seen)


def _windows(edges: Edges, xs: Tensor, initial: Tensor | None) -> Tensor:
    """The values that the taps of `edges` read (n, width, channels). Selected, not multiplied: NaN stays in its
    document."""
    rows = edges.rows[:, None]
    read = xs[rows, edges.at.clamp_min(0)]
    if initial is not None:
        before = initial.to(xs.dtype)[rows, (edges.at + initial.shape[1]).clamp_max(initial.shape[1] - 1)]
        read = read.where((edges.at >= 0)[..., None], before)
    return read.masked_fill_(~edges.seen[..., None], 0)
