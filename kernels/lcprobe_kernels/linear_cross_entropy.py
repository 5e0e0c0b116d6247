"""linear_cross_entropy: sum_i w_i * -log softmax(h_i W^T)[target_i] without holding (n, vocab) logits.

Chunks of rows go through head, softmax and both gradients at once (the idea of Liger-Kernel's fused linear
cross-entropy, arXiv 2410.10989), so a backward pass needs no second product with the vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from lcprobe_kernels.errors import check_shape

ROWS = 2048
"""Rows a chunk: 2048 x 50K float32 logits are 0.4 GB."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """hidden: (n, d); weight: (vocab, d); targets: (n,) int64; weights: (n,) float, not differentiated.

    Returns the weighted sum (scalar, differentiable in hidden and weight) and the loss of each row (n,), detached.
    Logits, softmax and sums are float32 (float64 for float64 inputs). Raises ArgumentError for other shapes.
    """
    check_shape("linear_cross_entropy", "targets", targets, (hidden.shape[0],))
    check_shape("linear_cross_entropy", "weights", weights, (hidden.shape[0],))
    check_shape("linear_cross_entropy", "weight", weight, (weight.shape[0], hidden.shape[1]))
    with torch.autocast(hidden.device.type, enabled=False):  # the dtype is hidden's, forward and backward
        total, rows = _LinearCrossEntropy.apply(hidden, weight, targets, weights)  # type: ignore[misc]
    return total, rows


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        wants = ctx.needs_input_grad
        d_hidden = torch.empty_like(hidden) if wants[0] else None
        d_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if wants[1] else None
        rows = torch.empty(hidden.shape[0], dtype=wide, device=hidden.device)
        head = weight.to(hidden.dtype)
        for lo in range(0, hidden.shape[0], ROWS):
            h, t = hidden[lo : lo + ROWS], targets[lo : lo + ROWS, None]
            logits = (h @ head.T).to(wide)
            peak = logits.amax(-1, keepdim=True)
            picked = logits.gather(-1, t)
            logits.sub_(peak).exp_()
            norm = logits.sum(-1, keepdim=True)
            rows[lo : lo + ROWS] = (norm.log() + peak - picked)[:, 0]
            if d_hidden is None and d_weight is None:
                continue
            w = weights[lo : lo + ROWS, None].to(wide)
            logits.mul_(w / norm).scatter_add_(-1, t, -w)  # now the gradient of the logits
            if d_hidden is not None:
                d_hidden[lo : lo + ROWS] = logits.to(hidden.dtype) @ head
            if d_weight is not None:
                d_weight += (logits.to(hidden.dtype).T @ h).to(wide)
        ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype))
        ctx.mark_non_differentiable(rows)
        return (rows * weights).sum(), rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        scale = grads[0]
        return (
            None if d_hidden is None else d_hidden * scale.to(d_hidden.dtype),
            None if d_weight is None else d_weight * scale.to(d_weight.dtype),
            None,
            None,
        )
