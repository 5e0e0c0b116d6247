"""rms_norm: y = weight * u / sqrt(mean(u^2) + eps) over groups of the last dimension, with a block's gate or
residual.

    u = x                        plain (Zhang & Sennrich 2019, arXiv 1910.07467)
    u = x * silu(gate)           Mamba2's gate before the norm (norm_before_gate = False)
    u = residual + x             `add_rms_norm`: residual stream and norm in one pass; the sum is kept in float32
    weight -> 1 + weight         zero-centred weights (Gemma)

`reference` is this definition; `cpu` uses whole-tensor operations; `triton_norm` reads and writes every element once.
"""

from typing import Any, Optional

import torch
from torch import Tensor

from lcprobe_kernels.backends import implementation, note, without_autocast
from lcprobe_kernels.direct import of_backward, with_gradients
from lcprobe_kernels.errors import (
    FLOATING,
    FLOATS,
    ArgumentError,
    check_flag,
    check_like,
    check_no_tangent,
    check_number,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.rms_norm.reference import reference

__all__ = ["add_rms_norm", "reference", "rms_norm"]
NAME = "rms_norm"


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    gate: Tensor | None = None,
    n_groups: int = 1,
    zero_centred: bool = False,
) -> Tensor:
    """x, gate: (..., d); weight: (d,); n_groups divides d; eps >= 0. Computed in float32 or wider.

    Squares are formed as they are, since scaling by the largest number first would cost a pass: in float32 the length
    of a group must stay below 1.8e19 (beyond, y is 0), and above 1e-18 where eps is 0. In float64: 1.3e154 and
    1e-153.

    Returns x's shape and dtype. Differentiable once, in reverse mode. Raises ArgumentError for other shapes, dtypes
    and devices.
    """
    return _normed(x, None, weight, eps, gate, n_groups, zero_centred)[0]


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, n_groups: int = 1, zero_centred: bool = False
) -> tuple[Tensor, Tensor]:
    """x, residual: (..., d) -> the norm of residual + x in x's dtype, and the sum in float32 or wider.

    Raises ArgumentError as `rms_norm` does.
    """
    check_tensor(NAME, "residual", residual)
    y, total, _ = _normed(x, residual, weight, eps, None, n_groups, zero_centred)
    return y, total


def _normed(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    gate: Tensor | None,
    n_groups: int,
    zero_centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, residual, weight, eps, gate, n_groups, zero_centred)
    acc_dtype = torch.promote_types(x.dtype, torch.float32)
    if residual is not None:
        residual = residual.to(acc_dtype)
    note(NAME, x)
    with without_autocast(x.device):
        return _differentiable(x, residual, weight.to(acc_dtype), gate, float(eps), n_groups, zero_centred)


@torch.library.custom_op("lcprobe::rms_norm_fwd", mutates_args=())
def _forward(
    x: Tensor,
    residual: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    weight: Tensor,
    gate: Optional[Tensor],  # noqa: UP045
    eps: float,
    n_groups: int,
    zero_centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the sum with the residual (empty without one), and 1 / rms of every row and group (..., n_groups)."""
    return implementation(NAME, x, "triton_norm").forward(x, residual, weight, gate, eps, n_groups, zero_centred)


@_forward.register_fake
def _(x, residual, weight, gate, eps, n_groups, zero_centred):
    total = x.new_empty((0,) if residual is None else x.shape, dtype=weight.dtype)
    return x.new_empty(x.shape), total, x.new_empty((*x.shape[:-1], n_groups), dtype=weight.dtype)


@torch.library.custom_op("lcprobe::rms_norm_bwd", mutates_args=())
def _backward(
    dy: Tensor,
    dtotal: Optional[Tensor],  # noqa: UP045
    total: Tensor,
    weight: Tensor,
    gate: Optional[Tensor],  # noqa: UP045
    scale: Tensor,
    zero_centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """d total, dweight, dgate (empty without a gate). total: x, or the sum; its gradient has its dtype and carries
    dtotal."""
    return implementation(NAME, total, "triton_norm").backward(dy, dtotal, total, weight, gate, scale, zero_centred)


@_backward.register_fake
def _(dy, dtotal, total, weight, gate, scale, zero_centred):
    dgate = weight.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return total.new_empty(total.shape), weight.new_empty(weight.shape), dgate


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, residual, weight, gate, _, _, ctx.zero_centred = inputs
    ctx.has_residual, ctx.dtype = residual is not None, x.dtype
    ctx.save_for_backward(output[1] if residual is not None else x, weight, gate, output[2])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Any, dtotal: Any, _: Any) -> Any:
    total, weight, gate, scale = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros(total.shape, dtype=ctx.dtype, device=total.device)
    dx, dweight, dgate = _differentiate(
        dy, dtotal if ctx.has_residual else None, total, weight, gate, scale, ctx.zero_centred
    )
    dresidual = dx if ctx.has_residual else None
    return dx.to(ctx.dtype), dresidual, dweight, None if gate is None else dgate, None, None, None


_differentiable = with_gradients(_forward, _save, _gradients)
refuse_second_derivative(NAME)


def _check(x, residual, weight, eps, gate, n_groups, zero_centred) -> None:
    check_tensor(NAME, "x", x)
    if x.dim() < 1 or x.dtype not in FLOATS or not x.shape[-1]:
        raise ArgumentError(f"{NAME}: x", f"{x.dtype} of shape {tuple(x.shape)}", f"{FLOATING} (..., d >= 1)")
    d = x.shape[-1]
    check_like(NAME, "weight", weight, (d,), ("x", x))
    for name, tensor in {"gate": gate, "residual": residual}.items():
        if tensor is not None:
            check_like(NAME, name, tensor, tuple(x.shape), ("x", x))
    if not isinstance(n_groups, int) or isinstance(n_groups, bool) or n_groups < 1 or d % n_groups:
        raise ArgumentError(f"{NAME}: n_groups", n_groups, f"a divisor of {d}")
    check_number(NAME, "eps", eps)
    check_flag(NAME, "zero_centred", zero_centred)
    check_no_tangent(NAME, x, residual, weight, gate)
