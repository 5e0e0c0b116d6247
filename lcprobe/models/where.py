"""Where: what every layer may know about the tokens of one forward pass beside their content."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Where:
    """Made once a forward pass, shared by all layers, never changed.

    positions: (seqlen,) int64, counted from the first token of the sequence, chunks before this one included.
    starts: (batch, seqlen) bool or None; True where a token begins a document that must not see what came before.
    length: the whole sequence's length where it is known in advance, for encodings that depend on it.
    """

    positions: Tensor
    starts: Tensor | None = None
    length: int | None = None
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def documents(self) -> Tensor | None:
        """(batch, seqlen) int64: number of the document of each token, 0 = the one that the incoming state belongs to."""
        starts = self.starts
        return None if starts is None else self.once("documents", lambda: starts.cumsum(1))

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A value that is a pure function of this record, computed by the first layer that asks."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]
