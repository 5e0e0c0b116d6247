"""The documents of a corpus for training and those that are held out; and what can be told of both without preparing
them."""

import re
from collections import Counter
from collections.abc import Collection, Iterator

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import documents
from lcprobe.data.documents import Document, digest_document, pieces_of, split_document
from lcprobe.errors import EpisodeError
from lcprobe.files import digest_bytes
from lcprobe.seeds import seed_of
from lcprobe.tasks.names import Split
from lcprobe.tasks.text.haystack import LEAST_CUTS, require_word_starts
from lcprobe.tasks.text.tokenizer import Tokenizer

SOME_WORDS = 64
"""Words that are encoded at once."""
WORD = re.compile(r"(?<=\S) \S+")
"""A word after a space: a text may be cut before it, if the tokenizer shows it."""


def split_documents(config: DataConfig, empty: Counter[str] | None = None) -> Iterator[tuple[Document, bool]]:
    """Every document and whether it is held out, decided by a hash of its text; empty counts those without text.

    Where the hash holds out none, the last document is held out; of a single document, its end. Raises as
    `corpus.documents`.
    """
    before: Document | None = None
    held, number, empty = 0, 0, Counter() if empty is None else empty
    for document in documents(config.corpus, config.text_field, lambda: empty.update(["rows"])):
        if before is not None:
            out = seed_of("held out", digest_document(before)) < config.held_out * 2**63
            held += out
            yield before, out
        before, number = document, number + 1
    if before is None:
        return
    if number == 1:
        first, before = split_document(before, 1 - config.held_out)
        yield first, False
    yield before, held == 0


def next_digest(digest: str, document: Document) -> str:
    """The digest of a corpus with one more document. digest: of those before it, `digest_bytes()` of none."""
    return digest_document(document, digest.encode())


def digest_text(config: DataConfig, wanted: str) -> str:
    """The digest of a config's text, as a manifest has it, without preparing it. wanted: where `max_tokens` ends the
    text early, it is known to be this one as soon as the digest is reached; else the digest is that of the whole."""
    digest = digest_bytes()
    for document, _ in split_documents(config):
        digest = next_digest(digest, document)
        if config.max_tokens is not None and digest == wanted:
            break
    return digest


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
    for document, held_out in split_documents(config):
        split: Split = "probe" if held_out else "train"
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
