"""Attention of a chunk of a long prompt after its cached keys, beside plain PyTorch.

The peer calls PyTorch's kernel for the cached keys and, causal, for the chunk's own, and joins both by their
log-sum-exp; where keys are shared by several heads, they are repeated for it beforehand. Under a window it calls
scaled_dot_product_attention with a mask. Both run in turn; the least time is reported, of the processor on a CPU. A
result is checked first, in float64, for the last rows of the chunk. The floor is that of the products of visible
pairs at the speed of this machine's matrix products in the same run; PyTorch's kernel can be above it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lcprobe_kernels.attention import Mask, attention, reference
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from benchmarks.kernels import Machine, timed
from lcprobe.models.kv_cache import KVCache

TITLE = "prefill: a chunk after cached keys, milliseconds of attention in one layer on a CPU"
OPTIONS = ("rounds",)
D = 64
CHECKED = 8


@dataclass(frozen=True)
class Shape:
    """batch rows of `chunk` tokens after `past` cached ones."""

    batch: int
    heads: int
    kv_heads: int
    past: int
    chunk: int
    window: int | None = None


SHAPES = (
    Shape(1, 4, 4, 31744, 1024), Shape(1, 8, 2, 31744, 1024), Shape(8, 4, 4, 3072, 1024), Shape(1, 4, 4, 31744, 64),
    Shape(1, 4, 4, 31744, 1024, 1024),
)  # fmt: skip


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per shape. options: rounds (5)."""
    rounds, machine, rows = int(options.get("rounds", 5)), Machine(False, time.process_time), []
    with torch.inference_mode():
        for shape in SHAPES:
            machine.measure()
            rows.append(_row(shape, rounds))
            print(rows[-1], flush=True)
    return [machine.judge(row) for row in rows]


def _row(shape: Shape, rounds: int) -> dict[str, Any]:
    n, g = shape.past + shape.chunk, torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(shape.batch, tokens, heads, D, generator=g)
        for tokens, heads in ((shape.chunk, shape.heads), (n, shape.kv_heads), (n, shape.kv_heads))
    )
    cache = KVCache(k[:, :0], v[:, :0]).append(k, v)
    mask = Mask(shape.past, high=-1 if shape.window is None else shape.window)
    runs: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: attention(q, cache.k, cache.v, mask=mask)[0],
        "PyTorch": _peer(shape, q, k, v),
    }
    last = Mask(n - CHECKED, high=mask.high)
    exact = reference(q[:, -CHECKED:].double(), k.double(), v.double(), mask=last, scale=D**-0.5)[0]
    errors = {
        name: float((run()[:, -CHECKED:] - exact).abs().max() / exact.abs().max()) for name, run in runs.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run, 1, False, time.process_time))
    ours, theirs = (1e3 * min(times[name]) for name in ("ours", "PyTorch"))
    pairs = sum(min(shape.window or n, shape.past + i + 1) for i in range(shape.chunk))
    return {
        "batch": shape.batch,
        "heads": f"{shape.heads} on {shape.kv_heads}",
        "cached": shape.past,
        "chunk": shape.chunk,
        "window": shape.window,
        "ours ms": round(ours, 1),
        "PyTorch ms": round(theirs, 1),
        "x PyTorch": f"{theirs / ours:.2f}",
        "error": f"{errors['ours']:.1e}",
        "PyTorch error": f"{errors['PyTorch']:.1e}",
        "flops": 4.0 * D * shape.batch * shape.heads * pairs,
        "bytes": 4.0 * (k.nbytes + q.nbytes) / 2,
    }


def _peer(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Plain PyTorch on heads that lie first in memory; keys before any window are left out."""
    first = 0 if shape.window is None else max(0, shape.past - shape.window + 1)
    k, v = (t[:, first:].repeat_interleave(shape.heads // shape.kv_heads, 2) for t in (k, v))
    q, k, v = (t.transpose(1, 2).contiguous() for t in (q, k, v))
    past = shape.past - first
    if shape.window is not None:
        at = torch.arange(past, past + shape.chunk)[:, None] - torch.arange(k.shape[2])
        seen = (at >= 0) & (at < shape.window)
        return lambda: sdpa(q, k, v, attn_mask=seen).transpose(1, 2)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def two_calls() -> Tensor:
        o, lse = flash(q, k[:, :, :past], v[:, :, :past])
        own, own_lse = flash(q, k[:, :, past:], v[:, :, past:], is_causal=True)
        share = torch.sigmoid(own_lse - lse)[..., None]
        return (o + share * (own - o)).transpose(1, 2)

    return two_calls
