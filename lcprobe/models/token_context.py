"""TokenContext: positions, documents and declared length of the tokens of one forward pass."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from lcprobe_kernels.attention import DocumentNumbers
from lcprobe_kernels.packed import boundaries_of
from lcprobe_kernels.transfer import sent
from torch import Tensor

from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.ranks.messages import Past

T = TypeVar("T")


@dataclass(frozen=True)
class TokenContext:
    """Built once per forward pass, shared by all layers, immutable.

    positions: (seqlen,) int64, counted from the first token of the sequence over all chunks, or drawn.
    starts: (batch, seqlen) bool or None; True where a token starts a document, which must not see earlier ones.
    boundaries: of the documents of these tokens (`packed.boundaries_of`), and starts_on_host: (batch, n) bool on the
    CPU, starts of these tokens, the last of n, and those before them; where the host knows the documents, so that
    kernels that need their lengths wait for no GPU; else None.
    length: declared length of the whole sequence, for encodings that depend on it.
    doc_start: (batch,) int64, row index at which the document of the incoming state started; None: 0.
    consecutive: positions are consecutive integers; False where they are drawn (randomised positions, PoSE).
    earlier: (n,) int64, drawn positions of the n earlier tokens of the row; None: there are none, or counted ones.
    ranks: those that each sequence is divided over, of which these tokens are one's chunk; None: it is whole.
    whole: the context of all tokens of a pass with a state, of which these are one rank's part; None: they are all,
    or there is no state to continue.
    messages: what ranks have sent each other in this pass, shared with its forks.
    """

    positions: Tensor
    starts: Tensor | None = None
    length: int | None = None
    consecutive: bool = True
    doc_start: Tensor | None = None
    earlier: Tensor | None = None
    ranks: ContextRanks | None = None
    whole: "TokenContext | None" = None
    boundaries: Tensor | None = None
    starts_on_host: Tensor | None = None
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)
    messages: Past = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of_row(
        first: int,
        end: int,
        drawn: Tensor | None,
        starts: Tensor | None,
        length: int | None,
        doc_start: Tensor | None,
        device: torch.device,
    ) -> "TokenContext":
        """The context of tokens first .. end - 1 of rows. drawn: positions of all up to the last of these; None: they
        are counted."""
        if drawn is None:
            return TokenContext(torch.arange(first, end, device=device), starts, length, doc_start=doc_start)
        earlier, these = sent(drawn[:end], device).split([first, end - first])
        return TokenContext(these, starts, length, False, doc_start, earlier)

    def part(self, lo: int, hi: int, ranks: ContextRanks) -> "TokenContext":
        """The context of tokens lo .. hi - 1 of these, one rank's part of a pass of all of them."""
        doc_starts, starts, before = self.doc_starts, self.starts, len(self.positions) - lo
        own = TokenContext(
            self.positions[lo:hi],
            None if starts is None else starts[:, lo:hi],
            self.length,
            self.consecutive,
            self.doc_start if doc_starts is None or not lo else doc_starts[:, lo - 1],
            None if self.consecutive else self.drawn[:-before],
            ranks,
            self,
        )
        return own.known_on_host(self.starts_on_host, hi)

    def known_on_host(self, starts: Tensor | None, end: int) -> "TokenContext":
        """The same context where the host knows the documents. starts: of the row's tokens up to these or beyond, or
        None; end: the number of the row's token after these."""
        if starts is None or self.starts is None:
            return self
        starts = starts[:, :end]
        return replace(self, boundaries=boundaries_of(starts[:, -len(self.positions) :]), starts_on_host=starts)

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

    def positions_after(self, n_past: int) -> Tensor:
        """Positions of the n_past tokens before these, and of these."""
        positions = self.positions
        if not self.consecutive:
            return self.drawn[-n_past - len(positions) :]
        return torch.cat([positions[:1] - torch.arange(n_past, 0, -1, device=positions.device), positions])

    def documents_after(self, batch: int, n_past: int, alive: Tensor | None) -> DocumentNumbers:
        """Document numbers of these tokens, (batch, seqlen) int64, and of the n_past before them and these. alive:
        (batch, n_past) bool, whether a token's document goes on; others get -1."""
        documents = self.documents
        if documents is None:
            documents = torch.zeros(batch, len(self.positions), dtype=torch.int64, device=self.positions.device)
        past = torch.zeros(batch, n_past, dtype=torch.int64, device=documents.device)
        if alive is not None:
            past = past - (~alive).to(torch.int64)
        return DocumentNumbers(documents, torch.cat([past, documents], dim=1), self._boundaries_after(n_past))

    def _boundaries_after(self, n_past: int) -> Tensor | None:
        """Boundaries of the documents of the n_past tokens before these and of these; those of finished documents
        are kept apart."""
        if not n_past:
            return self.boundaries
        known, n = self.starts_on_host, n_past + len(self.positions)
        return None if known is None or known.shape[1] < n else _counted(known, n)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `compute`, a pure function of this context and of `key`, computed by the first layer that
        needs it."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def fork(self) -> "TokenContext":
        """The same context, which knows what layers before have computed `once`, and leaves this one as it is. A
        block that is computed again in the backward pass starts from one both times: compiled for what it finds, it
        would otherwise run another graph, which keeps other tensors."""
        memo = {key: value.fork() if isinstance(value, TokenContext) else value for key, value in self._memo.items()}
        return replace(self, _memo=memo)


@torch.compiler.disable(reason="counts documents on the host")
def _counted(starts: Tensor, n: int) -> Tensor:
    """Boundaries of the last n tokens."""
    return boundaries_of(starts[:, -n:])
