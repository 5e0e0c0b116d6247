"""The documents of a corpus for training and those that are held out; and what can be told of both without preparing
them."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Read, Reader
from lcprobe.data.documents import Document, digest_document, pieces_of, split_document
from lcprobe.data.marks import Mark
from lcprobe.errors import EpisodeError
from lcprobe.tasks.names import Split
from lcprobe.tasks.text.haystack import LEAST_CUTS, require_word_starts
from lcprobe.tasks.text.tokenizer import Tokenizer

SOME_WORDS = 64
"""Words that are encoded at once."""
WORD = re.compile(r"(?<=\S) \S+")
"""A word after a space: a text may be cut before it, if the tokenizer shows it."""


class SplitDocument(NamedTuple):
    """A document, or the only document's first or second part, and whether it is held out of training.

    source: number of its source. before: from where it is read again. after: from where the next one is read; None
    for the first part of the only document. documents, held_out_documents, empty, digest: of the corpus up to it and
    with it."""

    document: Document
    held_out: bool
    source: int
    before: Mark
    after: Mark | None
    documents: int
    held_out_documents: int
    empty: int
    digest: str


def split_documents(
    config: DataConfig, mark: Mark | None = None, reader: Reader | None = None
) -> Iterator[SplitDocument]:
    """Every document after a mark, and whether it is held out, decided by a hash of its text.

    Where the hash holds out none, the last document is held out; of a single document, its end. Raises as
    `Reader.documents`.
    """
    reader = Reader(config) if reader is None else reader
    latest: Read | None = None
    for read in reader.documents(mark):
        if latest is not None:
            yield _split(latest, latest.held_out, reader)
        latest = read
    if latest is None:
        return
    if latest.after.read > 1:
        yield _split(latest, latest.before.held_out == 0, reader)
        return
    before, after, empty = latest.before, latest.after, reader.empty
    first, end = split_document(latest.document, 1 - config.held_out)
    digest = next_digest(before.digest, first)
    yield SplitDocument(first, False, latest.source, before, None, 1, 0, empty, digest)
    yield SplitDocument(end, True, latest.source, before, after, 2, 1, empty, next_digest(digest, end))


def _split(read: Read, held_out: bool, reader: Reader) -> SplitDocument:
    n_held_out = read.before.held_out + held_out
    n, digest = read.after.read, read.after.digest
    return SplitDocument(
        read.document, held_out, read.source, read.before, read.after, n, n_held_out, reader.empty, digest
    )


def next_digest(digest: str, document: Document) -> str:
    """The digest of a corpus with one more document. digest: of those before it, `digest_bytes()` of none."""
    return digest_document(document, digest.encode())


def beginning(document: Document, n: int) -> str:
    """The first n characters of a document."""
    pieces, size = [], 0
    for piece in pieces_of(document):
        pieces.append(piece[: n - size])
        size += len(pieces[-1])
        if size == n:
            break
    return "".join(pieces)


def check_words(config: DataConfig, tokenizer: Tokenizer, splits: Collection[Split]) -> None:
    """Raises EpisodeError where haystacks cannot be cut from a split of the corpus: its first `haystack_chars`
    characters have no two words that begin with a token of a space and what follows it. Reads up to such words, and
    nothing from a network."""
    require_word_starts(tokenizer)
    if not all(source.create().is_local() for source in config.corpus):
        return
    chars, cuts = dict.fromkeys(splits, 0), dict.fromkeys(splits, 0)
    for one in split_documents(config):
        document = one.document
        split: Split = "probe" if one.held_out else "train"
        if split in chars and cuts[split] < LEAST_CUTS and chars[split] < config.haystack_chars:
            text = beginning(document, config.haystack_chars - chars[split])
            chars[split] += len(text)
            cuts[split] += _count_cuts(text, tokenizer)
        if all(cuts[one] >= LEAST_CUTS or chars[one] >= config.haystack_chars for one in splits):
            break
    for split, n in chars.items():
        if n and cuts[split] < LEAST_CUTS:
            where = {"train": "to train on", "probe": "held out"}[split]
            given = f"{cuts[split] or 'no'} token of a space and a word in {n:,} characters {where}"
            allowed = f"text with spaces in a language of data.tokenizer: {LEAST_CUTS} places to cut haystacks at"
            raise EpisodeError("data.corpus", given, allowed)


def _count_cuts(text: str, tokenizer: Tokenizer) -> int:
    """How many words of a text it can be cut before, at least; counts no further than is enough."""
    counts, found = Counter(WORD.findall(text)), 0
    words = list(counts)
    for i in range(0, len(words), SOME_WORDS):
        some = words[i : i + SOME_WORDS]
        for word, ids in zip(some, tokenizer.encode_batch(some), strict=True):
            found += counts[word] * int(tokenizer.opens_word[ids].any())
        if found >= LEAST_CUTS:
            break
    return found
