"""A case of an op's benchmark, and what the cases of all ops share: the timed step, and the check against the
reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One op at one size: our implementation, the peers', a check that runs first, and a lower bound of the cost."""

    op: str
    shape: str
    dtype: str
    run: Callable[[], None]
    """One forward and backward pass of our implementation."""
    peers: dict[str, Callable[[], None]]
    """The same work by the peers that can be imported here."""
    check: Callable[[], float]
    """The relative error of our implementation against the reference."""
    flops: float
    """FLOPs of one run, at least."""
    bytes: float
    """Bytes read and written by one run, at least."""


def forward_backward(
    op: Callable[..., Any], inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Callable[[], None]:
    """A run of `op` on the inputs, and back from the gradients of its outputs (a tensor or a tuple) to every
    input."""

    def run() -> None:
        outputs = op(*inputs)
        roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        torch.autograd.grad(roots, list(inputs), [g.to(y.dtype) for g, y in zip(gradients, roots, strict=True)])

    return run


def error_against(
    reference: Callable[..., Sequence[Tensor]],
    op: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> float:
    """The largest relative error of `op` against `reference` in float64, over outputs and the gradients of all
    inputs.

    Both map the inputs to a tuple of outputs. gradients: of the first outputs; the others are only compared.
    """

    def evaluate(run: Callable[..., Sequence[Tensor]], double: bool) -> list[Tensor]:
        leaves = [(t.double() if double else t).detach().requires_grad_() for t in inputs]
        outputs = run(*leaves)
        roots = list(outputs[: len(gradients)])
        back = torch.autograd.grad(roots, leaves, [g.to(y.dtype) for g, y in zip(gradients, roots, strict=True)])
        return [t.detach().double() for t in (*outputs, *back)]

    return largest_error(evaluate(op, False), evaluate(reference, True))


def largest_error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """The largest relative error of a list of tensors, each relative to its largest value."""
    pairs = zip(got, want, strict=True)
    return max(float((a - b.view_as(a)).abs().max() / b.abs().max()) for a, b in pairs)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
