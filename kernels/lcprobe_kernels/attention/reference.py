"""attention by its definition: every score at once, in any float dtype, on any device. Imports no triton."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lcprobe_kernels.packed import boundaries_up_to


class DocumentNumbers(NamedTuple):
    """Documents of a call: the numbers of the queries' (batch, seqlen), and of the keys' (batch, n_keys). boundaries:
    of the keys' documents, where the host knows them, see `packed.boundaries_of`."""

    queries: Tensor
    keys: Tensor
    boundaries: Tensor | None = None

    def part(self, low: int, high: int, end: int) -> "DocumentNumbers":
        """Those of queries low .. high - 1 and of the first `end` keys."""
        known = self.boundaries
        known = None if known is None else boundaries_up_to(known, self.keys.shape[1], end)
        return DocumentNumbers(self.queries[:, low:high], self.keys[:, :end], known)


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees; query i is at position `offset` + i of the keys, at distance d = offset + i - j from
    key j.

    Visible where d >= low, and d < high or j < sinks, and the key's chunk is chunk_low .. chunk_high - 1 chunks
    before the query's. high -1: no upper end. chunk 0: no chunks.
    """

    offset: int = 0
    low: int = 0
    high: int = -1
    sinks: int = 0
    chunk: int = 0
    chunk_low: int = 0
    chunk_high: int = 1

    @property
    def numbers(self) -> list[int]:
        """The numbers in the order of the registered op's argument."""
        return [self.offset, self.low, self.high, self.sinks, self.chunk, self.chunk_low, self.chunk_high]

    def some_see(self, first: int, last: int, n_keys: int) -> tuple[int, int]:
        """(low, high): no query of first .. last sees any of the n_keys keys outside low .. high - 1."""
        low, high = 0, last + self.offset - max(self.low, 0) + 1
        if self.high >= 0 and not self.sinks:
            low = first + self.offset - self.high + 1
        if self.chunk:
            low = max(low, ((first + self.offset) // self.chunk - self.chunk_high + 1) * self.chunk)
            high = min(high, ((last + self.offset) // self.chunk - self.chunk_low + 1) * self.chunk)
        low = min(max(low, 0), n_keys)
        return low, max(min(high, n_keys), low)

    def all_see(self, first: int, last: int, n_keys: int) -> tuple[int, int]:
        """(low, high): every query of first .. last sees all keys low .. high - 1 of the n_keys; sinks are left
        out."""
        low, high = 0, first + self.offset - max(self.low, 0) + 1
        if self.high >= 0:
            low = last + self.offset - self.high + 1
        if self.chunk:
            low = max(low, ((last + self.offset) // self.chunk - self.chunk_high + 1) * self.chunk)
            high = min(high, ((first + self.offset) // self.chunk - self.chunk_low + 1) * self.chunk)
        low = min(max(low, 0), n_keys)
        return low, max(min(high, n_keys), low)

    def visible(self, rows: Tensor, keys: Tensor) -> Tensor:
        """rows: (n,) and keys: (m,) int64 -> (n, m) bool."""
        return self.sees(rows[:, None], keys)

    def sees(self, rows: Tensor, keys: Tensor) -> Tensor:
        """rows and keys: int64 that broadcast -> whether each row sees its key."""
        at = rows + self.offset
        distance = at - keys
        seen = distance >= max(self.low, 0)
        if self.high >= 0:
            seen = seen & ((distance < self.high) | (keys < self.sinks))
        if self.chunk:
            before = at // self.chunk - keys // self.chunk
            seen = seen & (before >= self.chunk_low) & (before < self.chunk_high)
        return seen


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    table: Tensor | None = None,
    cumulative: tuple[Tensor, Tensor] | None = None,
    documents: tuple[Tensor, Tensor] | None = None,
    mask: Mask,
    scale: float,
    slopes: Tensor | None = None,
    soft_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """See `lcprobe_kernels.attention.attention`; o and lse, in the widest of the arguments' dtypes and float32."""
    acc_dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[2] // k.shape[2]
    q, k, v = (
        q.to(acc_dtype),
        k.to(acc_dtype).repeat_interleave(group, 2),
        v.to(acc_dtype).repeat_interleave(group, 2),
    )
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * scale
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    rows = torch.arange(q.shape[1], device=q.device)
    keys = torch.arange(k.shape[1], device=q.device)
    seen = mask.visible(rows, keys)
    if documents is not None:
        seen = seen & (documents[0][:, :, None] == documents[1][:, None, :])[:, None]
    if table is not None:
        distance = (rows[:, None] + mask.offset - keys).clamp(0, table.shape[1] - 1)
        scores = scores + table[:, distance].to(acc_dtype)
    if slopes is not None:
        distance = (rows[:, None] + mask.offset - keys).to(acc_dtype)
        scores = scores - slopes.to(acc_dtype)[:, None, None] * distance
    if cumulative is not None:
        f_q, f_k = (f.to(acc_dtype).transpose(1, 2) for f in cumulative)
        scores = scores + f_q[:, :, :, None] - f_k[:, :, None, :]
    return weighted(scores, seen, v)


def weighted(scores: Tensor, seen: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """scores: (batch, n_heads, seqlen, n_keys), seen: the same or fewer dimensions, v: (batch, n_keys, n_heads, d_v)
    -> o (batch, seqlen, n_heads, d_v) and lse (batch, seqlen, n_heads). A query that sees nothing: o = 0, lse =
    -inf."""
    scores = scores.masked_fill(~seen, float("-inf"))
    top = scores.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isneginf(top), 0.0, top)
    weights = (scores - top).exp()
    total = weights.sum(-1)
    o = torch.einsum("bhij,bjhd->bihd", weights, v)
    some = total > 0
    total = torch.where(torch.isnan(total) | some, total, 1.0)
    lse = torch.where(some | torch.isnan(total), total.log() + top[..., 0], float("-inf"))
    return o / total.transpose(1, 2)[..., None], lse.transpose(1, 2)


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Attention over disjoint sets of keys, from each set's (o, lse): exact, whatever the number of sets.

    o: (batch, seqlen, n_heads, d_v), lse: (batch, seqlen, n_heads). Where no set has a key: o = 0, lse = -inf.
    """
    if len(parts) == 1:
        return parts[0]
    lses = torch.stack([lse for _, lse in parts])
    top = lses.detach().amax(0)
    top = torch.where(torch.isneginf(top), 0.0, top)
    weights = (lses - top).exp()
    total = weights.sum(0)
    none = total == 0
    shares = weights / torch.where(none, 1.0, total)
    o = shares[0][..., None] * parts[0][0]
    for share, (other, _) in zip(shares[1:], parts[1:], strict=True):
        o = torch.addcmul(o, share[..., None], other.to(share.dtype))
    lse = torch.where(none, float("-inf"), torch.where(none, 1.0, total).log() + top)
    return o.to(parts[0][0].dtype), lse
