"""Attention whose scores are any function of a block of queries and all keys: for encodings outside the closed
algebra.

Blocks of queries are computed one after the other and, if gradients are needed, again in the backward pass (Chen et
al. 2016, arXiv 1604.06174): the memory is that of one block, at any length.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SCORES_PER_BLOCK = 1 << 20


def rows_per_block(heads: int, n_keys: int, seqlen: int) -> int:
    """Queries of a block whose scores over `heads` (batch x n_heads) and `n_keys` are about SCORES_PER_BLOCK; 16 at
    least."""
    return min(max(SCORES_PER_BLOCK // (heads * n_keys), 16), seqlen)


def blockwise(
    rows_to_output: Callable[[Tensor, int], Tensor], seqlen: int, n_keys: int, heads: int, device: torch.device
) -> Tensor:
    """Outputs of blocks of queries, joined along dimension 1.

    rows_to_output: row numbers (n,) int64, ascending by 1, and the first of them -> (batch, n, ...). heads: batch x
    n_heads, which with `n_keys` sets the number of rows per block.
    """
    size = rows_per_block(heads, n_keys, seqlen)
    parts = []
    for first in range(0, seqlen, size):
        rows = torch.arange(first, min(first + size, seqlen), device=device)
        if torch.is_grad_enabled() and size < seqlen:
            part = checkpoint(rows_to_output, rows, first, use_reentrant=False, preserve_rng_state=False)
        else:
            part = rows_to_output(rows, first)
        assert isinstance(part, Tensor)
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
