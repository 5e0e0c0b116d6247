"""rms_norm: y = weight * u / sqrt(mean(u^2) + eps), u = x or x * silu(gate), over groups of the last dimension.

Zhang & Sennrich 2019 (arXiv 1910.07467); the gate before the norm is Mamba2's (norm_before_gate = False).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.errors import ArgumentError, check_shape


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, gate: Tensor | None = None, n_groups: int = 1) -> Tensor:
    """x, gate: (..., d); weight: (d,); n_groups divides d. Computed in float32 or wider.

    Returns x's shape and dtype. Raises ArgumentError for other shapes.
    """
    d = x.shape[-1]
    check_shape("rms_norm", "weight", weight, (d,))
    if gate is not None:
        check_shape("rms_norm", "gate", gate, tuple(x.shape))
    if d % n_groups:
        raise ArgumentError("rms_norm: n_groups", n_groups, f"a divisor of {d}")
    wide = torch.promote_types(x.dtype, torch.float32)
    y = _RMSNorm.apply(x.to(wide), weight.to(wide), None if gate is None else gate.to(wide), eps, n_groups)
    return y.to(x.dtype)  # type: ignore[union-attr]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gate: Tensor | None, eps: float, n_groups: int) -> Tensor:
        u = x if gate is None else x * F.silu(gate)
        grouped = u.unflatten(-1, (n_groups, -1))
        scale = torch.linalg.vector_norm(grouped, dim=-1, keepdim=True)
        scale = scale.square_().div_(grouped.shape[-1]).add_(eps).rsqrt_()
        normed = (grouped * scale).flatten(-2)
        ctx.save_for_backward(x if gate is not None else None, weight, gate, normed, scale)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        x, weight, gate, normed, scale = ctx.saved_tensors
        (dy,) = grads
        n_groups = scale.shape[-2]
        dweight = (dy * normed).flatten(0, -2).sum(0)
        dnormed, grouped = (dy * weight).unflatten(-1, (n_groups, -1)), normed.unflatten(-1, (n_groups, -1))
        # du = scale * (dnormed - normed * mean(dnormed * normed))
        mean = (dnormed * grouped).mean(-1, keepdim=True)
        du = dnormed.addcmul_(grouped, mean, value=-1).mul_(scale).flatten(-2)
        if gate is None:
            return du, dweight, None, None, None
        dgate = torch.ops.aten.silu_backward(du * x, gate)
        return du.mul_(F.silu(gate)), dweight, dgate, None, None


def reference(x: Tensor, weight: Tensor, eps: float, gate: Tensor | None = None, n_groups: int = 1) -> Tensor:
    """The definition, in the inputs' dtype: the oracle of the tests."""
    u = x if gate is None else x * F.silu(gate)
    grouped = u.unflatten(-1, (n_groups, -1))
    return (grouped / (grouped.square().mean(-1, keepdim=True) + eps).sqrt()).flatten(-2) * weight
