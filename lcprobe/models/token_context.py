"""Where: what every layer may know about the tokens of one forward pass beside their content."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenContext:
    """Made once a forward pass, shared by all layers, never changed.

    positions: (seqlen,) int64, counted from the first token of the sequence, chunks before this one included, or drawn.
    starts: (batch, seqlen) bool or None; True where a token begins a document that must not see what came before.
    length: the whole sequence's length where it is declared in advance, for encodings that depend on it.
    doc_start: (batch,) int64, places at which the documents began that the incoming state belongs to; None: at 0.
    consecutive: positions are neighbours; not so where they are drawn (randomised positions, PoSE).
    earlier: (n,) int64, drawn positions of all n tokens of the row before these; None: none, or counted ones.
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
        """(batch, seqlen) int64: number of the document of each token, 0 = the one that the incoming state belongs to."""
        starts = self.starts
        return None if starts is None else self.once("documents", lambda: starts.cumsum(1))

    @property
    def row_index(self) -> Tensor:
        """(seqlen,) int64: tokens before each in its row, chunks before this one included; not drawn, as positions may be."""
        if self.consecutive:
            return self.positions
        first = 0 if self.earlier is None else len(self.earlier)
        return torch.arange(first, first + len(self.positions), device=self.positions.device)

    @property
    def drawn(self) -> Tensor:
        """(n,) int64: positions of all tokens of a row up to the last of these, where they are drawn."""
        return self.positions if self.earlier is None else torch.cat([self.earlier, self.positions])

    @property
    def in_document(self) -> Tensor:
        """(1 or batch, seqlen) int64: positions as they would be if each token's document stood at the beginning of the row: what
        encodings read for which more than the distance counts. Drawn ones are those of the row's first tokens."""
        begins = self.doc_starts
        if begins is None:
            return self.positions[None]
        return self.once("in document", lambda: self._in_document(begins))

    def _in_document(self, begins: Tensor) -> Tensor:
        places = self.row_index - begins
        return places if self.consecutive else self.drawn[places]

    @property
    def doc_starts(self) -> Tensor | None:
        """(batch, seqlen) int64: place of the first token of each token's document; None: 0 for all."""
        if self.starts is None:
            return None if self.doc_start is None else self.doc_start[:, None].expand(-1, len(self.positions))
        return self.once("doc_starts", self._doc_starts)

    def _doc_starts(self) -> Tensor:
        assert self.starts is not None
        before = torch.zeros_like(self.starts[:, 0], dtype=torch.int64) if self.doc_start is None else self.doc_start
        places = torch.where(self.starts, self.row_index, -1)
        return torch.maximum(places.cummax(1).values, before[:, None])

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A value that is a pure function of this record, computed by the first layer that asks."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]
