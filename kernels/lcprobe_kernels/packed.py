"""Packed documents: where they start, and which tokens a token can affect.

Ops use `starts` (batch, seqlen), True at a document's first token; callers may pass `cu_seqlens`, the cumulative
lengths of other libraries' kernels, instead.

Those kernels want as many cumulative lengths as there are documents, a number that the host must know. Whoever
knows the documents on the host passes `boundaries` beside `starts`; without them a GPU is waited for, to count. Their
number differs from batch to batch, and is not padded to a common one: registered ops take them, so that to
torch.compile they are one dimension of any size, and not all versions of these packages expect documents without a
token.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from lcprobe_kernels.errors import ArgumentError, check_tensor
from lcprobe_kernels.known_on_host import KnownOnHost
from lcprobe_kernels.transfer import sent


def resolve_starts(
    op: str, x: Tensor, starts: Tensor | None, cu_seqlens: Tensor | None, initial_state: Tensor | None
) -> Tensor | None:
    """The document starts of an op that was called with either form, or neither, for x (batch, seqlen, ...).

    Raises ArgumentError for both forms at once, for cu_seqlens with an initial state (which no document would see:
    `starts` can leave a row's first token in the document before it), and as `starts_of` does. starts, and x, are the
    op's to check.
    """
    if cu_seqlens is None:
        return starts
    if starts is not None:
        raise ArgumentError(f"{op}: starts, cu_seqlens", "both", "one of them, or none")
    if initial_state is not None:
        raise ArgumentError(
            f"{op}: cu_seqlens",
            "with an initial state",
            "no initial state (every document starts from zeros), or starts",
        )
    if not isinstance(x, Tensor) or x.dim() < 2:
        return None
    check_tensor(op, "cu_seqlens", cu_seqlens)
    if cu_seqlens.device != x.device:
        raise ArgumentError(f"{op}: cu_seqlens", f"on {cu_seqlens.device}", f"on {x.device}, as the input is")
    return starts_of(cu_seqlens, *x.shape[:2])


def starts_of(cu_seqlens: Tensor, batch: int, seqlen: int) -> Tensor:
    """(n_documents + 1,) cumulative lengths over the flattened (batch, seqlen), int32 or int64 -> starts (batch,
    seqlen) bool.

    Raises ArgumentError unless cu_seqlens rises from 0 to batch * seqlen and no document crosses the end of a row.
    Looking at the values waits for a GPU.
    """
    check_tensor("starts_of", "cu_seqlens", cu_seqlens)
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        given = f"{cu_seqlens.dtype} of shape {tuple(cu_seqlens.shape)}"
        raise ArgumentError("cu_seqlens", given, "int32 or int64 (n_documents + 1,)")
    return _starts(cu_seqlens, batch, seqlen)


@torch.library.custom_op("lcprobe::starts_of", mutates_args=())
def _starts(cu_seqlens: Tensor, batch: int, seqlen: int) -> Tensor:
    """A custom op, so that torch.compile does not trace the values."""
    total = batch * seqlen
    ends = (int(cu_seqlens[0]), int(cu_seqlens[-1]))
    if ends != (0, total):
        raise ArgumentError(
            "cu_seqlens", f"lengths from {ends[0]} to {ends[1]}", f"from 0 to {total}, {batch} rows of {seqlen}"
        )
    falls = (cu_seqlens.diff() < 1).nonzero()[:, 0]
    if len(falls):
        pair = cu_seqlens[int(falls[0]) : int(falls[0]) + 2].tolist()
        raise ArgumentError("cu_seqlens", f"{pair[1]} after {pair[0]}", "increasing lengths")
    starts = torch.zeros(total, dtype=torch.bool, device=cu_seqlens.device)
    starts[cu_seqlens[:-1].long()] = True
    starts = starts.view(batch, seqlen)
    crossed = (~starts[:, 0]).nonzero()[:, 0]
    if len(crossed):
        border = int(crossed[0]) * seqlen
        index = int(torch.searchsorted(cu_seqlens, border))
        low, high = cu_seqlens[index - 1 : index + 1].tolist()
        raise ArgumentError(
            "cu_seqlens", f"a document from {low} to {high}", f"documents inside one row; a row ends at {border}"
        )
    return starts


@_starts.register_fake
def _(cu_seqlens, batch, seqlen):
    return torch.empty((batch, seqlen), dtype=torch.bool, device=cu_seqlens.device)


def reached(marked: Tensor, starts: Tensor | None, before: Tensor | None = None) -> Tensor:
    """The tokens at or after a marked token of their document, with the shape of `marked` (batch, seqlen, ...) bool.

    starts: the first dimensions of `marked`, True where a document begins. before: `marked` without seqlen, what
    stands ahead of the first token and counts until a document begins.
    """
    token = torch.arange(marked.shape[1], device=marked.device).view(-1, *(1,) * (marked.dim() - 2))
    last = token.where(marked, -2).cummax(1).values
    if before is not None:
        last = torch.where(before[:, None], last.clamp_min(-1), last)
    if starts is None:
        return last > -2
    starts = starts.view(*starts.shape, *(1,) * (marked.dim() - starts.dim()))
    return last >= token.where(starts, -1).cummax(1).values


def boundaries_of(starts: Tensor) -> Tensor:
    """starts (batch, seqlen) bool, on the CPU -> boundaries: (n_documents + 1,) int32, the cumulative lengths of the
    documents of all rows, of which one begins with every row."""
    begins = starts.clone()
    begins[:, 0] = True
    return F.pad(begins.flatten().nonzero()[:, 0], (0, 1), value=starts.numel()).int()


@torch.compiler.disable(reason="counts documents on the host")
def boundaries_up_to(boundaries: Tensor, length: int, end: int) -> Tensor:
    """The boundaries of the first `end` tokens of every row, of rows of `length` tokens."""
    row, at = boundaries[:-1] // length, boundaries[:-1] % length
    total = int(boundaries[-1]) // length * end
    return F.pad((row * end + at)[at < end], (0, 1), value=total)


def check_boundaries(op: str, boundaries: Tensor | None) -> None:
    """Raises ArgumentError for anything but boundaries on the CPU, or None."""
    if boundaries is None:
        return
    check_tensor(op, "boundaries", boundaries)
    if boundaries.device.type != "cpu" or boundaries.dtype != torch.int32 or boundaries.dim() != 1:
        given = f"{boundaries.dtype} of shape {tuple(boundaries.shape)} on {boundaries.device}"
        raise ArgumentError(f"{op}: boundaries", given, "int32 (n_documents + 1,) on the CPU")


class Documents(NamedTuple):
    """The documents of all rows in one, as other libraries' kernels expect them. first, last: (batch,) the document
    that begins each row, and the one that ends it."""

    cu_seqlens: Tensor
    first: Tensor
    last: Tensor


_documents: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def documents_of(starts: Tensor, boundaries: Tensor | None = None) -> Documents:
    """starts (batch, seqlen) bool -> documents, of which one begins with every row.

    boundaries: theirs, or those of rows of tokens that have the same number of places in `starts` each; they are made
    into documents once for all layers. None: a GPU is waited for.
    """
    if boundaries is not None:
        known: dict[Any, Documents] = _documents.setdefault(boundaries, {})  # pyright: ignore[reportAssignmentType]
        key = starts.shape, starts.device
        if key not in known:
            known[key] = _known_documents(boundaries, starts.shape[0], starts.shape[1], starts.device)
        return known[key]
    begins = starts.clone()
    begins[:, 0] = True
    cu_seqlens = F.pad(begins.flatten().nonzero()[:, 0], (0, 1), value=starts.numel())
    last = begins.sum(1).cumsum(0) - 1
    return Documents(cu_seqlens, F.pad(last[:-1] + 1, (1, 0)), last)


def _known_documents(boundaries: Tensor, batch: int, seqlen: int, device: torch.device) -> Documents:
    tokens = int(boundaries[-1])
    if batch * seqlen % max(tokens, 1):
        raise ArgumentError(
            "boundaries", f"up to {tokens}", f"a divisor of {batch * seqlen}, {batch} rows of {seqlen}"
        )
    ends = boundaries.long() * (batch * seqlen // max(tokens, 1))
    first = torch.searchsorted(ends, torch.arange(batch) * seqlen)
    last = F.pad(first[1:], (0, 1), value=len(ends) - 1) - 1
    return Documents(KnownOnHost.of(ends, device), sent(first, device), sent(last, device))
