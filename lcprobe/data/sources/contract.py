"""The contract of sources: the base class of every entry of SOURCES."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

from lcprobe.data.documents import Document

ConfigT = TypeVar("ConfigT")


class Source(ABC, Generic[ConfigT]):
    """Documents from one place, always in the same order."""

    Config: ClassVar[type]

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

    def is_local(self) -> bool:
        """Whether documents are read without a network."""
        return True

    def notes(self) -> list[str]:
        """What of the source is not read, in one line each: logged when it is prepared."""
        return []
