"""A process that encodes the chunks that come over a pipe, until the pipe is closed."""

from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lcprobe.data.near_duplicates import HeldOutText, NearDuplicates
from lcprobe.data.preparing.encoding import ChunkEncoder
from lcprobe.tasks.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncoderSettings:
    """What a process needs to encode. tokenizer: its tokenizer.json; share: data.near_duplicates."""

    tokenizer: str
    by_words: bool
    held_out: HeldOutText | None
    share: float

    def create(self) -> ChunkEncoder:
        """The encoder."""
        near = None if self.held_out is None else NearDuplicates(self.held_out, self.share)
        return ChunkEncoder(Tokenizer(self.tokenizer), self.by_words, near)


def main(handle: int) -> None:
    """Serve a pipe. The parent decides when to stop, and its end closes the pipe."""
    with suppress(ConnectionError), Connection(handle) as pipe:
        came: SimpleQueue[Any] = SimpleQueue()
        # what comes is always taken: the parent may be sending while a result waits to be taken by it
        Thread(target=_take, args=(pipe, came), daemon=True).start()
        encoder = None
        while (given := came.get()) is not None:
            if encoder is None:
                encoder = given.create()
            else:
                pipe.send(encoder.encode(given))


def _take(pipe: Connection, came: "SimpleQueue[Any]") -> None:
    with suppress(EOFError, OSError):
        while True:
            came.put(pipe.recv())
    came.put(None)
