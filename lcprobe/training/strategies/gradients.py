"""Gradients of a divided model: completing them after the backward pass, and clipping by their global norm."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from lcprobe.models.tensor_parallel.split import Piece
from lcprobe.training.strategies.division import Division, own

BUCKET = 2**24
"""Numbers that are reduced in one call."""


def clip_gradients(model: nn.Module, division: Division, most: float) -> Tensor:
    """Complete the gradients, scale them in place so that their norm over all processes is at most `most`, and return
    the norm before: a scalar on the device, the same in every process. Waits for no device."""
    if division.is_divided:
        complete(model, division)
    norm = global_norm(model, division)
    scale = (most / (norm + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ does
    torch._foreach_mul_([grad for _, _, grad in _gradients(model)], scale)  # type: ignore[attr-defined]
    return norm


@torch.no_grad()
def complete(model: nn.Module, division: Division) -> None:
    """Sum the gradients of what processes of a tensor group all have and use in part; average those of parameters
    that all replicas have whole, which nothing has averaged yet."""
    now = division.layout
    if now.tensor > 1:
        parts = [piece.of_own(grad) for piece, grad in _pieces(model, division) if piece.summed]
        _reduce(parts, now.group("tensor"), 1)
    if now.replicas > 1:
        whole = [grad for _, parameter, grad in _gradients(model) if not isinstance(parameter, DTensor)]
        _reduce(whole, now.group("replicas"), now.replicas)


@torch.no_grad()
def global_norm(model: nn.Module, division: Division) -> Tensor:
    """The norm of all gradients over all processes, each number counted once."""
    if not division.is_divided:
        parts = [grad for _, _, grad in _gradients(model)]
    else:
        parts = [
            piece.of_own(grad)
            for name, parameter, grad in _gradients(model)
            for piece in division.pieces(name, parameter)
            if division.is_first(name, parameter, piece)
        ]
    total = squares(parts, next(model.parameters()).device)
    if division.is_divided:
        distributed.all_reduce(total)
    return total.sqrt().to(next(model.parameters()).dtype)


def squares(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """The sum of the squares of all numbers of tensors, a scalar in float64.

    Squares are summed in it, too: in float32 a long sum is off by up to 1e-5 of itself, by as much as depends on how
    long it is, so that parts would have another norm than their whole.
    """
    if not parts:
        return torch.zeros((), dtype=torch.float64, device=device)
    norms = torch._foreach_norm(list(parts), 2, torch.float64)  # type: ignore[attr-defined]
    return torch.stack(norms).square().sum()


def _gradients(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """(name, parameter, the gradient's numbers that this process has)."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield name, parameter, own(parameter.grad)


def _pieces(model: nn.Module, division: Division) -> Iterator[tuple[Piece, Tensor]]:
    for name, parameter, grad in _gradients(model):
        for piece in division.pieces(name, parameter):
            yield piece, grad


def _reduce(parts: Sequence[Tensor], group: distributed.ProcessGroup, divisor: int) -> None:
    """Replace tensors by their sums over a group divided by a number, many in one call."""
    bucket: list[Tensor] = []
    for i, part in enumerate(parts):
        bucket.append(part)
        if i + 1 < len(parts) and sum(one.numel() for one in bucket) < BUCKET:
            continue
        total = torch.cat([one.reshape(-1) for one in bucket])
        distributed.all_reduce(total, group=group)
        for one, value in zip(bucket, total.div_(divisor).split([one.numel() for one in bucket]), strict=True):
            one.copy_(value.view(one.shape))
        bucket = []
