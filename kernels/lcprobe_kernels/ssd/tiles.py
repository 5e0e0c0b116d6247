"""Tiles of ssd's Triton kernels: a chunk's tokens and a program's columns of the state, by what fits in shared
memory."""

import torch

LARGEST, LARGEST_FLOAT32 = 128, 32
"""Tokens of a chunk at most: a program keeps its (q, q) product in registers, and of float32 the two parts of every
operand of a product too."""
COLUMNS, COLUMNS_FLOAT32 = 64, 32
"""Columns of B and C at most that a program holds at a time, for the same reason."""


def chunk_that_fits(wanted: int, limit: int, head_dim: int, dtype: torch.dtype) -> int:
    """The largest power of two, 16 at least, of at most `wanted` tokens whose tiles stay within `limit` bytes."""
    q = 1 << (min(wanted, LARGEST_FLOAT32 if dtype == torch.float32 else LARGEST).bit_length() - 1)
    while q > 16 and needs(q, 16, head_dim, dtype) > limit:
        q //= 2
    return max(16, q)


def columns_that_fit(q: int, limit: int, head_dim: int, d_state: int, dtype: torch.dtype) -> int:
    """The columns of B and C that a program holds at a time: a power of two, of at least 16."""
    n = min(padded(d_state), COLUMNS_FLOAT32 if dtype == torch.float32 else COLUMNS)
    while n > 16 and needs(q, n, head_dim, dtype) > limit:
        n //= 2
    return n


def needs(q: int, n: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of shared memory that the largest kernel, which computes dx, may ask for: while it walks over the columns
    of the state, or after, with the (q, q) product in float32. Bounds of what Triton 3.9 allocates."""
    p, size = padded(head_dim), dtype.itemsize
    return max(size * (2 * q * n + 2 * q * p + q * q) + 4 * n * p, 4 * q * q + 3 * size * q * p)


def padded(n: int) -> int:
    """The power of two, 16 at least, that holds n."""
    return max(16, 1 << (n - 1).bit_length())
