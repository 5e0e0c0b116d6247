"""causal_conv1d: a depthwise convolution over the last `width` tokens, optionally followed by SiLU.

    z_t = bias + sum_k w_k x_{t - width + 1 + k}        y_t = z_t or z_t sigmoid(z_t)

As in Mamba2 (Dao & Gu 2024, arXiv 2405.21060, sec. 7). Documents do not see each other: a tap that would cross a
document's start reads zero. `reference` is this sum token by token. Sums are float32 (float64 for float64 inputs),
whatever the inputs. The state is the last width - 1 inputs of the document that the sequence ends in.
"""

from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.backends import path_of
from lcprobe_kernels.causal_conv1d import cpu
from lcprobe_kernels.causal_conv1d.reference import reference, step
from lcprobe_kernels.errors import (
    ArgumentError,
    check_first,
    check_flag,
    check_like,
    check_no_tangent,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.packed import resolve_starts

__all__ = ["causal_conv1d", "causal_conv1d_step", "reference"]
NAME = "causal_conv1d"
MAX_TRITON_WIDTH = 4
"""The Triton kernels keep a window in registers; wider ones use PyTorch."""


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = False,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """x: (batch, seqlen, channels); weight: (channels, width), width >= 2; bias: (channels,).

    initial_state: (batch, width - 1, channels), the inputs before x, else zeros. starts: (batch, seqlen) bool, True
    where a token begins a document; or cu_seqlens: (n_documents + 1,), see `packed.starts_of`. Returns y like x, and
    with `return_state` the final state, in x's dtype. Differentiable once, in reverse mode. Raises ArgumentError for
    other shapes, dtypes and devices.
    """
    starts = resolve_starts(NAME, x, starts, cu_seqlens, initial_state)
    _check(x, weight, bias, initial_state, starts, (("silu", silu), ("return_state", return_state)))
    acc_dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = weight.to(acc_dtype), None if bias is None else bias.to(acc_dtype)
    before = None if initial_state is None else initial_state.to(x.dtype)
    if x.shape[1] == 1 and before is not None and not _in_triton(x, weight):
        if starts is not None:
            before = before.where(~starts[..., None], torch.zeros((), dtype=x.dtype, device=x.device))
        y, state = step(x[:, 0], before, weight, bias, silu)
        return y[:, None], state if return_state else None
    y, _ = _forward(x, weight, bias, before, starts, silu)
    return y, _final_state(x, before, starts, weight.shape[1]) if return_state else None


def causal_conv1d_step(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None = None, *, silu: bool = False
) -> tuple[Tensor, Tensor]:
    """One token of decoding. x: (batch, channels); state: (batch, width - 1, channels) -> y like x, and the new
    state.

    Raises ArgumentError as `causal_conv1d` does.
    """
    check_first(f"{NAME}_step", "x", x, ("batch", "channels"))
    check_tensor(f"{NAME}_step", "state", state)
    y, after = causal_conv1d(x[:, None], weight, bias, silu=silu, initial_state=state, return_state=True)
    assert after is not None
    return y[:, 0], after


def _final_state(x: Tensor, initial: Tensor | None, starts: Tensor | None, width: int) -> Tensor:
    """The last width - 1 inputs, zero before the last document's start: (batch, width - 1, channels), owning its
    memory."""
    past, missing = x[:, -(width - 1) :], max(width - 1 - x.shape[1], 0)
    if missing:
        past = F.pad(past, (0, 0, missing, 0)) if initial is None else torch.cat([initial[:, -missing:], past], dim=1)
    if starts is None:
        return past if missing else past.clone()
    documents = F.pad(starts.cumsum(1), (missing, 0))
    same = documents[:, -(width - 1) :] == documents[:, -1:]
    return past.where(same[..., None], torch.zeros((), dtype=x.dtype, device=x.device))


@torch.library.custom_op("lcprobe::causal_conv1d_fwd", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    initial_state: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """y, and for backward z: on the torch path before SiLU, else empty. Triton forms it again, since it reads x
    anyway."""
    if _in_triton(x, weight):
        from lcprobe_kernels.causal_conv1d import triton_fwd

        return triton_fwd.forward(x, weight, bias, initial_state, starts, silu), weight.new_empty(0)
    return cpu.forward(x, weight, bias, initial_state, starts, silu)


@_forward.register_fake
def _(x, weight, bias, initial_state, starts, silu):
    kept = silu and not _in_triton(x, weight)
    return x.new_empty(x.shape), weight.new_empty(x.shape if kept else (0,))


@torch.library.custom_op("lcprobe::causal_conv1d_bwd", mutates_args=())
def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    initial_state: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
    kept: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dweight, dbias, dinitial_state; empty where there is no such input."""
    if _in_triton(x, weight):
        from lcprobe_kernels.causal_conv1d import triton_bwd

        return triton_bwd.backward(dy, x, weight, bias, initial_state, starts, silu)
    return cpu.backward(dy, x, weight, bias, initial_state, starts, kept, silu)


@_backward.register_fake
def _(dy, x, weight, bias, initial_state, starts, kept, silu):
    dbias = weight.new_empty(0 if bias is None else bias.shape)
    dinitial = x.new_empty(0 if initial_state is None else initial_state.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), dbias, dinitial


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors, output[1])


def _gradients(ctx: Any, dy: Any, _: Any) -> Any:
    x, weight, bias, initial, starts, kept = ctx.saved_tensors
    dx, dweight, dbias, dinitial = _backward(dy, x, weight, bias, initial, starts, kept, ctx.silu)
    return dx, dweight, None if bias is None else dbias, None if initial is None else dinitial, None, None


torch.library.register_autograd("lcprobe::causal_conv1d_fwd", _gradients, setup_context=_save)
refuse_second_derivative(NAME)


def _in_triton(x: Tensor, weight: Tensor) -> bool:
    return weight.shape[1] <= MAX_TRITON_WIDTH and path_of(NAME, x.device, x.dtype) == "triton"


def _check(x, weight, bias, initial_state, starts, flags) -> None:
    check_first(NAME, "x", x, ("batch", "seqlen", "channels"))
    batch, seqlen, channels = x.shape
    check_tensor(NAME, "weight", weight)
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] < 2:
        raise ArgumentError(f"{NAME}: weight", f"shape {tuple(weight.shape)}", f"({channels}, width >= 2)")
    check_like(NAME, "weight", weight, tuple(weight.shape), ("x", x))
    if bias is not None:
        check_like(NAME, "bias", bias, (channels,), ("x", x))
    if initial_state is not None:
        check_like(NAME, "initial_state", initial_state, (batch, weight.shape[1] - 1, channels), ("x", x))
    if starts is not None:
        check_like(NAME, "starts", starts, (batch, seqlen), ("x", x), torch.bool)
    for name, value in flags:
        check_flag(NAME, name, value)
    check_no_tangent(NAME, x, weight, bias, initial_state)
