"""Token shards: flat files of SHARD_TOKENS tokens each, to which tokens are appended."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lcprobe.errors import DataError

SHARD_TOKENS = 1 << 26
"""Tokens per shard file."""


class ShardWriter:
    """Appends tokens to the shards of a folder. n_tokens: that are there already; what is behind them is cut off."""

    def __init__(self, folder: Path, dtype: str, n_tokens: int = 0):
        self._folder, self._dtype, self._file = folder, np.dtype(dtype), None
        self.n_tokens = n_tokens
        """Tokens so far."""
        shard, at = divmod(n_tokens, SHARD_TOKENS)
        for path in folder.glob("tokens-*.bin"):
            number = int(path.stem.removeprefix("tokens-"))
            if number > shard or (number == shard and not at):
                path.unlink()
        if at:
            self._file = open_at(self._path(shard), at * self._dtype.itemsize)

    def add(self, ids: np.ndarray) -> None:
        """Append tokens. Raises DataError for one that the shards cannot hold."""
        done = 0
        while done < len(ids):
            shard, at = divmod(self.n_tokens, SHARD_TOKENS)
            if at == 0:
                self.close()
                self._file = open(self._path(shard), "wb")  # noqa: SIM115
            piece = ids[done : done + SHARD_TOKENS - at]
            largest = int(piece.max())
            if largest > np.iinfo(self._dtype).max:
                raise DataError(f"data.tokenizer: token {largest}; allowed: ids that fit {self._dtype}")
            assert self._file is not None
            self._file.write(piece.astype(self._dtype, copy=False).tobytes())
            self.n_tokens += len(piece)
            done += len(piece)

    def sync(self) -> None:
        """Have what is written on the disk."""
        if self._file is not None:
            sync(self._file)

    def close(self) -> None:
        """Finish the current shard."""
        if self._file is not None:
            sync(self._file)
            self._file.close()
            self._file = None

    def _path(self, shard: int) -> Path:
        return self._folder / f"tokens-{shard:05d}.bin"


def open_at(path: Path, size: int) -> BinaryIO:
    """A file of which the first `size` bytes are kept, to append to."""
    path.touch()
    file = open(path, "rb+")  # noqa: SIM115
    file.truncate(size)
    file.seek(size)
    return file


def sync(file: BinaryIO) -> None:
    """Have a file's content on the disk."""
    file.flush()
    os.fsync(file.fileno())
