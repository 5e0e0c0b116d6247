"""The contract of sources: the base class of every entry of SOURCES."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

ConfigT = TypeVar("ConfigT")


class Source(ABC, Generic[ConfigT]):
    """Documents from one place, always in the same order."""

    Config: ClassVar[type]

    def __init__(self, config: ConfigT):
        self.config = config

    @abstractmethod
    def check(self) -> None:
        """Raises ConfigError where the source does not exist. Reads no document, and is called before anything is
        written."""

    @abstractmethod
    def fingerprint(self) -> list[list[str | int]]:
        """Facts that change when the documents may have changed: names, sizes and times of files, versions of
        packages."""

    @abstractmethod
    def documents(self, field: str) -> Iterator[str]:
        """Every non-empty document. field: name of the field with the text of a row. Raises DataError for what cannot
        be read."""


def non_empty(text: str) -> Iterator[str]:
    """The text, unless it is blank."""
    if text.strip():
        yield text
