"""What preparing writes, in the order of the documents, and where it ends: from there a killed preparation goes on.

Until a folder is finished, haystacks and starts are plain files that grow, and state.json says how long every file
is; what is behind that is cut off."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from lcprobe.data.documents import LongText
from lcprobe.data.near_duplicates import NearDuplicates
from lcprobe.data.preparing.chunks import Chunk, Piece
from lcprobe.data.preparing.encoding import EncodedChunk, dtype_of
from lcprobe.data.shards import ShardWriter, open_at, sync
from lcprobe.data.splits import SplitDocument, beginning
from lcprobe.files import digest_bytes, write_json
from lcprobe.tasks.names import Split
from lcprobe.tasks.text.tokenizer import Tokenizer

STATE = "state.json"
STARTS = "starts.bin"
HAYSTACKS: dict[Split, str] = {"train": "train.raw", "probe": "probe.raw"}
COPIED = 1 << 24
"""Bytes that are copied at once."""


@dataclass
class Written:
    """What is written. documents, held_out, empty, digest: of the corpus so far; starts: documents trained on; open:
    whether the latest one has tokens; chars, texts, bytes: of either haystack; tokens, of_source: tokens and
    documents trained on of each source; epochs: of each; left_out, left_out_parts: near-duplicates; full: max_tokens
    are there; stopped: and no more is read."""

    tokens: list[int]
    of_source: list[int]
    epochs: list[int]
    documents: int = 0
    held_out: int = 0
    empty: int = 0
    digest: str = digest_bytes()
    starts: int = 0
    open: bool = False
    chars: dict[str, int] = field(default_factory=lambda: {"train": 0, "probe": 0})
    texts: dict[str, int] = field(default_factory=lambda: {"train": 0, "probe": 0})
    bytes: dict[str, int] = field(default_factory=lambda: {"train": 0, "probe": 0})
    left_out: int = 0
    left_out_parts: int = 0
    full: bool = False
    stopped: bool = False

    @property
    def n_tokens(self) -> int:
        """Of all sources."""
        return sum(self.tokens)


class Writer:
    """Writes encoded chunks in order. near_duplicates: judges the haystack of a long document, whose parts are judged
    one by one."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer,
        written: Written,
        *,
        max_tokens: int | None,
        haystack_chars: int,
        near_duplicates: NearDuplicates | None,
    ):
        self.written = written
        self._folder, self._tokenizer, self._near_duplicates = folder, tokenizer, near_duplicates
        self._max_tokens, self._haystack_chars = max_tokens, haystack_chars
        self._shards = ShardWriter(folder, dtype_of(tokenizer), written.n_tokens)
        self._starts = open_at(folder / STARTS, 8 * written.starts)
        self._haystacks: dict[str, BinaryIO] = {
            split: open_at(folder / name, written.bytes[split]) for split, name in HAYSTACKS.items()
        }
        bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self._bos = np.array(bos, dtype=dtype_of(tokenizer))

    def take(self, chunk: Chunk, encoded: EncodedChunk) -> None:
        """Write a chunk, or of it what is before the end that max_tokens sets."""
        written, ids, starts = self.written, list[np.ndarray](), list[int]()
        ends, number = encoded.ends.tolist(), 0
        for piece in chunk.pieces:
            split = piece.split
            if not piece.first:
                self._count(split)
            if split.held_out:
                self._add_haystack("probe", [beginning(split.document, self._room("probe"))])
                continue
            if not piece.first:
                written.open = False
            left_out = encoded.left_out[number : number + piece.parts].tolist()
            for part, out in enumerate(left_out, piece.first):
                own = encoded.ids[ends[number - 1] if number else 0 : ends[number]]
                number += 1
                if out or (part and written.full):
                    continue
                if not written.open:
                    starts.append(written.n_tokens)
                    ids.append(self._bos)
                    written.open, written.starts = True, written.starts + 1
                    written.of_source[split.source] += 1
                    written.tokens[split.source] += len(self._bos)
                ids.append(own)
                written.tokens[split.source] += len(own)
            written.left_out_parts += sum(left_out) if isinstance(split.document, LongText) else 0
            written.left_out += piece.ends and not written.open
            if not piece.first:
                self._add_train(piece, left_out)
            if piece is chunk.pieces[-1]:
                self._see_whether_full()
            if piece.ends and piece.chunk_ended and written.full and written.texts["probe"]:
                written.stopped = True
                break
        self._see_whether_full()
        self._shards.add(np.concatenate([self._bos[:0], *ids]))
        self._starts.write(np.array(starts, dtype="<i8").tobytes())

    def _see_whether_full(self) -> None:
        self.written.full = self._max_tokens is not None and self.written.n_tokens >= self._max_tokens

    def _count(self, split: SplitDocument) -> None:
        written = self.written
        written.documents, written.held_out = split.documents, split.held_out_documents
        written.empty, written.digest = split.empty, split.digest
        written.epochs[split.source] = split.before.sources[split.source].epoch + 1

    def _room(self, split: Split) -> int:
        return max(0, self._haystack_chars - self.written.chars[split])

    def _add_train(self, piece: Piece, left_out: list[bool]) -> None:
        room, document, near = self._room("train"), piece.split.document, self._near_duplicates
        if not room:
            return
        if piece.parts == 1 and piece.ends and left_out[0]:
            return
        text = beginning(document, room)
        if near is not None and (piece.parts > 1 or not piece.ends):
            parts = [text[i : i + (1 << 16)] for i in range(0, len(text), 1 << 16)]
            self._add_haystack("train", [part for part, out in zip(parts, near.which(parts), strict=True) if not out])
        else:
            self._add_haystack("train", [text])

    def _add_haystack(self, split: Split, parts: list[str]) -> None:
        """Append a text. Nothing where there is no room for it."""
        text, written = "".join(parts), self.written
        if not text:
            return
        data = (("\n\n" if written.texts[split] else "") + text).encode()
        self._haystacks[split].write(data)
        written.texts[split] += 1
        written.chars[split] += len(text)
        written.bytes[split] += len(data)

    def checkpoint(self, chunk: Chunk, facts: dict[str, Any]) -> None:
        """Have everything on the disk, with where the text after a chunk begins. facts: kept with it."""
        self._shards.sync()
        for file in (self._starts, *self._haystacks.values()):
            sync(file)
        last = chunk.pieces[-1]
        whole = last.ends and last.split.after is not None
        mark = last.split.after if whole else last.split.before
        assert mark is not None
        place = {"mark": mark.to_json(), "parts": 0 if whole else last.first + last.parts}
        write_json(self._folder / STATE, {**facts, **place, "written": asdict(self.written)})

    def finish(self) -> None:
        """Turn the files that grew into those of a prepared corpus."""
        self.close()
        with open(self._folder / "starts.npy", "wb") as out, open(self._folder / STARTS, "rb") as starts:
            header = {"descr": "<i8", "fortran_order": False, "shape": (self.written.starts,)}
            npy.write_array_header_1_0(out, header)
            while block := starts.read(COPIED):
                out.write(block)
        for split, name in HAYSTACKS.items():
            text = self._tokenizer.expressed((self._folder / name).read_bytes().decode())
            ids, offsets = self._tokenizer.encode_with_offsets(text)
            (self._folder / f"{split}.txt").write_bytes(text.encode())
            np.save(self._folder / f"{split}.ids.npy", ids)
            np.save(self._folder / f"{split}.offsets.npy", offsets)

    def close(self) -> None:
        """Close the files."""
        self._shards.close()
        for file in (self._starts, *self._haystacks.values()):
            file.close()
