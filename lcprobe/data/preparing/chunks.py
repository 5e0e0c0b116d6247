"""Documents -> chunks of text, in order: what is encoded at once, and what is known of every document of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lcprobe.data.documents import parts_to_encode
from lcprobe.data.preparing.encoding import Part
from lcprobe.data.splits import SplitDocument

CHUNK_CHARS = 1 << 19
"""Characters of text that one process encodes at once."""
MAX_TOKENS_CHUNK_CHARS = 2_000_000
"""As many where max_tokens is set, and as max_tokens where it is less: only after a chunk it is known to be
reached."""


@dataclass
class Piece:
    """A document in a chunk, or what of a long one is in it. first: number of the document's parts in chunks before;
    parts: of it in this chunk; ends: whether it ends here; chunk_ended: whether a chunk, this or one before, ended
    within the document."""

    split: SplitDocument
    first: int = 0
    parts: int = 0
    ends: bool = False
    chunk_ended: bool = False


@dataclass
class Chunk:
    """Text to encode, and its documents: those that are held out have no parts."""

    parts: list[Part] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    chars: int = 0


def chunks_of(
    documents: Iterable[SplitDocument],
    max_tokens: int | None,
    at_spaces: bool,
    is_full: Callable[[], bool],
    done_parts: int = 0,
) -> Iterator[Chunk]:
    """Chunks of at least the characters above; a chunk ends within a document that is trained on.

    at_spaces: as for `parts_to_encode`. is_full: whether all tokens are there; text of a long document need not be
    encoded any more then. done_parts: parts of the first document that are not to be encoded.
    """
    limit = CHUNK_CHARS if max_tokens is None else min(MAX_TOKENS_CHUNK_CHARS, max_tokens)
    chunk = Chunk()
    for split in documents:
        piece = Piece(split)
        chunk.pieces.append(piece)
        if split.held_out:
            piece.ends = True
            continue
        skip, done_parts = done_parts, 0
        piece.chunk_ended = skip > 0
        for number, text in enumerate(parts_to_encode(split.document, at_spaces)):
            if number < skip:
                piece.first += 1
                continue
            if chunk.chars > limit:
                yield chunk
                piece = Piece(split, number, chunk_ended=True)
                chunk = Chunk(pieces=[piece])
            chunk.parts.append(Part("" if number and is_full() else text, number > 0))
            chunk.chars += len(text)
            piece.parts += 1
        piece.ends = True
        if chunk.chars > limit:
            piece.chunk_ended = True
            yield chunk
            chunk = Chunk()
    yield chunk
