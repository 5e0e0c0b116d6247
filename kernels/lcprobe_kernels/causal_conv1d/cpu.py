"""causal_conv1d as `width` shifted multiply-adds on the (batch, seqlen, channels) layout: any device, any float dtype.

Nothing is padded or transposed: a tap k tokens back adds x[:, :-k] to y[:, k:], and the state to the first k tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, starts: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor]:
    """See `lcprobe_kernels.causal_conv1d._forward`."""
    taps, wide, width = weight.t().contiguous(), x.to(weight.dtype), weight.shape[1]
    y = wide * taps[-1] if bias is None else torch.addcmul(bias, wide, taps[-1])
    for k in range(1, width):
        near, far = _same_document(starts, k)
        n = min(k, x.shape[1])
        if n == k:
            past = wide[:, :-k]
            y[:, k:].addcmul_(past if near is None else past.where(near, 0), taps[-1 - k])
        if initial is not None:
            past = initial[:, width - 1 - k : width - 1 - k + n]
            y[:, :n].addcmul_(past if far is None else past.where(far, 0), taps[-1 - k])
    if not silu:
        return y.to(x.dtype), y.new_empty(0)
    return F.silu(y).to(x.dtype), y


def backward(
    dy: Tensor, x: Tensor, weight: Tensor, initial: Tensor | None, starts: Tensor | None, before_silu: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.causal_conv1d._backward`."""
    taps, wide, dy, width = weight.t().contiguous(), x.to(weight.dtype), dy.to(weight.dtype), weight.shape[1]
    if before_silu.numel():
        dy = torch.ops.aten.silu_backward(dy.contiguous(), before_silu)
    dx, dtaps = dy * taps[-1], torch.empty_like(taps)
    dinitial = torch.zeros_like(initial) if initial is not None else dy.new_empty(0)
    dtaps[-1] = (dy * wide).sum((0, 1))
    for k in range(1, width):
        near, far = _same_document(starts, k)
        n, total = min(k, x.shape[1]), torch.zeros_like(taps[0])
        if n == k:
            dtap = dy[:, k:] if near is None else dy[:, k:].where(near, 0)
            dx[:, :-k].addcmul_(dtap, taps[-1 - k])
            past = wide[:, :-k]
            total = (dtap * (past if near is None else past.where(near, 0))).sum((0, 1))
        if initial is not None:
            dtap = dy[:, :n] if far is None else dy[:, :n].where(far, 0)
            part = slice(width - 1 - k, width - 1 - k + n)
            dinitial[:, part].addcmul_(dtap, taps[-1 - k])
            past = initial[:, part]
            total = total + (dtap * (past if far is None else past.where(far, 0))).sum((0, 1))
        dtaps[-1 - k] = total
    return dx.to(x.dtype), dtaps.t().contiguous(), dy.sum((0, 1)), dinitial


def _same_document(starts: Tensor | None, k: int) -> tuple[Tensor | None, Tensor | None]:
    """Whether a token and the one k before it are of one document, (batch, seqlen - k, 1), and whether one of the first k
    tokens still belongs to the state's document, (batch, k, 1). None without boundaries."""
    if starts is None:
        return None, None
    documents = starts.cumsum(1)[..., None]
    return documents[:, k:] == documents[:, :-k], documents[:, :k] == 0
