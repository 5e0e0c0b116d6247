"""Packed documents: where they begin. Ops take `starts`, True at a document's first token; kernels elsewhere take cu_seqlens."""

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
