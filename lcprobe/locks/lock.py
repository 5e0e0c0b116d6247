"""Lock files that say who holds them, so that a lock of a process that is gone is taken over.

In another container of this machine, an flock on the file tells whether its holder runs. Another machine's process
cannot be seen: its lock is explained, and stays.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from lcprobe.errors import LockedError
from lcprobe.locks.process import Process, boot_id, is_gone, process_tag, this_process

OWNER = ".owner"
POLL_SECONDS, LINE_SECONDS = 0.5, 60.0
"""How often a waiting process looks, and says that it waits."""
log = logging.getLogger(__name__)
Taken = TypeVar("Taken")


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs. Raises LockedError where another process holds the lock or may hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / OWNER, f"{folder}"):
        yield


@contextmanager
def file_lock(path: Path, what: str, wait: str | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs; it is deleted afterwards.

    what: what is locked, for messages. wait: what another holder does; then the lock is waited for, with a line now
    and then. Raises LockedError without `wait` where another process holds it or may hold it.
    """

    def taken() -> Held | Process:
        holder = take(path, this_process())
        if wait is None and isinstance(holder, Process):
            raise LockedError(f"{what}: locked by {holder}{_unseen(holder, path)}; allowed: one process per folder")
        return holder

    held = when_free(taken, path, what, wait or "")
    try:
        yield
    finally:
        held.release()


def when_free(take: Callable[[], Taken | Process], path: Path, what: str, wait: str) -> Taken:
    """What `take` returns as soon as it is no other process; with a line now and then."""
    said = -LINE_SECONDS
    while isinstance(taken := take(), Process):
        if time.monotonic() - said >= LINE_SECONDS:
            log.info("%s: waiting for %s, which %s%s", what, taken, wait, _unseen(taken, path))
            said = time.monotonic()
        time.sleep(POLL_SECONDS)
    return taken


def _unseen(holder: Process, path: Path) -> str:
    """What somebody has to do about a lock whose process cannot be seen, and that has no heartbeat."""
    seen = holder.beats > 0 or gone_from(holder, path) is not None
    return "" if seen else f", which cannot be seen from here: delete {path} if it is gone"


@dataclass(frozen=True)
class Held:
    """A lock file that this process holds. own: as the file names it; handle: of the open file, which keeps its
    flock."""

    path: Path
    own: Process
    handle: int

    def is_kept(self) -> bool:
        """Whether it is still this process's: another one may have taken it over, or somebody deleted it."""
        return holder_of(self.path) == self.own

    def release(self) -> None:
        """Delete the file, where it is still this process's."""
        with _guard(self.path.parent):
            if self.is_kept():
                self.path.unlink(missing_ok=True)
        os.close(self.handle)


def take(path: Path, own: Process, gone: Callable[[Process, Path], bool | None] | None = None) -> Held | Process:
    """Take a lock that nobody holds; the holder where somebody does. gone: as `gone_from`, which is the default."""
    temporary = path.with_name(f".{path.name}.{process_tag()}.tmp")
    with _guard(path.parent):
        holder = holder_of(path)
        if holder is not None and not (gone or gone_from)(holder, path):
            return holder
        handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        own = replace(own, flocked=_flock(handle))
        try:
            os.write(handle, json.dumps(asdict(own)).encode())
            if holder is not None:
                path.unlink(missing_ok=True)
            try:
                os.link(temporary, path)  # fails where another machine was quicker, as a rename would not
            except FileExistsError:
                os.close(handle)
                return holder_of(path) or Process("another machine", -1)
            except OSError:  # a file system without links
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return Held(path, own, handle)


def gone_from(holder: Process, path: Path) -> bool | None:
    """Whether the holder of a lock is gone: `is_gone`, and for a process in another container what the flock says."""
    gone = is_gone(holder)
    if gone is None and holder.flocked and holder.boot == boot_id():
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                return _flock(handle)
            finally:
                os.close(handle)
    return gone


def _flock(handle: int) -> bool:
    """Whether this open file has the flock, or gets it now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has none
        return False
    return True


def holder_of(path: Path) -> Process | None:
    """The process that a lock file names, an unknown one for a file that is not readable; None: no file."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return Process()
    known: dict[str, Any] = {f.name: type(f.default) for f in fields(Process)}
    facts = facts if isinstance(facts, dict) else {}
    return Process(**{name: value for name, value in facts.items() if isinstance(value, known.get(name, ()))})


@contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """One process of this machine at a time decides who has the lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems without flock: two processes that find a dead one's lock may collide
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
