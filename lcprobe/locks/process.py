"""Processes as others see them: named so that one which is gone is told from one that runs.

A process is named by its machine (host name, and the boot, which is another one after a restart), its number, and the
moment when it started: numbers come back after a while, and in containers at once. What another machine runs nobody
here can see.
"""

import os
import re
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process on some machine. boot: id of the machine's boot; namespace: of process numbers, which containers have
    of their own; started: clock ticks from boot; since: the time of day when it took the lock; flocked: whether it
    holds an flock on the file too; beats: seconds between its heartbeats, 0 without. Empty or 0: unknown."""

    host: str = ""
    pid: int = 0
    boot: str = ""
    namespace: str = ""
    started: int = 0
    since: str = ""
    flocked: bool = False
    beats: float = 0.0

    @property
    def name(self) -> str:
        """`process 7 on node-3`."""
        return f"process {self.pid} on {self.host}"

    def __str__(self) -> str:
        return self.name + (f" since {self.since}" if self.since else "")


def this_process() -> Process:
    """This process, as others see it."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return Process(socket.gethostname(), os.getpid(), boot_id(), _namespace(), started_at(os.getpid()), now)


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
    return process.started != started_at(process.pid) if process.started else None


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


def boot_id() -> str:
    """The machine's boot; empty where it is unknown."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that run; none where the system does not say."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def end_tree(pid: int) -> None:
    """SIGKILL to a process and all that it has started, also those in sessions of their own, as torchrun's."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # so that it starts no more, nor sees that they end
        for child in children_of(pid):
            end_tree(child)
        os.kill(pid, signal.SIGKILL)


def _namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def started_at(pid: int) -> int:
    """Clock ticks from boot to a process's start; 0 where this is unknown. See proc(5), field 22 of stat."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return 0


def _runs(pid: int) -> bool:
    """A process that was killed, and whose parent has not looked yet, does not."""
    with suppress(OSError, IndexError):
        if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
