"""linear_cross_entropy: a language model's head and loss without materialising (n, vocab) logits.

    z_i = h_i W^T, or c tanh(h_i W^T / c) with a soft cap c (Gemma 2, arXiv 2408.00118)
    lse_i = log sum_j exp z_ij           loss_i = lse_i - z_i,target
    total = sum_i w_i (loss_i + z_loss lse_i^2)      (z-loss: PaLM, arXiv 2204.02311, sec. 5)
    dz_i = w_i ((1 + 2 z_loss lse_i) softmax(z_i) - onehot(target_i)) (1 - (z_i / c)^2)

Chunks of rows go through head, softmax and both gradients at once, in the forward pass (the idea of Liger-Kernel's
fused linear cross-entropy, arXiv 2410.10989), so the backward pass needs no product with the vocabulary: it scales
the stored gradients. `reference` materialises all logits, `cpu` is the chunked form in PyTorch, `triton_loss` has
softmax and gradient in one kernel.
"""

from typing import Any, Optional

import torch
from torch import Tensor

from lcprobe_kernels.backends import implementation, note, without_autocast
from lcprobe_kernels.direct import of_backward, with_gradients
from lcprobe_kernels.errors import (
    ArgumentError,
    check_first,
    check_like,
    check_no_tangent,
    check_number,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.linear_cross_entropy.reference import reference

__all__ = ["linear_cross_entropy", "reference"]
NAME = "linear_cross_entropy"


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """hidden: (n, d). weight: (vocab, d). targets: (n,) int64, of 0 to vocab - 1 or ignore_index. weights: (n,)
    floating, 1 each unless given, not differentiated. Products are of hidden's dtype, softmax and sums float32
    (float64 for float64).

    Returns the weighted sum, z-loss included (scalar, differentiable in hidden and weight), and the plain loss of
    each row (n,), detached. A row with ignore_index adds nothing, has loss 0, and may hold NaN. Gradients that are
    not needed are not computed. Raises ArgumentError for other shapes, dtypes and values; on a GPU a target out of
    range makes its loss NaN instead.
    """
    _check(hidden, weight, targets, weights, ignore_index, z_loss, soft_cap)
    note(NAME, hidden)
    if weights is None:
        weights = torch.ones(targets.shape, dtype=torch.float32, device=targets.device)
    wants = (torch.is_grad_enabled() and t.requires_grad for t in (hidden, weight))
    with without_autocast(hidden.device):  # the dtype is hidden's, forward and backward
        total, rows, _, _ = _differentiable(
            hidden, weight, targets, weights.detach(), ignore_index, z_loss, soft_cap, *wants
        )
    return total, rows.detach()


@torch.library.custom_op("lcprobe::linear_cross_entropy_fwd", mutates_args=())
def _forward(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    ignore_index: int,
    z_loss: float,
    soft_cap: Optional[float],  # noqa: UP045 - schemas are read from these
    wants_hidden: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Total, loss of each row, and the total's gradients by hidden and weight (empty unless requested)."""
    module = implementation(NAME, hidden, "triton_loss")
    return module.forward(
        hidden, weight, targets, weights, ignore_index, z_loss, soft_cap, wants_hidden, wants_weight
    )


@_forward.register_fake
def _(hidden, weight, targets, weights, ignore_index, z_loss, soft_cap, wants_hidden, wants_weight):
    acc_dtype = torch.promote_types(hidden.dtype, torch.float32)
    d_hidden, d_weight = hidden.new_empty(hidden.shape if wants_hidden else (0,)), weight.new_empty(0)
    d_weight = weight.new_empty(weight.shape) if wants_weight else d_weight
    return (
        hidden.new_empty((), dtype=acc_dtype),
        hidden.new_empty(hidden.shape[0], dtype=acc_dtype),
        d_hidden,
        d_weight,
    )


@torch.library.custom_op("lcprobe::linear_cross_entropy_bwd", mutates_args=())
def _backward(grad: Tensor, d_hidden: Tensor, d_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both times the scalar grad, in its dtype by blocks of rows: neither is grad rounded nor a narrow gradient
    widened whole."""
    return _scaled(d_hidden, grad), _scaled(d_weight, grad)


@_backward.register_fake
def _(grad, d_hidden, d_weight):
    return torch.empty_like(d_hidden), torch.empty_like(d_weight)


def _scaled(t: Tensor, by: Tensor) -> Tensor:
    if t.dtype == by.dtype:
        return t * by
    out = torch.empty_like(t)
    for lo in range(0, t.shape[0], 8192):
        out[lo : lo + 8192] = t[lo : lo + 8192].to(by.dtype).mul_(by)
    return out


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.wants = inputs[-2:]
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Any, *_: Any) -> Any:
    if grad is None:
        return (None,) * 9
    gradients = _differentiate(grad, *ctx.saved_tensors)
    return *(g if wanted else None for g, wanted in zip(gradients, ctx.wants, strict=True)), *(None,) * 7


_differentiable = with_gradients(_forward, _save, _gradients)
refuse_second_derivative(NAME)


def _check(hidden, weight, targets, weights, ignore_index, z_loss, soft_cap) -> None:
    check_first(NAME, "hidden", hidden, ("n", "d"))
    check_tensor(NAME, "weight", weight)
    n, d = hidden.shape
    if weight.dim() != 2 or weight.shape[1] != d or not weight.shape[0]:
        raise ArgumentError(f"{NAME}: weight", f"shape {tuple(weight.shape)}", f"(vocab >= 1, {d})")
    check_like(NAME, "weight", weight, tuple(weight.shape), ("hidden", hidden))
    check_like(NAME, "targets", targets, (n,), ("hidden", hidden), torch.int64)
    if weights is not None:
        check_like(NAME, "weights", weights, (n,), ("hidden", hidden))
    if not isinstance(ignore_index, int) or isinstance(ignore_index, bool):
        raise ArgumentError(f"{NAME}: ignore_index", repr(ignore_index), "a whole number")
    check_number(NAME, "z_loss", z_loss)
    check_number(NAME, "soft_cap", soft_cap, above_zero=True, or_none=True)
    check_no_tangent(NAME, hidden, weight)
