"""attention without terms on a CPU, through PyTorch's own kernel: pieces of keys, joined by their log-sum-exp.

The kernel computes o and lse of queries against all keys, against a causal square, or under a mask that is added to
the scores. A chunk that continues a cache is one call over the cached keys and one causal call over its own; other
masks are cut into blocks of queries, and keys that all queries of a block see need no mask. Query heads that share
keys are stacked along the rows: keys are read once for them, and not repeated.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lcprobe_kernels.attention.reference import Mask, merge

ROWS = 64, 512
"""Queries of a block under a mask, at least and at most; in between a quarter of a band's width."""
SCORES_PER_MASK = 1 << 22
"""Numbers of a block's mask, at most, unless one query has more keys."""
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
Part = tuple[Tensor, Tensor]


def forward(
    q: Tensor, k: Tensor, v: Tensor, docs_q: Tensor | None, docs_k: Tensor | None, scale: float, rule: Mask
) -> Part | None:
    """o and lse, see `lcprobe_kernels.attention._forward`; None where the kernel would hide a NaN or an infinity."""
    (batch, seqlen, n_heads, _), n_keys = q.shape, k.shape[1]
    if docs_q is None and _only_causal(rule, seqlen, n_keys):
        at = rule.offset
        if seqlen == 1:
            return _joined([_piece(q, k[:, : at + 1], v[:, : at + 1], scale)])
        parts = [_piece(q, k[:, :at], v[:, :at], scale)] if at else []
        own = slice(at, at + seqlen)
        return _joined([*parts, _piece(q, k[:, own], v[:, own], scale, causal=True)])
    o = q.new_zeros(batch, seqlen, n_heads, v.shape[3])
    lse = q.new_full((batch, seqlen, n_heads), float("-inf"), dtype=torch.promote_types(q.dtype, torch.float32))
    for rows in _row_blocks(rule, seqlen, n_keys, 1 if docs_q is None else batch):
        parts = []
        for at in _key_ranges(rule, rows, n_keys, docs_q, docs_k):
            hidden = _hidden(rule, rows, at, docs_q, docs_k)
            parts.append(_piece(q[:, rows], k[:, at], v[:, at], scale, hidden=hidden))
        if parts:
            joined = _joined(parts)
            if joined is None:
                return None
            o[:, rows], lse[:, rows] = joined
    return o, lse


def _only_causal(rule: Mask, seqlen: int, n_keys: int) -> bool:
    """Whether every query sees all keys up to itself."""
    end = rule.offset + seqlen
    return end <= n_keys and rule.low <= 0 and not rule.chunk and not 0 <= rule.high < end


def _joined(parts: list[Part | None]) -> Part | None:
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    o, lse = merge(whole) if len(whole) > 1 else whole[0]
    return o.contiguous(), lse.contiguous()


def _piece(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False, hidden: Tensor | None = None
) -> Part | None:
    """o and lse against these keys: all, or (causal) as many as queries, up to each, or those that are not hidden (1
    or batch, rows, keys). None where the kernel would hide a NaN or an infinity."""
    (seqlen, n_heads), n_kv_heads = q.shape[1:3], k.shape[2]
    group, mask = n_heads // n_kv_heads, None
    heads = q.transpose(1, 2).contiguous()  # the kernel reads a block of queries once for each block of keys
    if group > 1 and causal:
        k, v = (t.repeat_interleave(group, 2) for t in (k, v))
    elif group > 1:
        heads = heads.reshape(q.shape[0], n_kv_heads, group * seqlen, -1)
    if hidden is not None:
        acc_dtype = torch.promote_types(q.dtype, torch.float32)  # of another dtype the kernel reads masks wrongly
        mask = q.new_zeros(hidden.shape, dtype=acc_dtype).masked_fill_(hidden, float("-inf"))
        mask = mask.repeat(1, group, 1)[:, None]
    o, lse = _flash(heads, k.transpose(1, 2), v.transpose(1, 2), 0.0, causal, attn_mask=mask, scale=scale)
    if group > 1:
        o, lse = o.reshape(q.shape[0], n_heads, seqlen, -1), lse.reshape(q.shape[0], n_heads, seqlen)
    o, lse = o.transpose(1, 2), lse.transpose(1, 2)
    if hidden is None:
        return None if _hides(lse, q, k) else (o, lse)
    nothing = hidden.all(2, keepdim=True)
    hides = _hides(lse.masked_fill(nothing, 1.0), q, k)
    return None if hides else (o, lse.masked_fill(nothing, float("-inf")))


def _hides(lse: Tensor, q: Tensor, k: Tensor) -> bool:
    """Whether a row may have a NaN or an infinity that its output does not show: the kernel returns o = lse = 0 where
    it finds no score above -inf, and in short rows it finds no NaN."""
    if math.isfinite((lse + lse.reciprocal()).sum()):
        return False
    return not all(bool(t.isfinite().all()) for t in (lse, q, k))


def _row_blocks(rule: Mask, seqlen: int, n_keys: int, masks: int) -> Iterator[slice]:
    """Blocks of queries. masks: the masks that a block needs, one or one for each row of the batch."""
    width = n_keys if rule.high < 0 else min(rule.high, n_keys)
    size = min(max(width // 4, ROWS[0]), ROWS[1], max(SCORES_PER_MASK // (masks * n_keys), 1))
    return (slice(first, min(first + size, seqlen)) for first in range(0, seqlen, size))


def _key_ranges(rule: Mask, rows: slice, n_keys: int, docs_q: Tensor | None, docs_k: Tensor | None) -> list[slice]:
    """Disjoint ranges with all keys that any of the queries sees; if all of them see most of these, that is a range
    of its own."""
    low, high = rule.some_see(rows.start, rows.stop - 1, n_keys)
    every_low, every_high = rule.all_see(rows.start, rows.stop - 1, n_keys)
    ranges = []
    if rule.sinks < every_low and 0 < rule.sinks and not rule.chunk:
        ranges = [slice(0, min(rule.sinks, high))]
        low = min(max(rule.sinks, rows.start + rule.offset - rule.high + 1), high)
    if docs_q is not None and docs_k is not None:
        own, keys = docs_q[:, rows], docs_k[:, low:high]
        some = ((keys >= own.amin(1, True)) & (keys <= own.amax(1, True))).any(0).nonzero()
        low, high = (low + int(some[0]), low + int(some[-1]) + 1) if len(some) else (low, low)
    every_low, every_high = max(every_low, low), min(every_high, high)
    edges = [low, every_low, every_high, high] if 2 * (every_high - every_low) > high - low else [low, high]
    ranges += [slice(lo, hi) for lo, hi in zip(edges, edges[1:], strict=False)]
    return [at for at in ranges if at.start < at.stop]


def _hidden(rule: Mask, rows: slice, at: slice, docs_q: Tensor | None, docs_k: Tensor | None) -> Tensor | None:
    """(1 or batch, rows, keys) bool, True where a query does not see a key; None: every query sees every key."""
    hidden = None
    low, high = rule.all_see(rows.start, rows.stop - 1, at.stop)
    if not low <= at.start < at.stop <= high:
        hidden = ~rule.visible(torch.arange(rows.start, rows.stop), torch.arange(at.start, at.stop))[None]
    if docs_q is not None and docs_k is not None:
        own, keys = docs_q[:, rows], docs_k[:, at]
        if not bool((own == own[:, :1]).all() & (keys == own[:, :1]).all()):
            other = own[:, :, None] != keys[:, None]
            hidden = other if hidden is None else hidden | other
    return hidden
