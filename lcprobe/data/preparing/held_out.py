"""The text that others are compared with, as near-duplicates of it are not trained on: the beginning of what is held
out, as much as a haystack has room for.

Where sources are interleaved by weight, what is left out decides which source is read next. What is held out is
therefore looked for in every source: whatever their order, a haystack has nothing else.
"""

from collections.abc import Callable
from typing import NamedTuple

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Reader
from lcprobe.data.near_duplicates import HeldOutText, index_of
from lcprobe.data.splits import beginning, split_documents
from lcprobe.files import digest_bytes


class HeldOut(NamedTuple):
    """of_each: whether it was looked for in every source."""

    text: HeldOutText
    of_each: bool


def held_out_text(config: DataConfig, reader: Reader, seen: Callable[[int, int, float], None]) -> HeldOut:
    """What is held out: sources are read until it is complete. seen: is told characters and documents read, and the
    share of all that is looked for."""
    if config.corpus[0].config.weight is not None:
        found = _of_each(config, reader, seen)
        if found:  # else the last document, which depends on the order
            return HeldOut(index_of(found), True)
    texts, chars, read, limit = list[str](), 0, 0, config.haystack_chars
    for split in split_documents(config, None, reader):
        read += len(split.document) if isinstance(split.document, str) else 0
        if split.held_out:
            texts.append(beginning(split.document, limit - chars))
            chars += len(texts[-1])
            seen(read, split.documents, min(1.0, chars / limit))
            if chars >= limit:
                break
    return HeldOut(index_of(texts), False)


def _of_each(config: DataConfig, reader: Reader, seen: Callable[[int, int, float], None]) -> list[str]:
    texts, read, documents, limit = list[str](), 0, 0, config.haystack_chars
    n = len(config.corpus)
    for number in range(n):
        chars = 0
        for document, held_out in reader.of_source(number):
            read, documents = read + (len(document) if isinstance(document, str) else 0), documents + 1
            if held_out:
                texts.append(beginning(document, limit - chars))
                chars += len(texts[-1])
                seen(read, documents, (number + min(1.0, chars / limit)) / n)
                if chars >= limit:
                    break
    return texts


def digest_text(config: DataConfig, wanted: str) -> str:
    """The digest of a config's text, as a manifest has it, without preparing it. wanted: where `max_tokens` ends the
    text early, it is known to be this one as soon as the digest is reached; else the digest is that of the whole."""
    digest, reader = digest_bytes(), Reader(config)
    if config.near_duplicates is not None and config.corpus[0].config.weight is not None:
        held_out = held_out_text(config, reader, lambda chars, documents, share: None)
        if held_out.of_each:
            reader.count_kept(held_out.text)
    for split in split_documents(config, None, reader):
        digest = split.digest
        if config.max_tokens is not None and digest == wanted:
            break
    return digest
