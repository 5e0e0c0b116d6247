"""Projections whose rows or columns several processes share, and a norm over widths that are divided.

forked    y = W_own x            the gradient of x is the sum over processes
summed    y = sum W_own x + b    over processes; the gradient of y is the same in each
"""

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F


class _Fork(torch.autograd.Function):
    """The same value in every process, each of which uses it for its share."""

    @staticmethod
    def forward(ctx, x: Tensor, group: distributed.ProcessGroup) -> Tensor:  # type: ignore[override]
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _summed(grad, ctx.group), None


class _Sum(torch.autograd.Function):
    """The sum over processes, which all of them use alike."""

    @staticmethod
    def forward(ctx, x: Tensor, group: distributed.ProcessGroup) -> Tensor:  # type: ignore[override]
        return _summed(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


def _summed(x: Tensor, group: distributed.ProcessGroup) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=group)
    return total


class _Projection(nn.Linear):
    """A linear layer with a share of another's rows or columns, and that one's parameters."""

    def __init__(self, whole: nn.Linear, group: distributed.ProcessGroup):
        nn.Module.__init__(self)
        self.weight, self.bias, self.group = whole.weight, whole.bias, group
        self.out_features, self.in_features = whole.weight.shape


class ForkedLinear(_Projection):
    """W_own x + b_own of an input that all processes have."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """x: (..., in_features) -> (..., own out_features)."""
        return F.linear(_Fork.apply(x, self.group), self.weight, self.bias)


class SummedLinear(_Projection):
    """sum W_own x_own + b, of inputs of which each process has its share."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """x: (..., own in_features) -> (..., out_features)."""
        y = _Sum.apply(F.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias


def divided_rms_norm(x: Tensor, weight: Tensor, eps: float, gate: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """`lcprobe_kernels.rms_norm` of x * silu(gate) where each process has a share of the last dimension, over all of
    it. x, gate: (..., own width); weight: (own width,). Computed in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        u = x.to(wide) * F.silu(gate.to(wide))
        # the sum of all is used by each for its share alone: a fork of the sum
        squares = _Fork.apply(_Sum.apply(u.square().sum(-1, keepdim=True), group), group)
        mean = squares / (x.shape[-1] * distributed.get_world_size(group))
        return (u * torch.rsqrt(mean + eps) * weight.to(wide)).to(x.dtype)
