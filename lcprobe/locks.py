"""Locks between processes: a file that says who holds it, so that a lock of a process that is gone is taken over.

A process is named by its machine (host name, and the boot, which is another one after a restart), its number, and the
moment when it started: numbers come back after a while, and in containers at once. In another container of this
machine, an flock on the file tells whether its holder runs. What another machine runs nobody here can see: its lock
is explained, and stays.
"""

import fcntl
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lcprobe.errors import LockedError

OWNER = ".owner"
POLL_SECONDS, LINE_SECONDS = 0.5, 60.0
"""How often a waiting process looks, and says that it waits."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Process:
    """A process on some machine. boot: id of the machine's boot; namespace: of process numbers, which containers have
    of their own; started: clock ticks from boot; since: the time of day when it took the lock; flocked: whether it
    holds an flock on the file too. Empty or 0: unknown."""

    host: str = ""
    pid: int = 0
    boot: str = ""
    namespace: str = ""
    started: int = 0
    since: str = ""
    flocked: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" since {self.since}" if self.since else "")


def this_process() -> Process:
    """This process, as others see it."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return Process(socket.gethostname(), os.getpid(), _boot(), _namespace(), _started(os.getpid()), now)


def is_gone(process: Process) -> bool | None:
    """Whether a process does not run any more; None where this cannot be seen from here."""
    here = this_process()
    if process.pid <= 0:  # a damaged lock
        return True
    if process.boot and here.boot:
        if process.boot != here.boot:
            return True if process.host == here.host else None  # this machine was started again, or it is another
        if process.namespace != here.namespace:
            return None
    elif process.host != here.host:
        return None
    if process.pid == here.pid:
        return process.started != here.started
    if not _runs(process.pid):
        return True
    return process.started != _started(process.pid) if process.started else None


def process_tag() -> str:
    """This process in a few characters, for names of files that it may leave behind."""
    here = this_process()
    return f"{here.boot[:8]}-{re.sub('[^0-9]', '', here.namespace)}-{here.pid}-{here.started}"


def is_tag_gone(tag: str) -> bool | None:
    """`is_gone` of a process by its tag; None for what is no tag."""
    here, parts = this_process(), tag.split("-")
    if len(parts) != 4 or not parts[2].isdigit() or not parts[3].isdigit():
        return None
    if parts[:2] != process_tag().split("-")[:2]:
        return None
    return is_gone(replace(here, pid=int(parts[2]), started=int(parts[3])))


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
    own, said = this_process(), -LINE_SECONDS
    while isinstance(handle := _take(path, own), Process):
        holder, seen = handle, _is_gone(handle, path) is not None
        unseen = "" if seen else f", which cannot be seen from here: delete {path} if it is gone"
        if wait is None:
            raise LockedError(f"{what}: locked by {holder}{unseen}; allowed: one process per folder")
        if time.monotonic() - said >= LINE_SECONDS:
            log.info("%s: waiting for %s, which %s%s", what, holder, wait, unseen)
            said = time.monotonic()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        with _guard(path.parent):
            if _holder(path) == replace(own, flocked=_flock(handle)):
                path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path, own: Process) -> Process | int:
    """Take a lock that nobody holds, and return an open file that keeps its flock; the holder where somebody does."""
    temporary = path.with_name(f".{path.name}.{process_tag()}.tmp")
    with _guard(path.parent):
        holder = _holder(path)
        if holder is not None and not _is_gone(holder, path):
            return holder
        handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        try:
            os.write(handle, json.dumps(asdict(replace(own, flocked=_flock(handle)))).encode())
            if holder is not None:
                path.unlink(missing_ok=True)
            try:
                os.link(temporary, path)  # fails where another machine was quicker, as a rename would not
            except FileExistsError:
                os.close(handle)
                return _holder(path) or Process("another machine", -1)
            except OSError:  # a file system without links
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return handle


def _is_gone(holder: Process, path: Path) -> bool | None:
    """`is_gone`, and for a process in another container what the flock says."""
    gone = is_gone(holder)
    if gone is None and holder.flocked and holder.boot == _boot():
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


def _holder(path: Path) -> Process | None:
    """The process that a lock file names; an unknown one for a file that is not readable."""
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


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> int:
    """Clock ticks from boot to a process's start; 0 where this is unknown. See proc(5), field 22 of stat."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return 0


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
