"""Linear recurrences with a diagonal decay, divided over ranks without waiting.

    h_t = a_t h_{t-1} + b_t       so after a chunk       h = (product of its a) h_0 + (h from zero)

Each rank runs its chunk from zero, sends the state and the total decay that it ends with to all later ranks, folds
those of the earlier ones into its own h_0, and adds to its outputs what h_0 adds to them: h_0 decayed to each token,
read like the state. That is one product per token beside the several of the scan, which is not run again; messages
have the size of a state, whatever the length.
"""

import torch
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from lcprobe_kernels.linear_recurrence import linear_recurrence
from lcprobe_kernels.ssd import ssd
from lcprobe_kernels.ssd.reference import step_size
from torch import Tensor
from torch.nn import functional as F

from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.ranks.messages import of_earlier_ranks
from lcprobe.models.token_context import TokenContext


def inputs_before(x: Tensor, n: int, where: TokenContext, known: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """x (batch, seqlen, channels), and the n inputs before its first token that belong to the same document, (batch,
    n, channels), zeros in place of others: `known`, from a state, or else those of earlier ranks; None: zeros."""
    ranks = where.ranks
    if known is not None or ranks is None:
        return x, known
    x, (past,) = of_earlier_ranks(ranks, x, [x], n, "inputs")
    missing, doc_start = n - past.shape[1], where.doc_start
    if doc_start is not None:
        index = where.row_index[0] - torch.arange(past.shape[1], 0, -1, device=x.device)
        past = past.where((index >= doc_start[:, None])[..., None], torch.zeros((), dtype=x.dtype, device=x.device))
    return x, F.pad(past, (0, 0, missing, 0))


def ssd_over(
    ranks: ContextRanks,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    starts: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """y of `lcprobe_kernels.ssd.ssd` for this rank's chunk. Arguments are those of it, of the chunk."""
    options = {"dt_limit": dt_limit, "starts": starts, "chunk_size": chunk_size, "return_state": True}
    y, last = ssd(x, dt, A, B, C, D, dt_bias, **options)
    assert last is not None
    with torch.autocast(x.device.type, enabled=False):
        bias = None if dt_bias is None else dt_bias.to(last.dtype)
        log = _decays(step_size(dt.to(last.dtype), bias, dt_limit) * A.to(last.dtype), starts)
        y, state = _state_before(ranks, y, last, log[:, -1, :, None, None])
        if state is None:
            return y
        groups = state.unflatten(1, (B.shape[2], -1)).flatten(
            2, 3
        )  # (batch, n_groups, heads of one x head_dim, d_state)
        read = (C.to(last.dtype).transpose(1, 2) @ groups.mT).transpose(1, 2).reshape(x.shape)
        return y + (log.exp()[..., None] * read).to(y.dtype)


def linear_recurrence_over(ranks: ContextRanks, log_a: Tensor, b: Tensor, *, starts: Tensor | None = None) -> Tensor:
    """h of `lcprobe_kernels.linear_recurrence.linear_recurrence` for this rank's chunk."""
    h, last = linear_recurrence(log_a, b, starts=starts, return_state=True)
    assert last is not None
    log = _decays(log_a.to(last.dtype), starts)
    h, state = _state_before(ranks, h, last, log[:, -1])
    return h if state is None else h + (log.exp() * state[:, None]).to(h.dtype)


def gated_linear_attention_over(
    ranks: ContextRanks,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    starts: Tensor | None = None,
    boundaries: Tensor | None = None,
    chunk_size: int = 64,
) -> Tensor:
    """o of `lcprobe_kernels.gated_linear_attention.gated_linear_attention` for this rank's chunk, without a
    correction of the state (bonus, beta, erase, a and b)."""
    options = {"starts": starts, "boundaries": boundaries, "chunk_size": chunk_size, "return_state": True}
    o, last = gated_linear_attention(q, k, v, log_decay, **options)
    assert last is not None
    with torch.autocast(q.device.type, enabled=False):
        log = _decays(log_decay.to(last.dtype), starts)
        o, state = _state_before(ranks, o, last, log[:, -1, :, :, None])
        if state is None:
            return o
        decayed = q.to(last.dtype) * log.exp() * q.shape[3] ** -0.5
        return o + (decayed.transpose(1, 2) @ state).transpose(1, 2).to(o.dtype)


def _decays(log_a: Tensor, starts: Tensor | None) -> Tensor:
    """The sum of log decays from the chunk's first token on, -inf from the first start of a document on: (batch,
    seqlen, ...)."""
    total = log_a.cumsum(1)
    if starts is None:
        return total
    ended = (starts.cumsum(1) > 0).view(*starts.shape, *[1] * (log_a.dim() - 2))
    return total.masked_fill(ended, float("-inf"))


def _state_before(
    ranks: ContextRanks, through: Tensor, last: Tensor, log_total: Tensor
) -> tuple[Tensor, Tensor | None]:
    """through, and the state before the chunk, None in the first rank. last: the state after it from zero, (batch,
    ...); log_total: the logarithm of its total decay, which broadcasts to that."""
    through, (states, decays) = of_earlier_ranks(ranks, through, [last[:, None], log_total[:, None]], name="states")
    if not ranks.rank:
        return through, None
    state = states[:, 0]
    for r in range(1, ranks.rank):
        state = decays[:, r].exp() * state + states[:, r]
    return through, state
