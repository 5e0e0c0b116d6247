"""Messages between the ranks of a sequence as differentiable operations: gradients travel back to the sender.

Every operation takes a tensor `through`, which it returns, and which what follows must depend on: so its backward
pass runs in every rank and at the same place, whether or not the rank has received something.

A block that is computed again in the backward pass (`train.recompute`) gets what it got before, and sends nothing:
ranks would otherwise wait for each other, block by block. What it got is in `Past`; as far as autograd and a compiled
block can see, both times are the same.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lcprobe.models.ranks.context import ContextRanks

Past = dict[tuple[str, nn.Module], list[Tensor]]
"""What was received, and sent, in one pass, by layer."""


@torch.compiler.disable(reason="sends messages")
def received(
    ranks: ContextRanks, through: Tensor, like: Sequence[Tensor], past: Past, layer: nn.Module
) -> tuple[Tensor, list[Tensor]]:
    """through, and the tensors that the rank before has `sent`. like: for their shapes and dtypes; the first rank
    gets these. past: of this pass; layer: whose they are."""
    if not ranks.rank:
        return through, list(like)
    through, *tensors = _Received.apply(ranks, past.get(("received", layer)), through, *like)
    past["received", layer] = [t.detach() for t in tensors]
    return through, tensors


@torch.compiler.disable(reason="sends messages")
def sent(ranks: ContextRanks, through: Tensor, tensors: Sequence[Tensor], past: Past, layer: nn.Module) -> Tensor:
    """through, after sending tensors to the next rank. past, layer: as for `received`."""
    if ranks.rank == ranks.size - 1:
        return through
    again = ("sent", layer) in past
    past["sent", layer] = []
    return _Sent.apply(ranks, again, through, *tensors)


@torch.compiler.disable(reason="sends messages")
def of_earlier_ranks(
    ranks: ContextRanks, through: Tensor, tensors: Sequence[Tensor], reach: int | None = None, name: str = "exchange"
) -> tuple[Tensor, list[Tensor]]:
    """through, and of each of the tensors (batch, seqlen, ...) the tokens of all earlier ranks, (batch, n, ...), n =
    0 in the first. reach: how many tokens before its own a rank gets at most; None: all."""
    through, *past = _OfEarlier.apply(ranks, reach, name, through, *tensors)
    return through, past


class _Received(torch.autograd.Function):
    """(through, templates) -> (through, tensors of the rank before). kept: these, where they were received before."""

    @staticmethod
    def forward(
        ctx: Any, ranks: ContextRanks, kept: list[Tensor] | None, through: Tensor, *templates: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.ranks = ranks
        if kept is not None:
            return through.view_as(through), *(t.view_as(t) for t in kept)
        tensors = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in templates]
        ranks.swap("state", [], [(ranks.rank - 1, t) for t in tensors])
        return through.view_as(through), *tensors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dthrough: Tensor, *dtensors: Tensor) -> tuple[Any, ...]:
        before = ctx.ranks.rank - 1
        ctx.ranks.swap("state, backward", [(before, t.contiguous()) for t in dtensors], [])
        return None, None, dthrough, *(None for _ in dtensors)


class _Sent(torch.autograd.Function):
    """(through, tensors for the next rank) -> through. again: they were sent before, and are not."""

    @staticmethod
    def forward(ctx: Any, ranks: ContextRanks, again: bool, through: Tensor, *tensors: Tensor) -> Tensor:
        ctx.ranks, ctx.shapes = ranks, [(t.shape, t.dtype) for t in tensors]
        ctx.save_for_backward(through.new_empty(0))
        if not again:
            ranks.swap("state", [(ranks.rank + 1, t.contiguous()) for t in tensors], [])
        return through.view_as(through)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dthrough: Tensor) -> tuple[Any, ...]:
        _ = ctx.saved_tensors  # where blocks are computed again, all ranks do so before they wait for gradients
        grads = [dthrough.new_empty(shape, dtype=dtype) for shape, dtype in ctx.shapes]
        ctx.ranks.swap("state, backward", [], [(ctx.ranks.rank + 1, t) for t in grads])
        return None, None, dthrough, *grads


class _OfEarlier(torch.autograd.Function):
    """(through, tensors) -> (through, the tensors' tokens of earlier ranks)."""

    @staticmethod
    def forward(
        ctx: Any, ranks: ContextRanks, reach: int | None, name: str, through: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        n = tensors[0].shape[1]
        # tokens that a rank gets of the one so many ranks before it
        counts = [0, *(n if reach is None else min(max(reach - back * n, 0), n) for back in range(ranks.size))]
        ctx.ranks, ctx.name, ctx.counts = ranks, name, counts
        ctx.like = [(t.shape, t.dtype) for t in tensors]
        earlier, later = range(ranks.rank), range(ranks.rank + 1, ranks.size)
        sends = [(r, t[:, n - counts[r - ranks.rank] :].contiguous()) for t in tensors for r in later]
        past = [[_tokens(t, counts[ranks.rank - r]) for r in earlier] for t in tensors]
        ranks.swap(name, sends, [(r, buffer) for buffers in past for r, buffer in enumerate(buffers)])
        joined = (torch.cat(parts, dim=1) if parts else _tokens(t, 0) for parts, t in zip(past, tensors, strict=True))
        return through.view_as(through), *joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dthrough: Tensor, *dpast: Tensor) -> tuple[Any, ...]:
        ranks, counts = ctx.ranks, ctx.counts
        earlier, later = range(ranks.rank), range(ranks.rank + 1, ranks.size)
        sizes = [counts[ranks.rank - r] for r in earlier]
        sends = [
            (r, part.contiguous()) for t in dpast for r, part in enumerate(t.split(sizes, dim=1) if sizes else ())
        ]
        received = [
            [dthrough.new_empty((shape[0], counts[r - ranks.rank], *shape[2:]), dtype=dtype) for r in later]
            for shape, dtype in ctx.like
        ]
        messages = [(r, t) for buffers in received for r, t in zip(later, buffers, strict=True)]
        ranks.swap(f"{ctx.name}, backward", sends, messages)
        grads = []
        for (shape, dtype), buffers in zip(ctx.like, received, strict=True):
            total = dthrough.new_zeros(shape, dtype=torch.promote_types(dtype, torch.float32))
            for buffer in buffers:  # in the order of ranks: the same sum every time
                total[:, shape[1] - buffer.shape[1] :] += buffer
            grads.append(total.to(dtype))
        return None, None, None, dthrough, *grads


def _tokens(like: Tensor, n: int) -> Tensor:
    """An empty buffer for n tokens, (batch, n, ...)."""
    return like.new_empty((like.shape[0], n, *like.shape[2:]))
