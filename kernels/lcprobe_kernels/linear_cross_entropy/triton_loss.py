"""linear_cross_entropy on a GPU: products of chunks, and between them one Triton kernel that turns logits into their
gradient.

The kernel has one program per row: one pass over the row finds its maximum and sum of exponentials together, a second
writes the gradient over the logits while they are still in the L2 cache. Logits keep the inputs' dtype, sums are
float32. A chunk has a fixed number of logits, not of rows: memory does not grow with the vocabulary.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl

from lcprobe_kernels.linear_cross_entropy.cpu import add_product, finished

CHUNK_BYTES = 1 << 31
"""The most bytes of a chunk's logits: 21,248 rows of 50,288 in bf16, or 4,096 of 256,000. Fewer would cost time: the
gradient of weight is read and written once per chunk."""
VOCAB_BLOCK = 4096
"""Logits that a program processes at a time."""


@triton.jit
def _tanh(x):
    """By exponentials, and near 0 (where those cancel) by its series: relative error below 1e-6."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = tl.where(x < 0.0, -1.0, 1.0) * (1.0 - e) / (1.0 + e)
    s = x * x
    near = x * (1.0 - s * (1.0 / 3.0 - s * (2.0 / 15.0 - s * (17.0 / 315.0))))
    return tl.where(tl.abs(x) < 0.1, near, far)


@triton.jit
def _loss_kernel(
    logits, targets, weights, rows, totals, vocab, ignore_index, z_loss, soft_cap,
    HAS_CAP: tl.constexpr, WANTS_GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row's loss, its share of the total, and in place of its logits their gradient. A target out of range gives
    NaN."""
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * vocab
    target = tl.load(targets + row)
    w = tl.load(weights + row).to(tl.float32)
    ignored = target == ignore_index
    picked = tl.load(own + tl.minimum(tl.maximum(target, 0), vocab - 1)).to(tl.float32)
    if HAS_CAP:
        picked = soft_cap * _tanh(picked / soft_cap)
    picked = tl.where((target >= 0) & (target < vocab), picked, float("nan"))
    peak, norm = -float("inf"), 0.0
    for first in range(0, vocab, BLOCK):
        j = first + tl.arange(0, BLOCK)
        x = tl.load(own + j, mask=j < vocab, other=-float("inf")).to(tl.float32)
        if HAS_CAP:
            x = tl.where(j < vocab, soft_cap * _tanh(x / soft_cap), -float("inf"))
        higher = tl.maximum(peak, tl.max(x, 0))
        shift = tl.where(higher == -float("inf"), 0.0, higher)  # or a block of -inf alone would make NaN
        norm = norm * tl.exp(peak - shift) + tl.sum(tl.exp(x - shift), 0)
        peak = higher
    lse = peak + tl.log(norm)
    tl.store(rows + row, tl.where(ignored, 0.0, lse - picked))
    tl.store(totals + row, tl.where(ignored, 0.0, w * (lse - picked + z_loss * lse * lse)))
    if WANTS_GRADIENT:
        scale = w * (1.0 + 2.0 * z_loss * lse)
        for first in range(0, vocab, BLOCK):
            j = first + tl.arange(0, BLOCK)
            x = tl.load(own + j, mask=j < vocab, other=0.0).to(tl.float32)
            slope = 1.0
            if HAS_CAP:
                e = tl.exp(-2.0 * tl.abs(x / soft_cap))
                slope = 4.0 * e / ((1.0 + e) * (1.0 + e))  # 1 - tanh^2 without its cancellation
                x = soft_cap * _tanh(x / soft_cap)
            gradient = (scale * (tl.exp(x - peak) / norm) - tl.where(j == target, w, 0.0)) * slope
            tl.store(own + j, tl.where(ignored, 0.0, gradient), mask=j < vocab)


def forward(hidden, weight, targets, weights, ignore_index, z_loss, soft_cap, wants_hidden, wants_weight):
    """See `lcprobe_kernels.linear_cross_entropy._forward`."""
    n, vocab = hidden.shape[0], weight.shape[0]
    size = max(1, min(n, CHUNK_BYTES // (vocab * hidden.itemsize)))
    size = size // 128 * 128 if 128 < size < n else size
    hidden = hidden.masked_fill(
        (targets == ignore_index)[:, None], 0.0
    )  # what is ignored is not multiplied either, NaN or not
    head, targets, weights = weight.to(hidden.dtype), targets.contiguous(), weights.contiguous()
    logits_of_chunk = hidden.new_empty(size, vocab)
    rows, totals = (hidden.new_empty(n, dtype=torch.float32) for _ in range(2))
    d_hidden = hidden.new_empty(hidden.shape if wants_hidden else (0,))
    d_weight, tiles = None, {"BLOCK": VOCAB_BLOCK, "num_warps": 8}
    for lo in range(0, n, size):
        h = hidden[lo : lo + size]
        logits = torch.mm(h, head.T, out=logits_of_chunk[: len(h)])
        _loss_kernel[(len(h),)](
            logits, targets[lo:], weights[lo:], rows[lo:], totals[lo:], vocab, ignore_index, z_loss, soft_cap or 1.0,
            HAS_CAP=soft_cap is not None, WANTS_GRADIENT=wants_hidden or wants_weight, **tiles,
        )  # fmt: skip
        if wants_hidden:
            torch.mm(logits, head, out=d_hidden[lo : lo + size])
        if wants_weight:
            d_weight = add_product(d_weight, logits, h, in_one=size == n and weight.dtype == hidden.dtype)
    return totals.sum(), rows, d_hidden, finished(d_weight, weight, wants_weight)
