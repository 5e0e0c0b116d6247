"""A toy source of documents: sentences that count."""

from collections.abc import Iterator
from dataclasses import dataclass

from lcprobe.data.sources.contract import Source, SourceConfig


@dataclass(frozen=True)
class SentencesConfig(SourceConfig):
    """Settings of the toy source."""

    documents: int = 40
    """Documents of forty sentences each."""


class Sentences(Source[SentencesConfig]):
    """Sentences about rain and sun, in documents of forty."""

    Config = SentencesConfig

    def check(self, field: str) -> None:
        """See Source: the sentences are generated, so that they always exist."""

    def fingerprint(self) -> list[list[str | int]]:
        """See Source: the number of documents decides everything."""
        return [["sentences", self.config.documents]]

    def documents(self, field: str) -> Iterator[str]:
        """See Source."""
        for i in range(self.config.documents):
            yield " ".join(f"Day {i} had {j} hours of rain and {i + j} hours of sun." for j in range(40))
