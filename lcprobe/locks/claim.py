"""Claims: which of several processes, on one machine or on many over a shared folder, does a piece of work.

A claim is a lock file with a heartbeat, its time of modification. Where its process cannot be seen, it is free when
the heartbeat has stood still for SILENT_SECONDS of the watcher's own clock, so that no two clocks are compared. A
process that was away for so long (stopped, or cut off from the folder) and comes back has lost its claim: it asks
`is_kept` before it writes.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lcprobe.locks.lock import Held, gone_from, holder_of, take, when_free
from lcprobe.locks.process import Process, this_process

BEAT_SECONDS, SILENT_SECONDS = 15.0, 180.0
"""How often a claim is touched, and after how long without it is free where its process cannot be seen."""
CLAIM = ".claim"


class Claim(Protocol):
    """A piece of work that this process does."""

    def is_kept(self) -> bool:
        """Whether it is still this process's."""
        ...

    def release(self) -> None:
        """Give it up: it is finished, or somebody else may do it."""
        ...


class ClaimLost(Exception):
    """A piece of work was taken over by another process, for which this one was silent for too long."""

    def __init__(self) -> None:
        super().__init__("taken over by another process, as this one was away for too long")


def require_kept(claim: Claim) -> None:
    """Raises ClaimLost where a claim is no longer this process's: what is written then may be another's."""
    if not claim.is_kept():
        raise ClaimLost


class Alone:
    """A claim where there is nobody else."""

    def is_kept(self) -> bool:
        """Always."""
        return True

    def release(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class _Seen:
    """A heartbeat of another process. at: of this process's clock, when it was first seen."""

    holder: Process
    touched: int
    at: float


class Claims:
    """The claims of a folder, as this process takes and sees them."""

    def __init__(self, folder: Path, beat: float = BEAT_SECONDS, silent: float = SILENT_SECONDS):
        self.folder, self._beat, self._silent = folder, float(beat), silent
        self._seen: dict[str, _Seen] = {}

    def take(self, name: str) -> Claim | Process:
        """Claim a piece of work; the process that has it where another one does (or this one, elsewhere)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = take(self._path(name), replace(this_process(), beats=self._beat), self._is_gone)
        return taken if isinstance(taken, Process) else _Beating(taken, self._beat)

    def live(self) -> dict[str, Process]:
        """The processes that have a piece of work, by its name; this one is among them."""
        found = {}
        for path in sorted(self.folder.glob(f"*{CLAIM}")):
            holder = holder_of(path)
            if holder is not None and not self._is_gone(holder, path):
                found[path.name.removesuffix(CLAIM)] = holder
        return found

    def remove_dead(self) -> None:
        """Delete the claims of processes that are gone."""
        for path in self.folder.glob(f"*{CLAIM}"):
            taken = take(path, this_process(), self._is_gone)
            if isinstance(taken, Held):
                taken.release()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{CLAIM}"

    def _is_gone(self, holder: Process, path: Path) -> bool | None:
        gone = gone_from(holder, path)
        if gone is not None or not holder.beats:
            return gone
        try:
            with open(path, "rb") as file:  # over NFS, opening a file asks the server what it is now
                touched = os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return None
        now, seen = time.monotonic(), self._seen.get(path.name)
        if seen is None or (seen.holder, seen.touched) != (holder, touched):
            self._seen[path.name] = _Seen(holder, touched, now)
            return None
        return True if now - seen.at > self._silent else None


class _Beating:
    """A held lock that a thread touches."""

    def __init__(self, held: Held, seconds: float):
        self._held, self._ended = held, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="heartbeat", daemon=True)
        self._thread.start()

    def is_kept(self) -> bool:
        return self._held.is_kept()

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        self._held.release()

    def _run(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            with suppress(OSError):  # the folder cannot be reached now
                os.utime(self._held.handle)  # of the open file: never that of another process, under the same name


@contextmanager
def waited_claim(folder: Path, name: str, what: str, wait: str) -> Iterator[None]:
    """Hold a claim while the block runs, and wait for it first, as `file_lock` does."""
    claims = Claims(folder)
    claim = when_free(lambda: claims.take(name), folder / f"{name}{CLAIM}", what, wait)
    try:
        yield
    finally:
        claim.release()
