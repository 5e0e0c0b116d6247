"""Cached keys and values of an attention layer: new tokens are written behind the old ones, not copied with them.

Heads come first in memory, so that each head's keys are one stream. A cache is immutable, but caches that continue
each other share a buffer with room for more tokens: the newest of them is continued in place, an older one (a context
to which several questions are put) is copied first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import State, tensors_of
from lcprobe.models.token_context import TokenContext

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


@dataclass(frozen=True)
class Divided(State):
    """ranks: those that have parts of a cache; last: (batch, 1, width), an encoding's terms of the last token, which
    running sums continue, None before the first token or where there are none."""

    ranks: ContextRanks
    last: Tensor | None = None


@dataclass(frozen=True)
class AttentionState(State):
    """cache: keys and values of the n cached tokens, keys rotated unless the encoding caches raw keys; alive: (batch,
    n) bool, False for tokens of finished documents (None: all True); terms: the encoding's token terms, (batch, n,
    width) of all cached tokens or (batch, 1, width) of the last; conv: (batch, d_conv - 1, width), last inputs of the
    convolution; convolved: its last outputs, of that shape, kept where a state has them (None: not); divided: where
    the cache is one rank's part of it."""

    cache: KVCache
    alive: Tensor | None
    terms: Tensor | None
    conv: Tensor | None
    convolved: Tensor | None = None
    divided: Divided | None = None

    def parts(self) -> list[Tensor]:
        """See State: a rank's keys, values and terms of them."""
        return [] if self.divided is None else tensors_of((self.cache, self.terms))

    def tensors(self) -> list[Tensor]:
        """See State; without the last token's terms where they are cached beside."""
        if self.divided is None or self.terms is None:
            return super().tensors()
        return replace(self, divided=None).tensors()

    def map_passed(self, change: Callable[[Tensor], Tensor]) -> Self:
        """See State: all have the keys, values and terms of a whole pass, or their share of them."""
        return self if self.conv is None else replace(self, conv=change(self.conv))


def state_after(
    cache: KVCache,
    terms: Tensor | None,
    conv: Tensor | None,
    where: TokenContext,
    state: AttentionState,
    window: int | None,
    sinks: int,
    all_terms: bool,
) -> AttentionState:
    """The state after tokens that `cache` has behind those of `state`. terms: of all cached tokens where `all_terms`,
    of the new ones otherwise; window, sinks: the layer's visible range."""
    (batch, n_keys), device = cache.k.shape[:2], cache.k.device
    alive, documents, n_past = state.alive, where.documents, state.cache.k.shape[1]
    if documents is not None or alive is not None:
        if alive is None:
            alive = torch.ones(batch, n_past, dtype=torch.bool, device=device)
        if documents is None:
            fresh = torch.ones(batch, n_keys - n_past, dtype=torch.bool, device=device)
        else:
            alive = alive & (documents[:, -1:] == 0)
            fresh = documents == documents[:, -1:]
        alive = torch.cat([alive, fresh], dim=1)
    if terms is not None and not all_terms:
        terms = terms[:, -1:]
    if window is not None and not sinks and n_keys > window - 1:
        cache = cache.last(window - 1)
        alive = None if alive is None else alive[:, n_keys - (window - 1) :]
        if terms is not None and all_terms:
            terms = terms[:, -window:]  # one more than keys: sums continue from the last, even with no key kept
    return AttentionState(cache, alive, terms, conv)
