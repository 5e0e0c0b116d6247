"""Ways of computing the same logits: chunks, single tokens, forks, packed documents, padded batches; and gradients.

Each check compares with full forward passes of every sequence alone and returns the largest difference, divided by
the largest of their logits; for gradients, norms of differences over norms, per parameter.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

VOCAB, SEQLEN = 50, 41
EDGES = ((0, 1, 2, 9, 30, 41), (0, 20, 41), (0, 8, 16, 24, 32, 40, 41), (0, 3, 37, 41))
"""Chunkings of a sequence: where chunks begin, and its end."""
DOCUMENTS = (0, 1, 9, 30, 41)
"""Where packed documents begin, and the end of their row."""
LENGTHS, MORE = (36, 35, 19, 6), 5
"""Tokens of the prompts in a padded batch, and of what follows each."""
RELEVANT = 0.01
"""Least norm of a parameter's gradient, relative to that of the whole, that differences are divided by."""
Side = Literal["right", "left"]


class Subject(Protocol):
    """A model under test. Tokens are (batch, n) int64, logits (batch, n, vocab)."""

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits of whole sequences."""
        ...

    def packed(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """Logits of rows of several documents. starts: (batch, n) bool, True where a document begins."""
        ...

    def new_state(self, batch: int) -> Any:
        """The state before the first token."""
        ...

    def advance(self, tokens: Tensor, state: Any, starts: Tensor | None = None) -> tuple[Tensor, Any]:
        """Logits of further tokens, and the state after them; `state` is not used again. starts: see `packed`."""
        ...

    def fork(self, state: Any, n: int) -> Any:
        """Every row n times, (a, b) -> (a, a, b, b). `state` stays as it is."""
        ...

    def rows(self, state: Any, index: Tensor) -> Any:
        """The rows at `index`, (n,) int64. `state` stays as it is."""
        ...

    def padded(self, prompts: Sequence[Tensor], more: Tensor, side: Side) -> list[Tensor]:
        """Prompts (n_i,) of unequal lengths, read in one batch, and continued one token at a time by the rows of
        more, (batch, m): logits (n_i + m, vocab) of each."""
        ...

    def parameters(self) -> list[Tensor]:
        """What the logits have gradients of."""
        ...


def random_tokens(seed: int, batch: int, n: int = SEQLEN) -> Tensor:
    """Token ids, (batch, n)."""
    return torch.randint(2, VOCAB, (batch, n), generator=torch.Generator().manual_seed(seed))


def starts_of(edges: Sequence[int]) -> Tensor:
    """(1, n) bool from where documents begin, and the end of the row. The first one begins there anyway."""
    starts = torch.zeros(1, edges[-1], dtype=torch.bool)
    starts[0, list(edges[1:-1])] = True
    return starts


def spans(edges: Sequence[int]) -> Iterable[tuple[int, int]]:
    """(first, after last) between neighbouring edges."""
    return zip(edges, edges[1:], strict=False)


class WrongShape(Exception):
    """Logits of another shape than the tokens have."""


def difference(found: Tensor, full: Tensor) -> float:
    """The largest difference from logits, relative to the largest of these; nan as inf. Raises WrongShape."""
    if found.shape != full.shape:
        raise WrongShape(f"{tuple(found.shape)} instead of {tuple(full.shape)}")
    return _finite((found - full).abs().max() / full.abs().max())


def _finite(apart: Tensor) -> float:
    return float(apart) if bool(apart.isfinite()) else float("inf")


@torch.no_grad()
def chunked(subject: Subject, tokens: Tensor, edges: Sequence[int], starts: Tensor | None = None) -> float:
    """One sequence per row in chunks, each continuing from the state after the one before. starts: of documents."""
    full = subject.logits(tokens) if starts is None else subject.packed(tokens, starts)
    state, parts = subject.new_state(len(tokens)), []
    for lo, hi in spans(edges):
        own = None if starts is None or not starts[:, lo:hi].any() else starts[:, lo:hi]
        part, state = subject.advance(tokens[:, lo:hi], state, own)
        parts.append(part)
    return difference(torch.cat(parts, 1), full)


def any_chunking(subject: Subject) -> float:
    """Several chunkings, of chunks of one token and more."""
    return max(chunked(subject, random_tokens(0, 3), edges) for edges in EDGES)


def token_by_token(subject: Subject) -> float:
    """One token at a time, from the first token, and after half of the sequence is read at once."""
    single = list(range(SEQLEN + 1))
    return max(chunked(subject, random_tokens(1, 3), edges) for edges in (single, [0, *single[SEQLEN // 2 :]]))


@torch.no_grad()
def fork_and_rows(subject: Subject, at_once: int = 1) -> float:
    """Two prompts, each continued in three ways from one state; then in rows chosen from it; then the two alone.
    at_once: tokens per call."""
    prompts, n = random_tokens(2, 2), 3
    _, state = subject.advance(prompts, subject.new_state(2))
    every = torch.arange(2).repeat_interleave(n)
    some = torch.tensor([1, 0, 1])
    found = [
        _continued(subject, prompts[every], random_tokens(3, 2 * n, MORE), subject.fork(state, n), at_once),
        _continued(subject, prompts[some], random_tokens(4, 3, MORE), subject.rows(state, some), at_once),
        _continued(subject, prompts[1:], random_tokens(5, 1, MORE), subject.rows(state, torch.tensor([1])), at_once),
        _continued(subject, prompts, random_tokens(6, 2, MORE), state, at_once),
    ]
    return max(found)


def _continued(subject: Subject, prompts: Tensor, more: Tensor, state: Any, at_once: int) -> float:
    parts = []
    for t in range(0, more.shape[1], at_once):
        part, state = subject.advance(more[:, t : t + at_once], state)
        parts.append(part)
    return difference(torch.cat(parts, 1), subject.logits(torch.cat([prompts, more], 1))[:, prompts.shape[1] :])


@torch.no_grad()
def packed_documents(subject: Subject, edges: Sequence[int] = DOCUMENTS) -> float:
    """Documents packed in a row, and each alone."""
    tokens = random_tokens(7, 1, edges[-1])
    alone = torch.cat([subject.logits(tokens[:, lo:hi]) for lo, hi in spans(edges)], 1)
    return difference(subject.packed(tokens, starts_of(edges)), alone)


def packed_gradients(subject: Subject, edges: Sequence[int] = DOCUMENTS) -> float:
    """Gradients of all parameters for a random gradient of the logits of packed documents, and of each alone: the
    norm of their difference over the gradient's, for the parameter where it is largest. Parameters whose gradients
    cancel are taken relative to RELEVANT of the whole."""
    tokens, parameters = random_tokens(8, 1, edges[-1]), subject.parameters()
    packed = subject.packed(tokens, starts_of(edges))
    cotangent = torch.randn(packed.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    cotangent = cotangent.to(packed.dtype)
    found = _gradients(packed, parameters, cotangent)
    each = [_gradients(subject.logits(tokens[:, lo:hi]), parameters, cotangent[:, lo:hi]) for lo, hi in spans(edges)]
    alone = [torch.stack(parts).sum(0) for parts in zip(*each, strict=True)]
    floor = RELEVANT * torch.stack([want.norm() for want in alone]).norm()
    apart = [(one - want).norm() / want.norm().maximum(floor) for one, want in zip(found, alone, strict=True)]
    return _finite(torch.stack(apart).max())


def _gradients(logits: Tensor, parameters: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    grads = torch.autograd.grad(logits, parameters, cotangent, allow_unused=True)
    return [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, grads, strict=True)]


@torch.no_grad()
def padded_batch(subject: Subject, side: Side, lengths: Sequence[int] = LENGTHS) -> float:
    """Prompts of unequal lengths in one batch, and what follows them; and each row alone."""
    prompts = [random_tokens(9 + row, 1, n)[0] for row, n in enumerate(lengths)]
    more = random_tokens(20, len(prompts), MORE)
    apart = []
    for row, found in enumerate(subject.padded(prompts, more, side)):
        apart.append(difference(found, subject.logits(torch.cat([prompts[row], more[row]])[None])[0]))
    return max(apart)


COLUMNS: dict[str, Callable[[Subject], float]] = {
    "any chunking": any_chunking,
    "token by token": token_by_token,
    "fork and rows": fork_and_rows,
    "packed documents": packed_documents,
    "gradients of packed": packed_gradients,
    "right-padded": lambda subject: padded_batch(subject, "right"),
    "left-padded": lambda subject: padded_batch(subject, "left"),
}
"""By the heading of the column."""
