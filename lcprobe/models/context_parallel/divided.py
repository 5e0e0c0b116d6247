"""Attention over keys and values that are divided over ranks, for contexts whose cache does not fit one device.

Every rank reads the same tokens, and keeps the keys and values of those at rank, rank + size, rank + 2 size ... of
the row. It attends to these, the first rank to the tokens of the pass as well; the ranks' outputs are then merged by
their log-sum-exp, in every rank in the same order, so that all go on with the same numbers. What a rank sends depends
on the number of new tokens, not on the length of the context.

A few tokens are computed by every rank. A longer pass is divided: each rank makes queries, keys and values of its
part of the tokens, all get those of all, attend to their share of the keys, and give each other the outputs of their
parts.
"""

from dataclasses import replace

import torch
from lcprobe_kernels.attention import DocumentNumbers, merge
from torch import Tensor, distributed

from lcprobe.models.kv_cache import AttentionState, Divided, KVCache
from lcprobe.models.positional.contract import Keys
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.token_context import TokenContext


def divided_keys(
    cache: KVCache, past_terms: Tensor | None, k: Tensor, v: Tensor, terms: Tensor | None, where: TokenContext,
    ranks: ContextRanks, soft_cap: float | None,
) -> Keys:  # fmt: skip
    """This rank's cached keys, and those of the pass, k and v, which only the first rank's queries see. past_terms:
    of the cached tokens, where they are cached; terms: of the pass."""
    assert where.starts is None, "documents are not packed while probing"
    if terms is not None and past_terms is not None:
        terms = torch.cat([past_terms.to(terms.dtype), terms], dim=1)
    documents = None
    if ranks.rank:
        own = torch.zeros(k.shape[:2], dtype=torch.int64, device=k.device)
        documents = DocumentNumbers(own, torch.cat([own.new_zeros(len(k), cache.k.shape[1]), own - 1], dim=1))
    k, v = torch.cat([cache.k.to(k.dtype), k], dim=1), torch.cat([cache.v.to(v.dtype), v], dim=1)
    positions = where.once("positions of this rank's keys", lambda: _positions(where, ranks))
    return Keys(k, v, positions, where, terms, documents, consecutive=False, soft_cap=soft_cap)


def whole_pass(
    where: TokenContext, q: Tensor, k: Tensor, v: Tensor, terms: Tensor | None, divided: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Keys, values and terms of all tokens of a pass from those of every rank's part; queries, too, where the cache
    is divided, for each rank to attend to its share of it."""
    assert where.ranks is not None
    assert where.whole is not None
    ranks, n = where.ranks, len(where.whole.positions)
    k, v = ranks.gathered("keys and values", k, n), ranks.gathered("keys and values", v, n)
    terms = None if terms is None else ranks.gathered("terms", terms, n)
    return ranks.gathered("queries", q, n) if divided else q, k, v, terms


def of_part(where: TokenContext, keys: Keys, all_terms: bool) -> Keys:
    """The keys that the queries of this rank's part of a pass see, from those of the whole pass. all_terms: whether
    terms are those of all keys."""
    assert where.ranks is not None
    assert where.whole is not None
    n = len(where.whole.positions)
    lo, hi = where.ranks.shares(n)[where.ranks.rank]
    own, terms = keys.for_queries(lo, hi, n), keys.terms
    if terms is not None:
        terms = terms[:, : own.k.shape[1]] if all_terms else terms[:, lo:hi]
    return replace(own, where=where, terms=terms)


def merged(ranks: ContextRanks, o: Tensor, lse: Tensor, part: bool) -> tuple[Tensor, Tensor]:
    """Attention over the keys of all ranks. o: (batch, seqlen, n_heads, d_v) and lse: (batch, seqlen, n_heads) over
    this rank's. part: of the queries of this rank's part of the pass alone."""
    if part:
        return merge(_of_own_queries(ranks, o, lse))
    each = [[torch.empty_like(t, memory_format=torch.contiguous_format) for _ in range(ranks.size)] for t in (o, lse)]
    for parts, own in zip(each, (o, lse), strict=True):
        distributed.all_gather(parts, own.contiguous(), group=ranks.group)
        ranks.sent["merged"] += own.numel() * own.element_size()
    return merge(list(zip(*each, strict=True)))


def _of_own_queries(ranks: ContextRanks, o: Tensor, lse: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(o, lse) over the keys of each rank, for this rank's part of the queries."""
    shares = ranks.shares(o.shape[1])
    lo, hi = shares[ranks.rank]
    others = [rank for rank in range(ranks.size) if rank != ranks.rank]
    sends = [(r, t[:, shares[r][0] : shares[r][1]].contiguous()) for t in (o, lse) for r in others]
    found = [[t.new_empty(t.shape[0], hi - lo, *t.shape[2:]) for _ in range(ranks.size)] for t in (o, lse)]
    ranks.swap("merged", sends, [(r, parts[r]) for parts in found for r in others])
    for parts, own in zip(found, (o, lse), strict=True):
        parts[ranks.rank] = own[:, lo:hi]
    return list(zip(*found, strict=True))


def next_part(
    ranks: ContextRanks,
    state: AttentionState,
    new: tuple[Tensor, Tensor, Tensor | None],
    conv: Tensor | None,
    where: TokenContext,
    all_terms: bool,
) -> AttentionState:
    """The state with the tokens of a pass that this rank keeps. new: k, v and terms of the pass; all_terms: whether
    terms are cached with the keys."""
    k, v, terms = new
    cache, kept = state.cache.append(*(own_tokens(ranks, t, where) for t in (k, v))), None
    if terms is not None and all_terms:
        kept = own_tokens(ranks, terms, where)
        kept = kept if state.terms is None else torch.cat([state.terms.to(kept.dtype), kept], dim=1)
    return AttentionState(cache, None, kept, conv, divided=Divided(ranks, None if terms is None else terms[:, -1:]))


def own_tokens(ranks: ContextRanks, new: Tensor, where: TokenContext) -> Tensor:
    """Of (batch, seqlen, ...) the tokens that this rank keeps."""
    return new[:, (ranks.rank - _first(where)) % ranks.size :: ranks.size]


def _positions(where: TokenContext, ranks: ContextRanks) -> Tensor:
    first = _first(where)
    positions = where.positions_after(first)
    return torch.cat([positions[:first][ranks.rank :: ranks.size], positions[first:]])


def _first(where: TokenContext) -> int:
    return where.once("first row index", lambda: int(where.row_index[0]))
