"""Keys, values and token terms of a sequence that is divided over ranks: each gets those of earlier ranks that its
queries see, so that attention over them is attention over a chunk after a cache."""

import torch
from torch import Tensor

from lcprobe.models.positional.contract import PositionalEncoding
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.ranks.messages import of_earlier_ranks, received, sent
from lcprobe.models.token_context import TokenContext


def terms_over(
    ranks: ContextRanks | None, encoding: PositionalEncoding, x: Tensor, where: TokenContext, last: Tensor | None
) -> Tensor | None:
    """`encoding.token_terms` of x (batch, seqlen, d_model), all tokens of a pass or this rank's chunk of them. Each
    rank waits for the last token's of the rank before, which running sums continue; the first has `last`, (batch,
    width)."""
    width = encoding.term_width(encoding.config, encoding.shape)
    if not width or ranks is None:
        return encoding.token_terms(x, where, last)
    dtype = torch.float64 if encoding.term_bytes == 8 else torch.promote_types(x.dtype, torch.float32)
    first = x.new_zeros(x.shape[0], width, dtype=dtype) if last is None else last.to(dtype)
    x, (last,) = received(ranks, x, [first], where.messages, encoding)
    terms = encoding.token_terms(x, where, last)
    return terms if terms is None else sent(ranks, terms, [terms[:, -1].to(dtype)], where.messages, encoding)


def with_earlier_ranks(
    ranks: ContextRanks, q: Tensor, own: list[Tensor], reach: int | None
) -> tuple[Tensor, list[Tensor]]:
    """q, and keys, values and terms behind those of earlier ranks. own: those of the chunk, (batch, seqlen, ...)
    each; reach: how many tokens before the chunk its queries see, None: all."""
    q, past = of_earlier_ranks(ranks, q, own, reach, "keys and values")
    return q, [torch.cat(both, dim=1) for both in zip(past, own, strict=True)]


def alive(where: TokenContext, n_past: int) -> Tensor | None:
    """Which of the n_past tokens before the chunk belong to the document that its first token continues, (batch,
    n_past) bool; None: all of them."""
    doc_start = where.doc_start
    if doc_start is None:
        return None

    def of_document() -> Tensor:
        index = where.row_index[0] - torch.arange(n_past, 0, -1, device=doc_start.device)
        return index >= doc_start[:, None]

    return where.once(("alive", n_past), of_document)
