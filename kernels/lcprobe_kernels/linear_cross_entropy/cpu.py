"""linear_cross_entropy in chunks of rows: any device, any float dtype, tuned for CPUs.

A chunk's logits are in one buffer that becomes, in place, probabilities and then the gradient of logits. Both
products with that gradient follow at once, so the backward pass does none: 6 n d vocab FLOPs in all, where
recomputing logits would take 8.
"""

import torch
from torch import Tensor

from lcprobe_kernels.errors import ArgumentError

CHUNK_LOGITS = 1 << 25
"""The most logits of a chunk: 128 MB in float32."""
CHUNK_ROWS = 512
"""The most rows of a chunk: products gain nothing from more, and a smaller buffer of logits stays in cache."""


def forward(hidden, weight, targets, weights, ignore_index, z_loss, soft_cap, wants_hidden, wants_weight):
    """See `lcprobe_kernels.linear_cross_entropy._forward`."""
    check_targets(targets, weight.shape[0], ignore_index)
    options = z_loss, soft_cap, wants_hidden, wants_weight
    kept = (targets != ignore_index).nonzero()[:, 0]
    if len(kept) == len(targets):
        return _run(hidden, weight, targets, weights, *options)
    total, rows_kept, d_kept, d_weight = _run(hidden[kept], weight, targets[kept], weights[kept], *options)
    rows = rows_kept.new_zeros(len(targets)).index_copy_(0, kept, rows_kept)
    d_hidden = d_kept
    if wants_hidden:
        d_hidden = torch.zeros(hidden.shape, dtype=hidden.dtype, device=hidden.device).index_copy_(0, kept, d_kept)
    return total, rows, d_hidden, d_weight


def _run(hidden, weight, targets, weights, z_loss, soft_cap, wants_hidden, wants_weight):
    n, vocab = hidden.shape[0], weight.shape[0]
    acc_dtype = torch.promote_types(hidden.dtype, torch.float32)
    size = max(1, min(n, CHUNK_ROWS, CHUNK_LOGITS // vocab))
    head, weights = weight.to(hidden.dtype), weights.to(acc_dtype)
    logits_of_chunk = hidden.new_empty(size, vocab, dtype=acc_dtype)
    rows, penalties = hidden.new_empty(n, dtype=acc_dtype), hidden.new_empty(n, dtype=acc_dtype)
    d_hidden = torch.empty(hidden.shape if wants_hidden else (0,), dtype=hidden.dtype, device=hidden.device)
    d_weight = None
    for lo in range(0, n, size):
        h, t, w = hidden[lo : lo + size], targets[lo : lo + size, None], weights[lo : lo + size, None]
        logits, slope = logits_of_chunk[: len(h)], None
        if hidden.dtype == acc_dtype:
            torch.mm(h, head.T, out=logits)
        else:
            logits.copy_(h @ head.T)
        if soft_cap is not None:
            logits.div_(soft_cap).tanh_()
            if wants_hidden or wants_weight:
                slope = 1.0 - logits.square()
            logits.mul_(soft_cap)
        peak = logits.amax(-1, keepdim=True)
        picked = logits.gather(-1, t)
        torch.softmax(logits, -1, out=logits)
        lse = peak - logits.amax(-1, keepdim=True).log()  # the largest probability is 1 / sum exp(z - peak)
        rows[lo : lo + size] = (lse - picked)[:, 0]
        penalties[lo : lo + size] = z_loss * lse[:, 0].square()
        if not (wants_hidden or wants_weight):
            continue
        logits.mul_(w * (1.0 + 2.0 * z_loss * lse)).scatter_add_(-1, t, -w)
        gradient = (logits if slope is None else logits.mul_(slope)).to(hidden.dtype)
        if wants_hidden:
            torch.mm(gradient, head, out=d_hidden[lo : lo + size])
        if wants_weight:
            d_weight = add_product(d_weight, gradient, h, in_one=size == n and weight.dtype == hidden.dtype)
    return (weights * (rows + penalties)).sum(), rows, d_hidden, finished(d_weight, weight, wants_weight)


def add_product(total: Tensor | None, gradient: Tensor, h: Tensor, in_one: bool) -> Tensor:
    """total + gradient^T h, added to `total` if there is one: (vocab, d). Summed in float32 or wider, or in the
    operands' dtype where one product is all."""
    dtype = torch.promote_types(h.dtype, torch.float32)
    if in_one or gradient.dtype == dtype:
        return gradient.T @ h if total is None else total.addmm_(gradient.T, h)
    if gradient.is_cuda:  # float32 sums of narrow operands leave the product as they are
        if total is None:
            return torch.mm(gradient.T, h, out_dtype=dtype)
        return torch.addmm(total, gradient.T, h, out_dtype=dtype, out=total)
    product = gradient.T @ h
    return product.to(dtype) if total is None else total.add_(product)


def finished(d_weight: Tensor | None, weight: Tensor, wanted: bool) -> Tensor:
    """The gradient in weight's dtype: zeros if no row contributed, empty if it was not requested."""
    if d_weight is None:
        return torch.zeros(weight.shape if wanted else (0,), dtype=weight.dtype, device=weight.device)
    return d_weight.to(weight.dtype)


def check_targets(targets: Tensor, vocab: int, ignore_index: int) -> None:
    """Raise ArgumentError for a target outside the vocabulary."""
    wrong = targets[((targets < 0) | (targets >= vocab)) & (targets != ignore_index)]
    if len(wrong):
        allowed = f"0 to {vocab - 1}, or ignore_index {ignore_index}"
        raise ArgumentError("linear_cross_entropy: targets", int(wrong[0]), allowed)
