"""The contract of sources: the base class of every entry of SOURCES."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

from lcprobe.data.documents import Document
from lcprobe.errors import require

Place = list[Any]
"""Where in a source reading goes on, as JSON: [] is its beginning. Only the source knows what is in it."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What every source may be given."""

    weight: float | None = None
    """Share of the training tokens that come from this source, relative to the weights of the others; null, in all of
    them: sources are read whole, one after the other."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a weight that is not above 0."""
        require(f"{at}.weight", self.weight, self.weight is None or self.weight > 0, "> 0 or null")


ConfigT = TypeVar("ConfigT", bound=SourceConfig)


class Source(ABC, Generic[ConfigT]):
    """Documents from one place, always in the same order."""

    Config: ClassVar[type[SourceConfig]]

    def __init__(self, config: ConfigT):
        self.config = config

    @abstractmethod
    def check(self, field: str) -> None:
        """Raises ConfigError where the source does not exist, and ConfigError or DataError where its first rows have
        no text under `field`. Reads little, and is called before anything is written."""

    @abstractmethod
    def fingerprint(self) -> list[list[str | int]]:
        """Facts that change when the documents may have changed: names, sizes and times of files, versions of
        packages."""

    @abstractmethod
    def documents(self, field: str) -> Iterator[Document]:
        """Every document; a row without text is an empty one. field: name of the field with the text of a row. Raises
        DataError for what cannot be read."""

    def documents_from(self, field: str, place: Place) -> Iterator[Document]:
        """`documents` from a place on. The list is kept at the place after the latest document."""
        done = place[0] if place else 0
        for number, document in enumerate(islice(self.documents(field), done, None), done + 1):
            place[:] = [number]
            yield document

    def share_read(self) -> float | None:
        """How much of the source `documents_from` has read so far, 0 to 1, where that is known."""
        return None

    def size(self) -> int | None:
        """Bytes of the source, where they are known."""
        return None

    def version(self) -> str:
        """What tells today's documents from others under the same `fingerprint`: for a data set on the hub, its
        commit. "" where the fingerprint says all."""
        return ""

    def is_local(self) -> bool:
        """Whether documents are read without a network."""
        return True

    def notes(self) -> list[str]:
        """What of the source is not read, in one line each: logged when it is prepared."""
        return []
