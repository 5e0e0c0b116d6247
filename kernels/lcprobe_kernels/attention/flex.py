"""attention through PyTorch's FlexAttention, for `kernels.backend=flex`: an independent implementation to compare
with.

It is not the default: on a CPU it has no gradients, and on a GPU those of a table are summed by atomics, in any
order. There it is compiled, which costs seconds per kind of call.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lcprobe_kernels.attention.reference import Mask
from lcprobe_kernels.errors import ArgumentError


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    cumulative: tuple[Tensor, Tensor] | None,
    documents: tuple[Tensor, Tensor] | None,
    scale: float,
    mask: Mask,
    soft_cap: float,
) -> tuple[Tensor, Tensor]:
    """o and lse; see `lcprobe_kernels.attention.attention`. Raises ArgumentError for gradients on a CPU."""
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask

    given = [q, k, v, table, *(cumulative or ())]
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given):
        raise ArgumentError(
            "kernels.backend", "flex, with gradients on a CPU", "torch or triton: FlexAttention has none there"
        )

    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if soft_cap:
            s = soft_cap * torch.tanh(s / soft_cap)
        if table is not None:
            s = s + table[h, (i + mask.offset - j).clamp(0, table.shape[1] - 1)]
        if cumulative is not None:
            s = s + (cumulative[0][b, i, h] - cumulative[1][b, j, h]).to(s.dtype)
        return s

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        visible = mask.sees(i, j)
        return visible if documents is None else visible & (documents[0][b, i] == documents[1][b, j])

    rows = None if documents is None else q.shape[0]
    blocks = create_block_mask(seen, rows, None, q.shape[1], k.shape[1], device=q.device)
    heads_first = (t.transpose(1, 2) for t in (q, k, v))
    gqa = q.shape[2] != k.shape[2]
    attend = _attend(q.device.type == "cuda")
    o, aux = attend(
        *heads_first, score_mod=score, block_mask=blocks, scale=scale, enable_gqa=gqa, return_aux=AuxRequest(lse=True)
    )
    return o.transpose(1, 2), aux.lse.transpose(1, 2)


@lru_cache
def _attend(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention
