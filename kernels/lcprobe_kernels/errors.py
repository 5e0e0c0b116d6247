"""Checks of arguments: one line per error, with what was given and what is allowed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes that ops compute with; float8 is for storage."""
FLOATING = "float16, bfloat16, float32 or float64"


class ArgumentError(ValueError):
    """An op was called with a shape, dtype or value that it does not accept."""

    def __init__(self, argument: str, given: object, allowed: str):
        super().__init__(f"{argument}: given {given}; allowed: {allowed}")


def check_tensor(op: str, name: str, value: object) -> None:
    """Raise ArgumentError for anything but a tensor."""
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{op}: {name}", "None" if value is None else f"a {type(value).__name__}", "a tensor")


def check_shape(op: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError unless `tensor` has exactly `shape`."""
    check_tensor(op, name, tensor)
    if tuple(tensor.shape) != shape:
        raise ArgumentError(f"{op}: {name}", f"shape {tuple(tensor.shape)}", str(shape))


def check_first(op: str, name: str, tensor: Tensor, dims: Sequence[str]) -> None:
    """Raise ArgumentError unless the tensor that sets the shapes of the others is floating and has these dimensions.
    Only the first one, the batch, may be 0: an empty input gives an empty output."""
    check_tensor(op, name, tensor)
    if tensor.dim() != len(dims) or tensor.dtype not in FLOATS or 0 in tensor.shape[1:]:
        allowed = f"{FLOATING} ({', '.join([dims[0], *(f'{d} >= 1' for d in dims[1:])])})"
        raise ArgumentError(f"{op}: {name}", f"{tensor.dtype} of shape {tuple(tensor.shape)}", allowed)


def check_like(
    op: str,
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...],
    like: tuple[str, Tensor],
    dtype: torch.dtype | None = None,
) -> None:
    """Raise ArgumentError unless `tensor` has `shape`, a floating dtype (or `dtype`), and the device of `like` (name,
    tensor)."""
    check_shape(op, name, tensor, shape)
    if tensor.dtype not in FLOATS if dtype is None else tensor.dtype != dtype:
        raise ArgumentError(f"{op}: {name}", tensor.dtype, str(dtype) if dtype is not None else FLOATING)
    if tensor.device != like[1].device:
        raise ArgumentError(f"{op}: {name}", f"on {tensor.device}", f"on {like[1].device}, as {like[0]} is")


def check_flag(op: str, name: str, value: object) -> None:
    """Raise ArgumentError for anything but True and False."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{op}: {name}", repr(value), "True or False")


def check_number(op: str, name: str, value: object, *, above_zero: bool = False, or_none: bool = False) -> None:
    """Raise ArgumentError for anything but a finite number >= 0 (or > 0), or None where that is allowed."""
    if or_none and value is None:
        return
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
    if not 0 <= number < float("inf") or (above_zero and number == 0):
        allowed = "a number > 0" if above_zero else "a number >= 0"
        raise ArgumentError(f"{op}: {name}", repr(value), f"{allowed}, or None" if or_none else allowed)


def check_no_tangent(op: str, *tensors: Tensor | None) -> None:
    """Raise ArgumentError in forward mode (torch.func.jvp, dual tensors), where an op without a rule would return
    zeros."""
    if forward_ad._current_level < 0:  # outside any dual level, where no tensor has a tangent
        return
    if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise ArgumentError(
            op, "a forward-mode tangent (jvp)", f"reverse mode, or {op}.reference, which supports both"
        )


def refuse_second_derivative(op: str) -> None:
    """Register a one-line error as the derivative of the op's backward pass."""

    def refuse(ctx: Any, *gradients: Tensor | None) -> None:
        raise ArgumentError(op, "a second derivative", f"one derivative, or {op}.reference, which supports both")

    torch.library.register_autograd(f"lcprobe::{op}_bwd", refuse)
