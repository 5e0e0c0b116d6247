"""Lines that several processes of a start have, said once on each machine.

A setting that is refused or a file that is not there is mostly refused in all processes of a run, and may be missing
on one machine alone: before the processes have joined, none knows what the others have. So who has a line looks for a
file by which another process of the same start and machine says that it has said it, and creates it exclusively. The
first process of the machine comes first: the others wait a moment for it. What all are known to have is left to the
first of all machines without this (`errors.leave_to_another`).
"""

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from lcprobe.locks.process import process_tag, started_at

WAIT_SECONDS = 1.0
"""In which the first process of a machine says a line that the others have, too."""
SKEW_SECONDS = 1.0
"""Between the starts of the processes of a machine, at most: an older file is of an earlier start."""
DAY_SECONDS = 86_400.0


def is_said_by_another(line: str) -> bool:
    """Whether another process of this start, on this machine, says a line; where that cannot be seen, it does not."""
    if not any(os.environ.get(name, "").strip() not in ("", "1") for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")):
        return False
    local_rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    until = time.monotonic() + (0.0 if local_rank == "0" else WAIT_SECONDS)
    try:
        path = _path(line)
        while not _is_said(path):
            if time.monotonic() >= until:
                return not _is_first(path)
            time.sleep(0.02)
        return True
    except OSError:
        return False


def wait_until_said(line: str) -> None:
    """Wait, not for long, until the first process of this machine has said a line: a launcher ends all as one ends,
    whether they have spoken or not."""
    until = time.monotonic() + WAIT_SECONDS
    with suppress(OSError):
        path = _path(line)
        while not _is_said(path) and time.monotonic() < until:
            time.sleep(0.02)


def _path(line: str) -> Path:
    """The file that says that a line is said: of the processes that one process has started to meet at one port."""
    folder = Path(tempfile.gettempdir()) / f"lcprobe-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: another user's")
    machine = process_tag().split("-")[:2]
    start = [*machine, str(os.getppid()), os.environ.get("MASTER_PORT", ""), os.environ.get("SLURM_STEP_ID", "")]
    return folder / f"said-{hashlib.sha256(os.fsencode(chr(0).join([*start, line]))).hexdigest()[:32]}"


def _is_said(path: Path) -> bool:
    """Whether another process has said it since this one was started."""
    try:
        by, age = path.read_text(encoding="ascii"), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    ticks = started_at(os.getpid())
    if by == str(os.getpid()) or not ticks:
        return False
    return age <= time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK") + SKEW_SECONDS


def _is_first(path: Path) -> bool:
    """Note that this process says it; False: another one was quicker."""
    for other in path.parent.glob("said-*"):
        with suppress(OSError):  # deleted meanwhile
            if other == path or time.time() - other.stat().st_mtime > DAY_SECONDS:
                other.unlink()  # of an earlier start
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(handle, str(os.getpid()).encode())
    finally:
        os.close(handle)
    return True
