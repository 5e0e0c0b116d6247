"""causal_conv1d: a depthwise convolution over the last `width` tokens, y_t = bias + sum_k w_k x_{t - width + 1 + k}.

Documents do not see each other: a tap that would reach across a document's start reads zero. The path here works on
the (batch, seqlen, channels) layout as `width` shifted multiply-adds, without transposing.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.errors import ArgumentError, check_shape


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = False,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """x: (batch, seqlen, channels); weight: (channels, width); bias: (channels,); starts: (batch, seqlen) bool.

    initial_state: (batch, width - 1, channels), the inputs before x, else zeros.
    Returns y like x, with SiLU applied if asked, and with `return_state` the final state. Raises ArgumentError for other
    shapes.
    """
    if x.dim() != 3 or weight.dim() != 2:
        raise ArgumentError("causal_conv1d: x", f"shape {tuple(x.shape)}", "(batch, seqlen, channels)")
    batch, seqlen, channels = x.shape
    width = weight.shape[1]
    check_shape("causal_conv1d", "weight", weight, (channels, width))
    if bias is not None:
        check_shape("causal_conv1d", "bias", bias, (channels,))
    if initial_state is None:
        padded = F.pad(x, (0, 0, width - 1, 0))
    else:
        check_shape("causal_conv1d", "initial_state", initial_state, (batch, width - 1, channels))
        padded = torch.cat([initial_state.to(x.dtype), x], dim=1)
    same: list[Tensor] = []
    if starts is not None:
        documents = starts.cumsum(1)
        before = F.pad(documents, (width - 1, 0))  # the state belongs to document 0
        same = [before[:, k : k + seqlen] == documents for k in range(width)]
        kept = before[:, seqlen:] == documents[:, -1:]
    y = _Taps.apply(padded, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), silu, *same)
    state = None
    if return_state:
        state = padded[:, seqlen:].clone()
        if starts is not None:
            state = state * kept[..., None]  # pyright: ignore[reportPossiblyUnboundVariable]
    return y, state  # type: ignore[return-value]


class _Taps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, *same: Tensor) -> Tensor:
        width = weight.shape[1]
        taps = weight.t().contiguous()  # (width, channels)
        seqlen = padded.shape[1] - width + 1
        y = padded[:, width - 1 :] * taps[-1]
        for k in range(width - 1):
            past = padded[:, k : k + seqlen]
            y.addcmul_(past * same[k][..., None] if same else past, taps[k])
        if bias is not None:
            y += bias
        ctx.save_for_backward(padded, taps, y if silu else None, *same)
        ctx.has_bias = bias is not None
        return F.silu(y) if silu else y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        padded, taps, before_silu, *same = ctx.saved_tensors
        (dy,) = grads
        if before_silu is not None:
            dy = torch.ops.aten.silu_backward(dy.contiguous(), before_silu)
        width, seqlen = taps.shape[0], dy.shape[1]
        dpadded = torch.zeros_like(padded)
        dweight = torch.empty_like(taps)
        for k in range(width):
            dtap = dy * same[k][..., None] if same else dy
            dpadded[:, k : k + seqlen].addcmul_(dtap, taps[k])
            dweight[k] = (dtap * padded[:, k : k + seqlen]).sum((0, 1))
        dbias = dy.sum((0, 1)) if ctx.has_bias else None
        return dpadded, dweight.t(), dbias, None, *([None] * len(same))


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, starts: Tensor | None) -> Tensor:
    """Token by token, no activation: the oracle of the tests."""
    batch, seqlen, channels = x.shape
    window = x.new_zeros(batch, weight.shape[1] - 1, channels) if initial_state is None else initial_state
    out = []
    for t in range(seqlen):
        if starts is not None:
            window = window * (~starts[:, t])[:, None, None]
        window = torch.cat([window, x[:, t : t + 1]], dim=1)
        y = (window * weight.T).sum(1)
        out.append(y if bias is None else y + bias)
        window = window[:, 1:]
    return torch.stack(out, dim=1)
