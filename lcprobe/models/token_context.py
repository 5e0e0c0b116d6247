"""TokenContext: positions, documents and declared length of the tokens of one forward pass."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class TokenContext:
    """Built once per forward pass, shared by all layers, immutable.

    positions: (seqlen,) int64, counted from the first token of the sequence over all chunks, or drawn.
    starts: (batch, seqlen) bool or None; True where a token starts a document, which must not see earlier ones.
    length: declared length of the whole sequence, for encodings that depend on it.
    doc_start: (batch,) int64, row index at which the document of the incoming state started; None: 0.
    consecutive: positions are consecutive integers; False where they are drawn (randomised positions, PoSE).
    earlier: (n,) int64, drawn positions of the n earlier tokens of the row; None: there are none, or counted ones.
    """

    positions: Tensor
    starts: Tensor | None = None
    length: int | None = None
    consecutive: bool = True
    doc_start: Tensor | None = None
    earlier: Tensor | None = None
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def documents(self) -> Tensor | None:
        """Document number of each token, (batch, seqlen) int64; 0 is the document that the incoming state belongs
        to."""
        starts = self.starts
        return None if starts is None else self.once("documents", lambda: starts.cumsum(1))

    @property
    def row_index(self) -> Tensor:
        """Index of each token in its row over all chunks, (seqlen,) int64; counted even where positions are drawn."""
        if self.consecutive:
            return self.positions
        first = 0 if self.earlier is None else len(self.earlier)
        return torch.arange(first, first + len(self.positions), device=self.positions.device)

    @property
    def drawn(self) -> Tensor:
        """Drawn positions of all tokens of a row up to the last of these, (n,) int64."""
        return self.positions if self.earlier is None else torch.cat([self.earlier, self.positions])

    @property
    def in_document(self) -> Tensor:
        """Positions relative to the start of each token's document, (1 or batch, seqlen) int64, for encodings that
        are not relative. Where positions are drawn, every document gets those of the row's first tokens."""
        doc_starts = self.doc_starts
        if doc_starts is None:
            return self.positions[None]
        return self.once("in document", lambda: self._in_document(doc_starts))

    def _in_document(self, doc_starts: Tensor) -> Tensor:
        index = self.row_index - doc_starts
        return index if self.consecutive else self.drawn[index]

    @property
    def doc_starts(self) -> Tensor | None:
        """Row index of the first token of each token's document, (batch, seqlen) int64; None: 0 for all."""
        if self.starts is None:
            return None if self.doc_start is None else self.doc_start[:, None].expand(-1, len(self.positions))
        return self.once("doc_starts", self._doc_starts)

    def _doc_starts(self) -> Tensor:
        assert self.starts is not None
        before = torch.zeros_like(self.starts[:, 0], dtype=torch.int64) if self.doc_start is None else self.doc_start
        index = torch.where(self.starts, self.row_index, -1)
        return torch.maximum(index.cummax(1).values, before[:, None])

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `compute`, a pure function of this context and of `key`, computed by the first layer that
        needs it."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]
