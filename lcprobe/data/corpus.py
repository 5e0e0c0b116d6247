"""A corpus: the documents of several sources, in order."""

from collections.abc import Iterator, Sequence

from lcprobe.choices import Choice
from lcprobe.files import digest_json


def check_corpus(corpus: Sequence[Choice]) -> None:
    """Raises ConfigError for a source that does not exist."""
    for source in corpus:
        source.create().check()


def fingerprint(corpus: Sequence[Choice]) -> str:
    """Digest of a corpus's sources, without reading documents. Raises ConfigError as `check_corpus` does."""
    return digest_json([fact for source in corpus for fact in source.create().fingerprint()])


def documents(corpus: Sequence[Choice], field: str) -> Iterator[str]:
    """Every non-empty document of a corpus. Raises DataError for a source that cannot be read."""
    for source in corpus:
        yield from source.create().documents(field)
