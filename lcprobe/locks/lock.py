"""Lock files that say who holds them, so that a lock of a process that is gone is taken over.

In another container of this machine, an flock on the file tells whether its holder runs. Another machine's process
cannot be seen: its lock is explained, and stays.
"""

import fcntl
import hashlib
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
REMOVAL = ".removal"
POLL_SECONDS, LINE_SECONDS = 0.5, 60.0
"""How often a waiting process looks, and says that it waits."""
log = logging.getLogger(__name__)
Taken = TypeVar("Taken")
Gone = Callable[[Process, Path], bool | None]
"""Whether the holder of a lock file is gone; None where this cannot be seen."""


@contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for the moment that the block takes; it is deleted afterwards. Longer work is for a claim.

    what: what is locked, for the message. Raises LockedError where another process holds it or may hold it.
    """
    held = take(path, this_process())
    if isinstance(held, Process):
        raise LockedError(f"{what}: locked by {held}{unseen(held, path)}; allowed: one process per folder")
    try:
        yield
    finally:
        held.release()


def when_free(take: Callable[[], Taken | Process], path: Path, what: str, wait: str) -> Taken:
    """What `take` returns as soon as it is no other process; with a line now and then."""
    said = -LINE_SECONDS
    while isinstance(taken := take(), Process):
        if time.monotonic() - said >= LINE_SECONDS:
            log.info("%s: waiting for %s, which %s%s", what, taken, wait, unseen(taken, path))
            said = time.monotonic()
        time.sleep(POLL_SECONDS)
    return taken


def unseen(holder: Process, path: Path, waits: bool = True) -> str:
    """What somebody has to do about a lock whose process cannot be seen, and that has no heartbeat or is not waited
    for."""
    if gone_from(holder, path) is not None:
        return ""
    return "" if waits and holder.beats > 0 else f", which cannot be seen from here: delete {path} if it is gone"


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
            _remove(self.path, self.own, self.own, gone_from)
        os.close(self.handle)


def take(path: Path, own: Process, gone: Gone | None = None) -> Held | Process:
    """Take a lock that nobody holds; the holder where somebody does. gone: as `gone_from`, which is the default."""
    with _guard(path.parent):
        holder = holder_of(path)
        if holder is not None:
            if not (gone or gone_from)(holder, path):
                return holder
            if not _remove(path, holder, own, gone or gone_from):
                return holder_of(path) or Process("another machine", -1)
        return _link(path, own)


def _link(path: Path, own: Process) -> Held | Process:
    """Write a lock file where there is none; the holder where another process was quicker."""
    temporary = path.with_name(f".{path.name}.{process_tag()}.tmp")
    handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    own = replace(own, flocked=_flock(handle))
    try:
        os.write(handle, json.dumps(asdict(own)).encode())
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


def _remove(path: Path, holder: Process, own: Process, gone: Gone) -> bool:
    """Delete the lock file of a holder; returns whether this process did.

    Machines that see one dead holder at once must not delete the lock that the quickest of them took since. Who
    deletes a holder's file therefore has the lock of its removal, which is named after that holder, and looks again.
    """
    named = hashlib.sha256(json.dumps(asdict(holder)).encode()).hexdigest()[:16]
    removal = path.with_name(f".{path.name}.{named}{REMOVAL}")
    found = holder_of(removal)
    if found is not None and (not gone(found, removal) or not _remove(removal, found, own, gone)):
        return False
    held = _link(removal, own)
    if isinstance(held, Process):
        return False
    try:
        if holder_of(path) != holder:
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        removal.unlink(missing_ok=True)
        os.close(held.handle)


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
        with suppress(OSError):  # file systems without flock
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
