"""What the ops launch: every Triton kernel, through its launcher, with every switch on and with every switch off.

Sizes are those of the published models (heads of 64 and 128, states of 128 columns), so that tiles are the default
ones; lengths matter to no tile.
"""

from collections.abc import Callable

import torch
from lcprobe_kernels.attention import triton_bwd as attention_bwd
from lcprobe_kernels.attention import triton_fwd as attention_fwd
from lcprobe_kernels.causal_conv1d import triton_bwd as conv_bwd
from lcprobe_kernels.causal_conv1d import triton_fwd as conv_fwd
from lcprobe_kernels.linear_cross_entropy import triton_loss
from lcprobe_kernels.linear_recurrence import triton_scan
from lcprobe_kernels.rms_norm import triton_norm
from lcprobe_kernels.ssd import triton_bwd as ssd_bwd
from lcprobe_kernels.ssd import triton_fwd as ssd_fwd
from lcprobe_kernels.ssd.tiles import LARGEST, chunk_that_fits
from lcprobe_kernels.triton_tools import shared_memory

from validation.compiled.offline import empty

BATCH, LENGTH, HEADS = 2, 512, 8
Launch = Callable[[torch.dtype, bool], None]


def ssd(dtype: torch.dtype, full: bool, head_dim: int = 64, d_state: int = 128) -> None:
    """Both passes."""
    x, dt = empty(BATCH, LENGTH, HEADS, head_dim, dtype=dtype), empty(BATCH, LENGTH, HEADS, dtype=dtype)
    B, A = empty(BATCH, LENGTH, 1, d_state, dtype=dtype), empty(HEADS, dtype=torch.float32)
    D, starts = (A, empty(BATCH, LENGTH, dtype=torch.bool)) if full else (None, None)
    initial = empty(BATCH, HEADS, head_dim, d_state, dtype=torch.float32) if full else None
    q = chunk_that_fits(LARGEST, shared_memory(), head_dim, dtype)
    low, high = (0.01, 0.5) if full else (0.0, float("inf"))
    y, final, *saved = ssd_fwd.forward(x, dt, A, B, B, D, D, initial, starts, low, high, q, full)
    ssd_bwd.backward(y, final if full else None, x, dt, A, B, B, D, D, starts, *saved, low, high, full, True)  # type: ignore


def attention(dtype: torch.dtype, full: bool, width: int = 64, length: int = LENGTH) -> None:
    """Both passes; full: with a table, gates, documents and chunks."""
    q = empty(BATCH, length, HEADS, width, dtype=dtype)
    k = empty(BATCH, LENGTH, HEADS // 2, width, dtype=dtype)
    offset = LENGTH - length
    table = empty(HEADS, LENGTH, dtype=torch.float32) if full else None
    gates = [empty(BATCH, n, HEADS, dtype=torch.float32) if full else None for n in (length, LENGTH)]
    documents = [empty(BATCH, n, dtype=torch.int64) if full else None for n in (length, LENGTH)]
    terms = (table, *gates, *documents)
    mask = [offset, 0, 256, 4, 128, 0, 2] if full else [offset, 0, -1, 0, 0, 0, 1]
    o, lse = attention_fwd.forward(q, k, k, *terms, width**-0.5, mask)  # type: ignore
    if length == LENGTH:
        attention_bwd.backward(o, lse if full else None, q, k, k, o, lse, *terms, width**-0.5, mask, full)  # type: ignore


def causal_conv1d(dtype: torch.dtype, full: bool) -> None:
    """Both passes, widths 4 and 2."""
    channels, width = 1280, 4 if full else 2
    x, weight = empty(BATCH, LENGTH, channels, dtype=dtype), empty(channels, width, dtype=torch.float32)
    bias = empty(channels, dtype=torch.float32) if full else None
    initial = empty(BATCH, width - 1, channels, dtype=dtype) if full else None
    starts = empty(BATCH, LENGTH, dtype=torch.bool) if full else None
    y = conv_fwd.forward(x, weight, bias, initial, starts, full)
    conv_bwd.backward(y, x, weight, bias, initial, starts, full)


def rms_norm(dtype: torch.dtype, full: bool) -> None:
    """Both passes: plain, with a gate; full: of a sum with the residual."""
    x, weight = empty(BATCH, LENGTH, 2560, dtype=dtype), empty(2560, dtype=torch.float32)
    residual = empty(*x.shape, dtype=torch.float32) if full else None
    for gate in (None, x):
        y, total, scale = triton_norm.forward(x, residual, weight, gate, 1e-5, 1, full)
        triton_norm.backward(y, residual, total if full else x, weight, gate, scale, full)


def linear_recurrence(dtype: torch.dtype, full: bool) -> None:
    """Both passes over a sequence in parts; full: with documents and states."""
    b = empty(1, 8192, 2560, dtype=dtype)
    state, starts = (empty(1, 2560, dtype=torch.float32), empty(1, 8192, dtype=torch.bool)) if full else (None, None)
    h, _ = triton_scan.forward(b, b, state, starts, full)
    triton_scan.backward(h, state, b, h, state, starts)


def linear_cross_entropy(dtype: torch.dtype, full: bool) -> None:
    """The one kernel; full: with a soft cap, and gradients."""
    hidden, weight = empty(256, 64, dtype=dtype), empty(50_288, 64, dtype=dtype)
    targets, weights = empty(256, dtype=torch.int64), empty(256, dtype=torch.float32)
    triton_loss.forward(hidden, weight, targets, weights, -100, 0.0, 30.0 if full else None, full, full)


LAUNCHES: dict[str, Launch] = {
    "ssd": ssd,
    "attention": attention,
    "attention, heads of 128": lambda dtype, full: attention(dtype, full, width=128),
    "attention, decoding": lambda dtype, full: attention(dtype, full, length=1),
    "causal_conv1d": causal_conv1d,
    "rms_norm": rms_norm,
    "linear_recurrence": linear_recurrence,
    "linear_cross_entropy": linear_cross_entropy,
}
"""Every op with Triton kernels, at its default tiles."""
WIDER: dict[str, Launch] = {
    "ssd, states of 256": lambda dtype, full: ssd(dtype, full, d_state=256),
    "ssd, heads of 128": lambda dtype, full: ssd(dtype, full, head_dim=128),
    "attention, heads of 256": lambda dtype, full: attention(dtype, full, width=256),
}
"""Sizes at the edge of shared memory."""
