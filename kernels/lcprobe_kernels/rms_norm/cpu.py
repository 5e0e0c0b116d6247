"""rms_norm in whole-tensor operations: any device, any float dtype. Backward keeps one scale a group."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    total = x.to(weight.dtype) if residual is None else residual + x
    u = total if gate is None else total * F.silu(gate.to(weight.dtype))
    grouped = u if n_groups == 1 else u.unflatten(-1, (n_groups, -1))
    scale = torch.linalg.vector_norm(grouped, dim=-1, keepdim=True)
    scale = scale.square_().div_(grouped.shape[-1]).add_(eps).rsqrt_()
    y = grouped * scale
    y, scale = (y, scale) if n_groups == 1 else (y.flatten(-2), scale[..., 0])
    y = y.mul_(weight + 1 if zero_centred else weight)
    return y.to(x.dtype), total if residual is not None else total.new_empty(0), scale.contiguous()


def backward(
    dy: Tensor,
    dtotal: Tensor | None,
    total: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    zero_centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lcprobe_kernels.rms_norm._backward`.

    With n = scale u and dn = dy w, summed over a group of d:  du = scale (dn - n mean(dn n)).
    """
    wide, groups = total.to(weight.dtype), (scale.shape[-1], -1)
    silu = None if gate is None else F.silu(gate.to(weight.dtype))
    u = wide if silu is None else wide * silu
    normed = u.unflatten(-1, groups) * scale[..., None]
    dy = dy.to(weight.dtype)
    dweight = (dy * normed.flatten(-2)).reshape(-1, weight.shape[0]).sum(0)
    dnormed = (dy * (weight + 1 if zero_centred else weight)).unflatten(-1, groups)
    mean = (dnormed * normed).mean(-1, keepdim=True)
    du = dnormed.addcmul_(normed, mean, value=-1).mul_(scale[..., None]).flatten(-2)
    dgate = weight.new_empty(0)
    if gate is not None and silu is not None:
        dgate = torch.ops.aten.silu_backward(du * wide, gate.to(weight.dtype)).to(gate.dtype)
        du = du.mul_(silu)
    return (du if dtotal is None else du.add_(dtotal)).to(total.dtype), dweight, dgate
