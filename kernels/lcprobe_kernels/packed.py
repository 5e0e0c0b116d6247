"""Packed documents: where they begin, and how far a token reaches.

Ops take `starts`, True at a document's first token; kernels elsewhere take cu_seqlens.
"""

import torch
from torch import Tensor

from lcprobe_kernels.errors import ArgumentError


def starts_of(cu_seqlens: Tensor, batch: int, seqlen: int) -> Tensor:
    """(n_documents + 1,) cumulative lengths over the flattened (batch, seqlen) -> starts (batch, seqlen) bool.

    Raises ArgumentError unless cu_seqlens rises from 0 to batch * seqlen.
    """
    total = batch * seqlen
    ordered = cu_seqlens.dim() == 1 and len(cu_seqlens) > 1 and int(cu_seqlens[0]) == 0 and int(cu_seqlens[-1]) == total
    if not ordered or bool((cu_seqlens.diff() < 1).any()):
        raise ArgumentError("cu_seqlens", cu_seqlens.tolist(), f"lengths that rise from 0 to {total}")
    starts = torch.zeros(total, dtype=torch.bool, device=cu_seqlens.device)
    starts[cu_seqlens[:-1].long()] = True
    return starts.view(batch, seqlen)


def reached(marked: Tensor, starts: Tensor | None, before: Tensor | None = None) -> Tensor:
    """The tokens that come at or after a marked one of their document, like `marked` (batch, seqlen, ...) bool.

    starts: the first dimensions of `marked`, True where a document begins. before: `marked` without seqlen, what stands ahead
    of the first token and counts until a document begins.
    """
    token = torch.arange(marked.shape[1], device=marked.device).view(-1, *(1,) * (marked.dim() - 2))
    last = token.where(marked, -2).cummax(1).values
    if before is not None:
        last = torch.where(before[:, None], last.clamp_min(-1), last)
    if starts is None:
        return last > -2
    starts = starts.view(*starts.shape, *(1,) * (marked.dim() - starts.dim()))
    return last >= token.where(starts, -1).cummax(1).values
