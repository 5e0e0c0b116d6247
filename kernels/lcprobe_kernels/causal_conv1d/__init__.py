"""causal_conv1d: a depthwise convolution over the last `width` tokens, optionally followed by SiLU.

    z_t = bias + sum_k w_k x_{t - width + 1 + k}        y_t = z_t or z_t sigmoid(z_t)

As in Mamba2 (Dao & Gu 2024, arXiv 2405.21060, sec. 7). Documents do not see each other: a tap that would cross a
document's start reads zero. `reference` is this sum token by token. Sums are float32 (float64 for float64 inputs),
whatever the inputs. The state is the last width - 1 inputs of the document that the sequence ends in.
`package` adapts the kernels of the package causal-conv1d.
"""

from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.backends import deterministic, module_of, note, path_of
from lcprobe_kernels.causal_conv1d.reference import reference, step
from lcprobe_kernels.direct import of_backward, with_gradients
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
MAX_KERNEL_WIDTH = 4
"""GPU kernels, ours and the peer's, keep a window in registers; wider ones are PyTorch's."""
LONG = 1 << 31
"""Numbers of x from which on offsets of 32 bits overflow."""


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
    needs = _needs(x, weight, initial_state, starts)
    note(NAME, x, needs)
    path = path_of(NAME, x.device, x.dtype, needs)
    acc_dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = weight.to(acc_dtype), None if bias is None else bias.to(acc_dtype)
    before = None if initial_state is None else initial_state.to(x.dtype)
    if x.shape[1] == 1 and before is not None and path == "torch":
        if starts is not None:
            before = before.where(~starts[..., None], torch.zeros((), dtype=x.dtype, device=x.device))
        y, state = step(x[:, 0], before, weight, bias, silu)
        return y[:, None], state if return_state else None
    y, _ = _differentiable(x, weight, bias, before, starts, silu, path)
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
    path: str,
) -> tuple[Tensor, Tensor]:
    """y, and for backward z: on the torch path before SiLU, else empty. Kernels form it again, since they read x
    anyway. path: the backend, of ABILITIES."""
    module = module_of(NAME, path, "triton_fwd")
    if path == "torch":
        return module.forward(x, weight, bias, initial_state, starts, silu)
    if not x.shape[0]:
        return _shapes(x, weight, bias, initial_state, starts, silu, path)
    return module.forward(x, weight, bias, initial_state, starts, silu), weight.new_empty(0)


@_forward.register_fake
def _shapes(x, weight, bias, initial_state, starts, silu, path):
    return x.new_empty(x.shape), weight.new_empty(x.shape if silu and path == "torch" else (0,))


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
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dweight, dbias, dinitial_state; empty where there is no such input."""
    module = module_of(NAME, path, "triton_bwd")
    if path == "torch":
        return module.backward(dy, x, weight, bias, initial_state, starts, kept, silu)
    if not x.shape[0]:
        return _no_gradients(dy, x, weight, bias, initial_state, starts, kept, silu, path)
    return module.backward(dy, x, weight, bias, initial_state, starts, silu)


@_backward.register_fake
def _no_gradients(dy, x, weight, bias, initial_state, starts, kept, silu, path):
    dbias = weight.new_zeros(0 if bias is None else bias.shape)
    dinitial = x.new_zeros(0 if initial_state is None else initial_state.shape)
    return x.new_zeros(x.shape), weight.new_zeros(weight.shape), dbias, dinitial


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.silu, ctx.path = inputs
    ctx.save_for_backward(*tensors, output[1])


def _gradients(ctx: Any, dy: Any, _: Any) -> Any:
    x, weight, bias, initial, starts, kept = ctx.saved_tensors
    dx, dweight, dbias, dinitial = _differentiate(dy, x, weight, bias, initial, starts, kept, ctx.silu, ctx.path)
    return dx, dweight, None if bias is None else dbias, None if initial is None else dinitial, None, None, None


_differentiable = with_gradients(_forward, _save, _gradients)
refuse_second_derivative(NAME)


def _needs(x: Tensor, weight: Tensor, initial_state: Tensor | None, starts: Tensor | None) -> tuple[str, ...]:
    """The features of `abilities.FEATURES` that a call needs."""
    needs = [name for name, given in (("documents", starts), ("initial state", initial_state)) if given is not None]
    if len(needs) == 2:
        needs.append("documents after a state")
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        needs += ["gradients", *deterministic()]
    if weight.shape[1] > MAX_KERNEL_WIDTH:
        needs.append("wide")
    if x.shape[2] % 8:
        needs.append("ragged")
    if x.numel() >= LONG:
        needs.append("long")
    return tuple(needs)


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
