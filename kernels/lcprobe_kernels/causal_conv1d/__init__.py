"""causal_conv1d: a depthwise convolution over the last `width` tokens, optionally followed by SiLU.

    y_t = act(bias + sum_k weight[k] x_{t - width + 1 + k}),    x before the first token from the state, else zero

Documents do not see each other: a tap that would reach across a document's start reads zero. The short convolution of Mamba
(Gu & Dao 2023, arXiv 2312.00752). `reference` is this definition; `cpu` is `width` shifted multiply-adds; `triton_conv` reads and
writes every element once, which is all that the op can be judged by: 4 bytes an element forward in bf16, 6 backward.
"""

from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.backends import path_of
from lcprobe_kernels.causal_conv1d import cpu
from lcprobe_kernels.causal_conv1d.reference import reference, step
from lcprobe_kernels.errors import ArgumentError, check_shape

__all__ = ["causal_conv1d", "causal_conv1d_step", "reference"]


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
    """x: (batch, seqlen, channels); weight: (channels, width >= 2); bias: (channels,); starts: (batch, seqlen) bool, True where
    a token begins a document. initial_state: (batch, width - 1, channels), the inputs before x, else zeros.

    Sums are float32 (float64 for float64 inputs). Returns y like x, and with `return_state` the final state: the last width - 1
    inputs, zero before the last document's start. Raises ArgumentError for other shapes and dtypes.
    """
    _check(x, weight, bias, initial_state, starts)
    wide, few = torch.promote_types(x.dtype, torch.float32), weight.shape[1] - 1
    weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
    initial = None if initial_state is None else initial_state.to(wide)
    with torch.autocast(x.device.type, enabled=False):
        if x.shape[1] == 1:
            before = x.new_zeros(x.shape[0], few, x.shape[2], dtype=wide) if initial is None else initial
            if starts is not None:
                before = before.where(~starts[:, :, None], 0)
            y, state = step(x[:, 0].to(wide), before, weight, bias, silu)
            return y[:, None].to(x.dtype), state.to(x.dtype) if return_state else None
        y, _ = _forward(x, weight, bias, initial, starts, silu)
    return y, _final(x, few, initial_state, starts) if return_state else None


def causal_conv1d_step(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None = None, *, silu: bool = False
) -> tuple[Tensor, Tensor]:
    """One token of decoding. x: (batch, channels); state: (batch, width - 1, channels) -> y like x, and the new state.

    Raises ArgumentError as `causal_conv1d` does.
    """
    y, after = causal_conv1d(x[:, None], weight, bias, silu=silu, initial_state=state, return_state=True)
    assert after is not None
    return y[:, 0], after


def _final(x: Tensor, few: int, initial: Tensor | None, starts: Tensor | None) -> Tensor:
    """The last `few` inputs, in x's dtype; a copy, which holds nothing else alive."""
    tail = x[:, -few:]
    missing = few - tail.shape[1]
    if missing:
        before = F.pad(tail, (0, 0, missing, 0)) if initial is None else torch.cat([initial[:, -missing:].to(x.dtype), tail], 1)
        tail = before
    if starts is not None:
        documents = F.pad(starts.cumsum(1), (few, 0))[:, -few:]  # the state belongs to document 0
        tail = tail.where((documents == documents[:, -1:])[..., None], 0)
    return tail.clone()


@torch.library.custom_op("lcprobe::causal_conv1d_fwd", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    initial: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """y, and on the plain path the values before SiLU, which backward takes up again (else empty)."""
    return _path(x).forward(x, weight, bias, initial, starts, silu)


@_forward.register_fake
def _(x, weight, bias, initial, starts, silu):
    kept = silu and path_of("causal_conv1d", x.device, x.dtype) != "triton"
    return x.new_empty(x.shape), x.new_empty(x.shape if kept else (0,), dtype=weight.dtype)


@torch.library.custom_op("lcprobe::causal_conv1d_bwd", mutates_args=())
def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    initial: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
    before_silu: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dweight, dbias, dinitial_state; the last is empty without an initial state."""
    if path_of("causal_conv1d", x.device, x.dtype) == "triton":
        return _path(x).backward(dy, x, weight, bias, initial, starts, silu)
    return cpu.backward(dy, x, weight, initial, starts, before_silu)


@_backward.register_fake
def _(dy, x, weight, bias, initial, starts, before_silu, silu):
    dinitial = weight.new_empty((0,) if initial is None else initial.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(x.shape[2]), dinitial


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, bias, initial, starts, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias, initial, starts, output[1])


def _gradients(ctx: Any, dy: Any, _: Any) -> Any:
    x, weight, bias, initial, starts, before = ctx.saved_tensors
    dx, dweight, dbias, dinitial = _backward(dy, x, weight, bias, initial, starts, before, ctx.silu)
    return dx, dweight, None if bias is None else dbias, None if initial is None else dinitial, None, None


torch.library.register_autograd("lcprobe::causal_conv1d_fwd", _gradients, setup_context=_save)


def _path(x: Tensor) -> Any:
    if path_of("causal_conv1d", x.device, x.dtype) == "triton":
        from lcprobe_kernels.causal_conv1d import triton_conv

        return triton_conv
    return cpu


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, starts: Tensor | None) -> None:
    if x.dim() != 3 or x.shape[1] == 0 or not x.is_floating_point():
        given = f"{x.dtype} of shape {tuple(x.shape)}"
        raise ArgumentError("causal_conv1d: x", given, "floating (batch, seqlen >= 1, channels)")
    batch, seqlen, channels = x.shape
    if weight.dim() != 2 or weight.shape[1] < 2:
        raise ArgumentError("causal_conv1d: weight", f"shape {tuple(weight.shape)}", f"({channels}, width >= 2)")
    check_shape("causal_conv1d", "weight", weight, (channels, weight.shape[1]))
    if bias is not None:
        check_shape("causal_conv1d", "bias", bias, (channels,))
    if initial_state is not None:
        check_shape("causal_conv1d", "initial_state", initial_state, (batch, weight.shape[1] - 1, channels))
    if starts is not None:
        check_shape("causal_conv1d", "starts", starts, (batch, seqlen))
        if starts.dtype != torch.bool:
            raise ArgumentError("causal_conv1d: starts", str(starts.dtype), "torch.bool")
    for name, tensor in {"weight": weight, "bias": bias, "initial_state": initial_state}.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ArgumentError(f"causal_conv1d: {name}", str(tensor.dtype), "a floating dtype")
        if tensor is not None and tensor.device != x.device:
            raise ArgumentError(f"causal_conv1d: {name}", f"on {tensor.device}", f"on {x.device}, as x is")
