"""A corpus: the documents of several sources, one source after another, or interleaved by weight."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from lcprobe.choices import Choice
from lcprobe.data.config import DataConfig
from lcprobe.data.documents import (
    Document,
    digests_of,
    is_blank,
    parts_to_encode,
    pieces_of,
    size_of,
    valid_unicode,
)
from lcprobe.data.marks import Mark, SourceMark
from lcprobe.data.near_duplicates import HeldOutText, NearDuplicates
from lcprobe.data.sources.contract import Place, Source
from lcprobe.errors import DataError
from lcprobe.files import digest_json
from lcprobe.seeds import seed_of
from lcprobe.tasks.text.tokenizer import load_tokenizer

SAMPLE_DOCUMENTS, SAMPLE_CHARS = 64, 1 << 18
"""The first documents of a source, and characters of them, from which its tokens per character are estimated."""


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


def texts(config: DataConfig) -> Iterator[str]:
    """The text of every document, long ones in pieces. Raises as `Reader.documents` does."""
    for read in Reader(config).documents():
        yield from pieces_of(read.document)


class Read(NamedTuple):
    """A document with text, as valid Unicode. source: its number. held_out: whether a hash of its text says that it
    is not trained on. before, after: where reading goes on to get this document again, and the next one."""

    document: Document
    source: int
    held_out: bool
    before: Mark
    after: Mark


class Reader:
    """Reads the documents of a config in an order that is a function of their texts, from any mark on.

    Without weights the sources are read one after another. With weights the next document is of the source whose
    training text so far, in tokens and divided by its weight, is least: a low-discrepancy order, in which the shares
    hold, up to one document, wherever reading stops; of text that is not trained on, as it is near what is held out,
    nothing counts (`count_kept`). Tokens are estimated: characters, times the source's tokens per character, which
    are counted in its first documents. `data.when_a_source_ends` says what happens then; a source
    that begins again gives what is trained on, not what is held out.
    """

    def __init__(self, config: DataConfig):
        self.config = config
        self.empty = 0
        """Rows without text so far."""
        self._weights = [source.config.weight for source in config.corpus if source.config.weight is not None]
        self._sources: list[Source] = [source.create() for source in config.corpus]
        self._rates: list[float] = []
        self._near_duplicates: NearDuplicates | None = None

    def count_kept(self, held_out: HeldOutText) -> None:
        """Count only text that is not near-duplicate of what is held out towards the weights. What that is must not
        depend on the order of the sources."""
        if self._weights and self.config.near_duplicates is not None:
            self._near_duplicates = NearDuplicates(held_out, self.config.near_duplicates)

    def of_source(self, number: int) -> Iterator[tuple[Document, bool]]:
        """The documents with text of one source, and whether each is held out by a hash of its text."""
        stream = self._stream(number, [])
        while (document := self._with_text(stream, 1)) is not None:
            yield document, self._is_held_out(digests_of(document, b"")[0])

    def documents(self, mark: Mark | None = None) -> Iterator[Read]:
        """Those after a mark. Raises DataError for a source that cannot be read."""
        mark = Mark(tuple(SourceMark() for _ in self._sources)) if mark is None else mark
        self.empty = mark.empty
        if self._weights and not self._rates:
            self._rates = [self._tokens_per_char(source) for source in self._sources]
        places: list[Place] = [list(one.place) for one in mark.sources]
        streams = [self._stream(number, place) for number, place in enumerate(places)]
        while (number := self._next(mark)) is not None:
            own = mark.sources[number]
            document = self._with_text(streams[number], own.epoch)
            if document is None:
                if self._near_duplicates is not None and not own.chars:
                    what = "nothing to train on that is not near what is held out (data.near_duplicates)"
                    raise DataError(f"{self.config.corpus[number]}: {what}; allowed: a source with text of its own")
                mark = mark.with_source(number, SourceMark((), own.epoch + 1, True, own.chars))
                if self._weights and (self.config.when_a_source_ends == "stop" or not own.chars):
                    return
                places[number].clear()
                streams[number] = self._stream(number, places[number])
                continue
            own_digest, digest = digests_of(document, mark.digest.encode())
            held_out = self._is_held_out(own_digest)
            if held_out and own.epoch:
                continue
            chars = own.chars + (self._counted(document) if self._weights and not held_out else 0)
            sources = list(mark.sources)
            sources[number] = SourceMark(tuple(places[number]), own.epoch, own.ended, chars)
            after = Mark(tuple(sources), mark.read + 1, mark.held_out + held_out, self.empty, digest)
            yield Read(document, number, held_out, mark, after)
            mark = after

    def share_read(self) -> float | None:
        """How much of all that will be read is read, 0 to 1, where that is known."""
        shares = [source.share_read() for source in self._sources]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        if self._weights:
            return max(known) if self.config.when_a_source_ends == "stop" else min(known)
        sizes = [size for source in self._sources if (size := source.size()) is not None]
        if len(sizes) < len(shares) or not sum(sizes):
            return sum(known) / len(known)
        return sum(share * size for share, size in zip(known, sizes, strict=True)) / sum(sizes)

    def versions(self) -> list[str]:
        """Of each source: what is read of it today."""
        return [source.version() for source in self._sources]

    def _stream(self, number: int, place: Place) -> Iterator[Document]:
        return self._sources[number].documents_from(self.config.text_field, place)

    def _with_text(self, stream: Iterator[Document], epoch: int) -> Document | None:
        """The next document of a source that has text; None at the source's end."""
        for document in stream:
            if not is_blank(document):
                return valid_unicode(document)
            self.empty += not epoch
        return None

    def _is_held_out(self, digest: str) -> bool:
        return seed_of("held out", digest) < self.config.held_out * 2**63

    def _counted(self, document: Document) -> int:
        """Characters of a document that are trained on: its parts are judged as they are where they are encoded."""
        near = self._near_duplicates
        if near is None:
            return size_of(document)
        at_spaces = load_tokenizer(self.config.tokenizer, self.config.bos).splits_at_spaces
        return sum(len(part) for part in parts_to_encode(document, at_spaces) if not near.which([part])[0])

    def _next(self, mark: Mark) -> int | None:
        """The number of the source that is read next; None where all is read."""
        left = [number for number, one in enumerate(mark.sources) if not one.ended]
        if not left:
            return None
        if not self._weights:
            return left[0]
        used = [one.chars * r / w for one, r, w in zip(mark.sources, self._rates, self._weights, strict=True)]
        return used.index(min(used))

    def _tokens_per_char(self, source: Source) -> float:
        tokenizer, chars, tokens = load_tokenizer(self.config.tokenizer, self.config.bos), 0, 0
        for document in islice(source.documents(self.config.text_field), SAMPLE_DOCUMENTS):
            if is_blank(document) or chars >= SAMPLE_CHARS:
                continue
            text = next(pieces_of(valid_unicode(document)))[:SAMPLE_CHARS]
            chars, tokens = chars + len(text), tokens + len(tokenizer.encode(text))
        return tokens / chars if chars else 1.0
