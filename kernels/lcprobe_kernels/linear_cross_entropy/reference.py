"""linear_cross_entropy with all logits at once: the reference of every test."""

import torch
from torch import Tensor


def reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`linear_cross_entropy` by its definition, all in its inputs' dtype: the weighted sum, and the loss of each row
    (n,)."""
    return of_logits(hidden @ weight.T, targets, weights, ignore_index=ignore_index, z_loss=z_loss, soft_cap=soft_cap)


def of_logits(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    *,
    ignore_index: int,
    z_loss: float,
    soft_cap: float | None,
) -> tuple[Tensor, Tensor]:
    """`reference` from the logits (n, vocab), before any soft cap."""
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    ignored = targets == ignore_index
    lse = logits.logsumexp(-1)
    rows = lse - logits.gather(-1, targets.masked_fill(ignored, 0)[:, None])[:, 0]
    each = rows + z_loss * lse.square()
    total = (each if weights is None else each * weights).masked_fill(ignored, 0.0).sum()
    return total, rows.masked_fill(ignored, 0.0).detach()
