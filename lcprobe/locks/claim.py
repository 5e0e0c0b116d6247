"""Claims: which of several processes, on one machine or on many over a shared folder, does a piece of work.

A claim is a lock file with a heartbeat, its time of modification. It is free when its process is seen to be gone, and
when the heartbeat has stood still for SILENT_SECONDS of the watcher's own clock, so that no two clocks are compared.
A process that was away for so long (stopped, or cut off from the folder) and comes back has lost its claim: it asks
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

from lcprobe.errors import LockedError
from lcprobe.locks.lock import OWNER, Held, gone_from, holder_of, take, unseen, when_free
from lcprobe.locks.process import Process, this_process

BEAT_SECONDS, SILENT_SECONDS = 15.0, 180.0
"""How often a claim is touched, and after how long without it is free, wherever its process is."""
CLAIM = ".claim"
FOLDER_TRIES = 20
"""How often the folder of a claim is made again where it is deleted between two steps."""


class Claim(Protocol):
    """A piece of work that this process does."""

    def is_kept(self) -> bool:
        """Whether it is still this process's."""
        ...

    def release(self) -> None:
        """Give it up: it is finished, or somebody else may do it."""
        ...


class ClaimLost(LockedError):
    """A piece of work was taken over by another process, for which this one was silent for too long."""

    def __init__(self) -> None:
        super().__init__("taken over by another process, as this one was away for too long; it writes nothing more")


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
    """The claims of a folder, as this process takes and sees them. ending: of their files."""

    def __init__(self, folder: Path, beat: float = BEAT_SECONDS, silent: float = SILENT_SECONDS, ending: str = CLAIM):
        self.folder, self._beat, self._silent, self._ending = folder, float(beat), silent, ending
        self._seen: dict[str, _Seen] = {}

    def take(self, name: str) -> Claim | Process:
        """Claim a piece of work; the process that has it where another one does (or this one, elsewhere)."""
        own = replace(this_process(), beats=self._beat)
        for left in reversed(range(FOLDER_TRIES)):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                taken = take(self._path(name), own, self._is_gone)
                return taken if isinstance(taken, Process) else _Beating(taken, self._beat)
            except FileNotFoundError:  # who made the folder has ended, and deleted it as nothing was in it
                if not left:
                    raise
        raise AssertionError("unreachable")

    def live(self) -> dict[str, Process]:
        """The processes that have a piece of work, by its name; this one is among them."""
        found = {}
        for path in sorted(self.folder.glob(f"*{self._ending}")):
            holder = holder_of(path)
            if holder is not None and not self._is_gone(holder, path):
                found[path.name.removesuffix(self._ending)] = holder
        return found

    def remove_dead(self) -> None:
        """Delete the claims of processes that are gone."""
        for path in self.folder.glob(f"*{self._ending}"):
            taken = take(path, this_process(), self._is_gone)
            if isinstance(taken, Held):
                taken.release()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{self._ending}"

    def _is_gone(self, holder: Process, path: Path) -> bool | None:
        gone = gone_from(holder, path)
        if gone or not holder.beats:
            return gone
        try:
            with open(path, "rb") as file:  # over NFS, opening a file asks the server what it is now
                touched = os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return gone
        now, seen = time.monotonic(), self._seen.get(path.name)
        if seen is None or (seen.holder, seen.touched) != (holder, touched):
            self._seen[path.name] = _Seen(holder, touched, now)
            return gone
        return True if now - seen.at > self._silent else gone


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


def folder_claims(folder: Path) -> Claims:
    """The lock of a folder as a claim, of no name: what `folder_lock` holds."""
    return Claims(folder, ending=OWNER)


@contextmanager
def folder_lock(folder: Path) -> Iterator[Claim]:
    """Lock a folder while the block runs; the claim, which may be lost in it.

    Raises LockedError where another process holds the lock or may hold it.
    """
    taken = folder_claims(folder).take("")
    if isinstance(taken, Process):
        where = unseen(taken, folder / OWNER, waits=False)
        raise LockedError(f"{folder}: locked by {taken}{where}; allowed: one process per folder")
    try:
        yield taken
    finally:
        taken.release()


@contextmanager
def waited_claim(folder: Path, name: str, what: str, wait: str, ending: str = CLAIM) -> Iterator[Claim]:
    """Hold a claim while the block runs, which may be lost in it. While another process has it, it is waited for,
    with a line now and then.

    what: what is claimed, for that line; wait: what the other one does; ending: of the claim's file.
    """
    claims = Claims(folder, ending=ending)
    claim = when_free(lambda: claims.take(name), folder / f"{name}{ending}", what, wait)
    try:
        yield claim
    finally:
        claim.release()
