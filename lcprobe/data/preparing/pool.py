"""Chunks are encoded by processes, and come back in order. A short corpus is encoded here: processes take a moment to
start.

The processes are new ones, not forks: the caller may have threads and a GPU. They import no torch.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from lcprobe.data.preparing import worker
from lcprobe.data.preparing.chunks import Chunk
from lcprobe.data.preparing.encoding import ChunkEncoder, EncodedChunk
from lcprobe.data.preparing.worker import EncoderSettings
from lcprobe.errors import StoppedEarly

HERE_CHARS = 12_000_000
"""Characters that are encoded here before processes are started."""
AHEAD = 2
"""Chunks per process that are read and not written yet."""
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    pipe: Connection
    waiting: deque[int] = field(default_factory=deque)
    """Numbers of its chunks, in order."""


def encoded(
    chunks: Iterable[Chunk], settings: EncoderSettings, workers: int
) -> Generator[tuple[Chunk, EncodedChunk], None, None]:
    """Every chunk with its tokens, in order. Closing the iterator ends the processes.

    Raises StoppedEarly where a process ends by itself: the machine has too little memory for so many.
    """
    here: ChunkEncoder | None = settings.create()
    ahead: deque[tuple[int, Chunk]] = deque()
    done: dict[int, EncodedChunk] = {}
    processes: list[_Process] = []
    chars = 0
    try:
        for number, chunk in enumerate(chunks):
            if workers == 1 or chars < HERE_CHARS:
                assert here is not None
                chars += chunk.chars
                yield chunk, here.encode(chunk.parts)
                continue
            if not processes:
                here = None
                processes = [_started(settings) for _ in range(workers)]
            process = min(processes, key=lambda one: len(one.waiting))
            _send(process, chunk.parts)
            process.waiting.append(number)
            ahead.append((number, chunk))
            _receive(processes, done, block=len(ahead) >= AHEAD * workers + 1, wanted=ahead[0][0])
            while ahead and ahead[0][0] in done:
                first, ready = ahead.popleft()
                yield ready, done.pop(first)
        while ahead:
            _receive(processes, done, block=True, wanted=ahead[0][0])
            first, ready = ahead.popleft()
            yield ready, done.pop(first)
    finally:
        for one in processes:
            one.pipe.close()
        for one in processes:
            one.process.wait()


def _started(settings: EncoderSettings) -> _Process:
    ours, theirs = Pipe()
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", f"from {worker.__name__} import main; main({theirs.fileno()})"]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": path}
    process = subprocess.Popen(  # a group of its own: Ctrl-C, also while it imports, is this process's business
        command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, process_group=0
    )
    theirs.close()
    one = _Process(process, ours)
    _send(one, settings)
    return one


def _send(process: _Process, what: object) -> None:
    try:
        process.pipe.send(what)
    except ConnectionError:
        raise _ended(process) from None


def _receive(processes: list[_Process], done: dict[int, EncodedChunk], block: bool, wanted: int) -> None:
    """Take what is ready; block: until the wanted one is."""
    while True:
        pipes = {one.pipe: one for one in processes if one.waiting}
        for pipe in wait(list(pipes), timeout=None if block and wanted not in done else 0):
            process = pipes[pipe]  # type: ignore[index]
            try:
                done[process.waiting[0]] = process.pipe.recv()
            except (EOFError, ConnectionError):
                raise _ended(process) from None
            process.waiting.popleft()
        if not block or wanted in done:
            return


def _ended(process: _Process) -> StoppedEarly:
    with suppress(subprocess.TimeoutExpired):
        process.process.wait(5)
    code = process.process.returncode
    return StoppedEarly(
        f"a process that encodes text ended by itself (exit code {code}); allowed: enough memory for data.workers "
        f"processes. The same command goes on from what is written"
    )
