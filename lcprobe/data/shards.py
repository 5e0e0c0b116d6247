"""Token shards: documents, encoded in batches on all cores, appended to flat files of SHARD_TOKENS tokens each."""

from pathlib import Path

import numpy as np

from lcprobe.data.documents import Document, parts_to_encode
from lcprobe.errors import DataError
from lcprobe.tasks.text.tokenizer import Tokenizer

SHARD_TOKENS = 1 << 26
"""Tokens per shard file."""
BATCH_CHARS = 2_000_000
"""Characters of text tokenised at once, on all cores."""


class Encoder:
    """Encodes documents in batches and appends their tokens, each document after a BOS, to shard files."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, max_tokens: int | None):
        self.dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        self.starts: list[int] = []
        self._tokenizer, self._writer, self._max_tokens = tokenizer, _ShardWriter(folder, self.dtype), max_tokens
        self._bos = np.array([] if tokenizer.bos_id is None else [tokenizer.bos_id], dtype=np.int32)
        # short documents are not cut, so max_tokens is exceeded by up to one batch: a small one where it is small
        self._batch_chars = BATCH_CHARS if max_tokens is None else min(BATCH_CHARS, max_tokens)
        self._waiting: list[tuple[str, bool]] = []
        """Parts of documents that are not encoded yet, and whether each continues one."""
        self._chars = 0

    @property
    def n_tokens(self) -> int:
        """Tokens written so far."""
        return self._writer.n_tokens

    @property
    def is_full(self) -> bool:
        """Whether max_tokens are written."""
        return self._max_tokens is not None and self.n_tokens >= self._max_tokens

    def add(self, document: Document) -> bool:
        """Append a document, of a long one no more than max_tokens; whether a batch was written."""
        written = False
        for i, part in enumerate(parts_to_encode(document, self._tokenizer.splits_at_spaces)):
            if i and self.is_full:
                break
            self._waiting.append((part, i > 0))
            self._chars += len(part)
            if self._chars > self._batch_chars:
                self._flush()
                written = True
        return written

    def close(self) -> None:
        """Write what waits, and finish the last shard."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        parts, continues = [part for part, _ in self._waiting], [after for _, after in self._waiting]
        for ids, after in zip(self._tokenizer.encode_parts(parts, continues), continues, strict=True):
            if not after:
                self.starts.append(self.n_tokens)
                self._writer.add(self._bos)
            self._writer.add(ids)
        self._waiting.clear()
        self._chars = 0


class _ShardWriter:
    """Appends tokens to shard files of SHARD_TOKENS each."""

    def __init__(self, folder: Path, dtype: str):
        self._folder, self._dtype, self._file = folder, dtype, None
        self.n_tokens = 0

    def add(self, ids: np.ndarray) -> None:
        """Append one document."""
        done = 0
        while done < len(ids):
            shard, at = divmod(self.n_tokens, SHARD_TOKENS)
            if at == 0:
                self.close()
                self._file = open(self._folder / f"tokens-{shard:05d}.bin", "wb")  # noqa: SIM115
            piece = ids[done : done + SHARD_TOKENS - at]
            largest = int(piece.max())
            if largest > np.iinfo(self._dtype).max:
                raise DataError(f"data.tokenizer: token {largest}; allowed: ids that fit {self._dtype}")
            assert self._file is not None
            self._file.write(piece.astype(self._dtype).tobytes())
            self.n_tokens += len(piece)
            done += len(piece)

    def close(self) -> None:
        """Finish the current shard."""
        if self._file is not None:
            self._file.close()
            self._file = None
