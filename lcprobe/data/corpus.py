"""A corpus: the documents of several sources, in order."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from lcprobe.choices import Choice
from lcprobe.data.documents import Document, is_blank, pieces_of, valid_unicode
from lcprobe.errors import DataError
from lcprobe.files import digest_json


def check_corpus(corpus: Sequence[Choice], field: str) -> None:
    """Raises ConfigError for a source that does not exist, ConfigError or DataError for one whose first rows have no
    text under `field`, and DataError for text that is read twice, as part of two sources."""
    seen: set[str] = set()
    for source in corpus:
        facts = source.create().fingerprint()
        _check_once(source, digest_json(facts), field)
        for fact in facts:
            if digest_json(fact) in seen:
                raise DataError(f"data.corpus: {fact[0]} is part of two sources; allowed: each text once")
        seen |= {digest_json(fact) for fact in facts}


@lru_cache(maxsize=256)
def _check_once(source: Choice, fingerprint: str, field: str) -> None:
    """A plan checks the corpus of every run; files that did not change are looked into once."""
    source.create().check(field)


def fingerprint(corpus: Sequence[Choice]) -> str:
    """Digest of a corpus's sources, without reading documents. Raises ConfigError for one that does not exist."""
    return digest_json([fact for source in corpus for fact in source.create().fingerprint()])


def notes(corpus: Sequence[Choice]) -> list[str]:
    """What of the sources is not read, in one line each."""
    return [note for source in corpus for note in source.create().notes()]


def documents(corpus: Sequence[Choice], field: str, skipped: Callable[[], None] | None = None) -> Iterator[Document]:
    """Every non-empty document of a corpus, as valid Unicode. skipped: called for each empty one.

    Raises DataError for a source that cannot be read.
    """
    for source in corpus:
        for document in source.create().documents(field):
            if not is_blank(document):
                yield valid_unicode(document)
            elif skipped is not None:
                skipped()


def texts(corpus: Sequence[Choice], field: str) -> Iterator[str]:
    """The text of every document, long ones in pieces. Raises as `documents` does."""
    for document in documents(corpus, field):
        yield from pieces_of(document)
