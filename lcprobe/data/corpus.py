"""A corpus: the documents of several sources, in order."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from lcprobe.choices import Choice
from lcprobe.data.documents import Document, is_blank, pieces_of, valid_unicode
from lcprobe.errors import EpisodeError
from lcprobe.files import digest_json
from lcprobe.tasks.text.haystack import require_word_starts
from lcprobe.tasks.text.tokenizer import Tokenizer

SOME_WORDS = 64
"""Words that are encoded at once."""


def check_corpus(corpus: Sequence[Choice], field: str) -> None:
    """Raises ConfigError for a source that does not exist, and ConfigError or DataError for one whose first rows have
    no text under `field`."""
    for source in corpus:
        _check_once(source, digest_json(source.create().fingerprint()), field)


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


def check_words(corpus: Sequence[Choice], field: str, tokenizer: Tokenizer, chars: int) -> None:
    """Raises EpisodeError where no word of the first `chars` characters of a corpus begins with a token of a space
    and what follows it: haystacks could not be cut. Reads up to the first such word, and nothing from a network."""
    require_word_starts(tokenizer)
    read, local = 0, [source for source in corpus if source.create().is_local()]
    for text in texts(local, field):
        words = [" " + word for word in dict.fromkeys(text[: chars - read].split(" ")[1:]) if word]
        for i in range(0, len(words), SOME_WORDS):
            if any(tokenizer.opens_word[ids].any() for ids in tokenizer.encode_batch(words[i : i + SOME_WORDS])):
                return
        read += len(text)
        if read >= chars:
            break
    if read:
        given = f"no token of a space and a word in {min(read, chars):,} characters"
        raise EpisodeError(
            "data.corpus", given, "text with spaces in a language of data.tokenizer: haystacks are cut there"
        )
