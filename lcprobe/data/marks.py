"""Where reading of a corpus is: all that has to be known to go on from there, as JSON.

Tuples, because two are made for every document, and a frozen dataclass takes several times as long to make.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lcprobe.files import digest_bytes


class SourceMark(NamedTuple):
    """Where reading of one source is. place: after its latest document. epoch: how often it began again. ended:
    whether its end was reached. chars: of its documents that are trained on."""

    place: tuple[Any, ...] = ()
    epoch: int = 0
    ended: bool = False
    chars: int = 0


class Mark(NamedTuple):
    """Between two documents. read: documents so far, of which `held_out` are; empty: rows without text before the
    latest of them; digest: of the corpus up to here."""

    sources: tuple[SourceMark, ...]
    read: int = 0
    held_out: int = 0
    empty: int = 0
    digest: str = digest_bytes()

    def with_source(self, number: int, source: SourceMark) -> "Mark":
        """Where one source is elsewhere."""
        return self._replace(sources=(*self.sources[:number], source, *self.sources[number + 1 :]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        sources = [[list(one.place), one.epoch, one.ended, one.chars] for one in self.sources]
        return {**self._asdict(), "sources": sources}


def mark_from_json(value: Mapping[str, Any]) -> Mark:
    """The mark that `to_json` made plain."""
    sources = tuple(SourceMark(tuple(place), *rest) for place, *rest in value["sources"])
    return Mark(**{**value, "sources": sources})
