"""Cached keys and values of an attention layer: new tokens are written behind the old ones, not copied with them.

Heads come first in memory, so that each head's keys are one stream. A cache is immutable, but caches that continue
each other share a buffer with room for more tokens: the newest of them is continued in place, an older one (a context
to which several questions are put) is copied first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lcprobe.models.state import State

ROOM = 8
"""A new buffer has room for this many tokens, and for one more per this many cached ones."""


class _Buffer:
    """k, v: (batch, n_kv_heads, capacity, width) each. filled: tokens that some cache holds; nothing before it is
    ever written again."""

    def __init__(self, k: Tensor, v: Tensor, tokens: int):
        """k, v: (batch, n, n_kv_heads, width), to be copied; tokens: to be appended at once."""
        n = k.shape[1]
        capacity = n + tokens + (n + tokens) // ROOM + ROOM
        self.k, self.v = (t.new_empty(t.shape[0], t.shape[2], capacity, t.shape[3]) for t in (k, v))
        self.filled = 0
        self.append(k, v)

    def has_room(self, end: int, k: Tensor) -> bool:
        """Whether k (batch, n, n_kv_heads, width) can be written behind token `end` - 1."""
        usable = not self.k.is_inference() or torch.is_inference_mode_enabled()
        same = self.k.dtype == k.dtype and self.k.device == k.device
        return usable and same and self.filled == end and end + k.shape[1] <= self.k.shape[2]

    def append(self, k: Tensor, v: Tensor) -> None:
        """Write k and v (batch, n, n_kv_heads, width) behind the last token."""
        end = self.filled + k.shape[1]
        self.k[:, :, self.filled : end] = k.transpose(1, 2)
        self.v[:, :, self.filled : end] = v.transpose(1, 2)
        self.filled = end


@dataclass(frozen=True)
class KVCache(State):
    """k, v: (batch, n, n_kv_heads, width) of the n cached tokens, oldest first; buffer: where they lie, at tokens
    `end` - n to `end` - 1; None: in tensors of their own."""

    k: Tensor
    v: Tensor
    buffer: _Buffer | None = None
    end: int = 0

    def append(self, k: Tensor, v: Tensor) -> "KVCache":
        """This cache followed by k and v (batch, n, n_kv_heads, width), in their dtype.

        Where gradients may be recorded, and in compiled code, everything is copied.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return KVCache(
                torch.cat([self.k.to(k.dtype), k], dim=1),
                torch.cat([self.v.to(v.dtype), v], dim=1),
            )
        buffer, end, n = self.buffer, self.end, self.k.shape[1]
        if buffer is None or not buffer.has_room(end, k):
            buffer, end = _Buffer(self.k.to(k), self.v.to(v), k.shape[1]), n
        buffer.append(k, v)
        first, end = end - n, end + k.shape[1]
        keys, values = (t[:, :, first:end].transpose(1, 2) for t in (buffer.k, buffer.v))
        return KVCache(keys, values, buffer, end)

    def last(self, n: int) -> "KVCache":
        """The last n tokens. The others' memory is freed, unless it is about as small as that of n tokens."""
        if n >= self.k.shape[1]:
            return self
        k, v = (t[:, t.shape[1] - n :] for t in (self.k, self.v))
        if self.buffer is not None and self.buffer.k.shape[2] <= n + 2 * (n // ROOM + ROOM):
            return KVCache(k, v, self.buffer, self.end)
        return KVCache(k.clone(), v.clone())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        k, v = (change(t.transpose(1, 2)).transpose(1, 2) for t in (self.k, self.v))  # heads first, as they lie
        return type(self)(k, v)
