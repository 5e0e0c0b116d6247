"""A toy source of documents: sentences that count."""

from collections.abc import Iterator
from dataclasses import dataclass

from lcprobe.data.sources.contract import Source


@dataclass(frozen=True)
class SentencesConfig:
    """How much there is."""

    documents: int = 40
    """Documents of forty sentences each."""


class Sentences(Source[SentencesConfig]):
    """The source."""

    Config = SentencesConfig

    def check(self) -> None:
        """It is always there."""

    def fingerprint(self) -> list[list[str | int]]:
        """How many documents."""
        return [["sentences", self.config.documents]]

    def documents(self, field: str) -> Iterator[str]:
        """One after the other."""
        for i in range(self.config.documents):
            yield " ".join(f"Day {i} had {j} hours of rain and {i + j} hours of sun." for j in range(40))
