"""Documents: text in memory, or, where it is long, text that is read in pieces whenever it is needed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lcprobe.files import digest_bytes, digest_pieces

LONG_CHARS = 1 << 20
"""Characters from which on a document is handled in pieces."""
PART_CHARS = 1 << 16
"""Characters of a long document that are encoded at once, at least."""
BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")


@dataclass(frozen=True)
class LongText:
    """A document that is not held in memory.

    read: its pieces from the beginning, the same ones at every call. start, end: characters of them that are the
    document; end None: all the rest.
    """

    read: Callable[[], Iterator[str]]
    start: int = 0
    end: int | None = None

    def pieces(self) -> Iterator[str]:
        """The document's text in pieces of about LONG_CHARS characters."""
        at = 0
        for piece in self.read():
            part = piece[max(0, self.start - at) : None if self.end is None else max(0, self.end - at)]
            if part:
                yield part
            at += len(piece)
            if self.end is not None and at >= self.end:
                return


Document = str | LongText


def pieces_of(document: Document) -> Iterator[str]:
    """The text of a document, in one piece or several."""
    return iter((document,)) if isinstance(document, str) else document.pieces()


def size_of(document: Document) -> int:
    """Characters of a document."""
    return sum(map(len, pieces_of(document)))


def is_blank(document: Document) -> bool:
    """Whether a document is white space only."""
    return not any(piece.strip() for piece in pieces_of(document))


def valid_unicode(document: Document) -> Document:
    """The document with U+FFFD in place of lone surrogates, which JSON can spell and no encoder takes."""
    if isinstance(document, LongText):  # decoded from UTF-8, which has none
        return document
    try:
        document.encode()
        return document
    except UnicodeEncodeError:
        return document.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def digest_document(document: Document, *before: bytes) -> str:
    """`digest_bytes(*before, text)` of a document's text as UTF-8."""
    if isinstance(document, str):
        return digest_bytes(*before, document.encode())
    n_bytes = sum(len(piece.encode()) for piece in document.pieces())
    return digest_pieces(*before, size=n_bytes, pieces=(piece.encode() for piece in document.pieces()))


def digests_of(document: Document, before: bytes) -> tuple[str, str]:
    """`digest_document(document)` and `digest_document(document, before)`, of a text that is encoded once."""
    if isinstance(document, str):
        data = document.encode()
        return digest_bytes(data), digest_bytes(before, data)
    return digest_document(document), digest_document(document, before)


def split_document(document: Document, share: float) -> tuple[Document, Document]:
    """A document's first part, of `share` of its characters and up to the end of that line, and the rest.

    In the middle of a line where nothing would be left after it.
    """
    cut = int(size_of(document) * share)
    line = _line_end(document, cut)
    if line is not None and not is_blank(_part(document, line, None)):
        cut = line
    return _part(document, 0, cut), _part(document, cut, None)


def parts_to_encode(document: Document, at_spaces: bool) -> Iterator[str]:
    """A long document in parts of PART_CHARS characters or a little more; a short one is one part.

    at_spaces: whether the tokenizer's ids of a text are those of its words, so that a part may begin at any word,
    with its space. Other tokenizers get parts that begin with a line. Text without a place to cut is cut anywhere.
    """
    if isinstance(document, str) and len(document) <= LONG_CHARS:
        yield document
        return
    text = ""
    for piece in pieces_of(document):
        text, at = text + piece, 0
        while len(text) - at > 2 * PART_CHARS:
            cut = _cut(text, at + PART_CHARS, at + 2 * PART_CHARS, at_spaces)
            yield text[at:cut]
            at = cut
        text = text[at:]
    if text:
        yield text


def _cut(text: str, low: int, high: int, at_spaces: bool) -> int:
    """Where a part ends: between `low` and `high`, at the best place that there is."""
    if at_spaces:
        space = BETWEEN_WORDS.search(text, low, high)
        return space.start() if space else high
    line = text.rfind("\n", low, high)
    return line + 1 if line >= 0 else high


def _part(document: Document, start: int, end: int | None) -> Document:
    if isinstance(document, str):
        return document[start:end]
    return replace(document, start=document.start + start, end=document.end if end is None else document.start + end)


def _line_end(document: Document, start: int) -> int | None:
    """The character after the first line break at or after `start`."""
    at = start
    for piece in pieces_of(_part(document, start, None)):
        line = piece.find("\n")
        if line >= 0:
            return at + line + 1
        at += len(piece)
    return None
