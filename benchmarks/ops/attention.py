"""attention with a learned table over distance, beside PyTorch's own: plain, with a dense bias, and on a GPU
FlexAttention."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention, reference
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from benchmarks.ops.case import Case, dtype_name, error_against, forward_backward


def cases(gpu: bool) -> list[Case]:
    """Heads of the 2.7 B models on a GPU, with the table and without any term; a dense bias stops where it fills the
    memory."""
    if gpu:
        shapes = [(16384 // n or 1, n, heads, 2560 // heads) for n in (2048, 8192, 32768) for heads in (40, 20)]
        return [_case(*shape, torch.bfloat16, "cuda", table) for shape in shapes for table in (True, False)]
    return [
        _case(*shape, torch.float32, "cpu", True) for shape in ((2, 512, 4, 64), (1, 2048, 4, 64), (1, 4096, 2, 64))
    ]


def _case(batch: int, length: int, heads: int, d: int, dtype: torch.dtype, device: str, with_table: bool) -> Case:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    q, k, v, do = (draw(batch, length, heads, d) for _ in range(4))
    table = -torch.rand(heads, 1, device=device) * torch.arange(length, device=device).log1p()  # KERPLE's shape
    leaves = [t.requires_grad_() for t in ((q, k, v, table) if with_table else (q, k, v))]

    def check() -> float:
        part = [t[:1, -300:] if t.dim() == 4 else t for t in leaves]

        def run(op: Callable[..., Any], **options: Any) -> Callable[..., tuple[Tensor]]:
            return lambda q, k, v, table=None: (op(q, k, v, table=table, mask=Mask(), scale=d**-0.5, **options)[0],)

        with backends.using("triton" if device == "cuda" else "auto"):
            return error_against(run(reference), run(attention, return_lse=True), part, [do[:1, -300:]])

    pairs = batch * heads * length * (length + 1) // 2
    peers = {"PyTorch, no bias": forward_backward(_plain, leaves[:3], [do])}
    if with_table and length <= 8192:
        peers["PyTorch, dense bias"] = forward_backward(_dense, leaves, [do])
    if device == "cuda":
        peers["FlexAttention"] = forward_backward(_flex, leaves, [do])
        if not with_table and backends.missing("flash_attn") is None:
            peers["flash-attn"] = forward_backward(_flash_attn, leaves, [do])
    return Case(
        "attention, table" if with_table else "attention, no terms", f"{batch} x {length} x {heads} x {d}",
        dtype_name(dtype), forward_backward(_ours, leaves, [do]), peers, check,
        14.0 * d * pairs, 12.0 * q.nbytes,
    )  # fmt: skip


def _ours(q: Tensor, k: Tensor, v: Tensor, table: Tensor | None = None) -> Tensor:
    with backends.using("triton" if q.is_cuda else "auto"):  # flash-attn is a peer here
        return attention(q, k, v, table=table, return_lse=True)[0]  # with lse, so that it is ours without terms too


def _flash_attn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with backends.using("flash_attn"):
        return attention(q, k, v)[0]


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return sdpa(q, k, v, is_causal=True).transpose(1, 2)


def _dense(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """A bias for every pair, as is done where attention takes a mask only."""
    at = torch.arange(q.shape[1], device=q.device)
    distance = at[:, None] - at
    bias = table[:, distance.clamp(0)].masked_fill(distance < 0, float("-inf")).to(q.dtype)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return sdpa(q, k, v, attn_mask=bias[None]).transpose(1, 2)


@cache
def _compiled() -> tuple[Callable[..., Any], Callable[..., Any]]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention), cache(create_block_mask)


def _flex(q: Tensor, k: Tensor, v: Tensor, table: Tensor | None = None) -> Tensor:
    flex, block_mask = _compiled()

    def biased(score: Tensor, _: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score if table is None else score + table[head, i - j]

    mask = block_mask(_causal, None, None, q.shape[1], q.shape[1], device=q.device)
    return flex(*(t.transpose(1, 2) for t in (q, k, v)), score_mod=biased, block_mask=mask).transpose(1, 2)


def _causal(_: Tensor, __: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return i >= j
