"""failures.jsonl: why a unit of work failed, a line for each time, and when it is given up.

A unit is given up after so many failures without progress in between, and at once where trying again is of no use:
bad input, numbers that are not finite, no valid checkpoint. A later launch tries again, except after numerics under
the same settings, which would be the same again.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from lcprobe.errors import CheckpointError, LcprobeError, LockedError, NumericsError, StoppedEarly, ending
from lcprobe.locks import Process

FAILURES = "failures.jsonl"
FINAL = (LcprobeError.exit_code, NumericsError.exit_code, CheckpointError.exit_code)
"""Exit codes after which a unit is not tried again."""
WORST = (*FINAL, 1, 74, LockedError.exit_code, StoppedEarly.exit_code)
"""Exit codes, those first after which the same command does not go on."""


@dataclass(frozen=True)
class Failure:
    """Of a unit. exit: the exit code, below 0 for a signal, None where nobody saw it; why: its last line; at: how far
    the unit was (steps, finished units of records); launch: of which launch, counted from 1; settings: digest of the
    unit's settings, empty in files of versions that did not note it. file: that it was read from."""

    unit: str
    time: str
    host: str
    pid: int
    exit: int | None
    why: str
    at: int = 0
    launch: int = 0
    settings: str = ""
    file: str = ""

    def __str__(self) -> str:
        if self.exit is not None and self.exit < 0:  # what it printed last is no reason
            why = ending(self.exit) + (f"; it had printed: {self.why}" if self.why else "")
        else:
            why = (self.why or "no reason is known") + ("" if self.exit is None else f" (exit code {self.exit})")
        line = f"{why}, process {self.pid} on {self.host}, {self.time}"
        if self.exit != NumericsError.exit_code or not self.file:
            return line
        return f"{line}; it is tried again with other settings, or once {self.file} is deleted"


def failure_of(
    unit: str, process: Process, exit: int | None, why: str, at: int, launch: int, settings: str
) -> Failure:
    """A failure now."""
    line = next((one.strip() for one in reversed(why.splitlines()) if one.strip()), "")
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return Failure(unit, now, process.host, process.pid, exit, line[:500], at, launch, settings)


def as_command(code: int | None) -> int:
    """The exit code of a command whose worker ended with this one: after a signal, or where nobody saw the end, that
    of a process that was lost, after which the same command goes on; 1 for a defect."""
    if code is None or code < 0:
        return StoppedEarly.exit_code
    return code if code in WORST else 1


def worst_of(failures: Iterable[Failure]) -> Failure:
    """The failure that decides the exit code of a command; of equal ones the first."""
    return min(failures, key=lambda one: WORST.index(as_command(one.exit)))


def append_failure(path: Path, failure: Failure) -> None:
    """Add a line, durably; after one that a killed process has torn, on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {name: value for name, value in asdict(failure).items() if name != "file"}
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
        os.write(handle, (b"\n" if torn else b"") + json.dumps(row).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def read_failures(path: Path, unit: str) -> list[Failure]:
    """The failures of a unit, oldest first; lines that are not whole are passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found, names = [], {field.name for field in fields(Failure)} - {"file"}
    for line in lines:
        with suppress(ValueError, TypeError):
            row = json.loads(line)
            if isinstance(row, dict) and row.get("unit") == unit:
                found.append(replace(Failure(**{name: row[name] for name in names & row.keys()}), file=str(path)))
    return found


def reason_to_give_up(failures: Sequence[Failure], launch: int, retries: int, settings: str) -> Failure | None:
    """The failure after which a unit with these settings is not tried again in a launch; None: it may be tried."""
    same = [one for one in failures if one.settings == settings]
    numerics = [one for one in same if one.exit == NumericsError.exit_code]
    if numerics:
        return numerics[-1]
    own = [one for one in same if one.launch == launch]
    if not own:
        return None
    in_a_row = 0
    for one in reversed(own):
        if one.at != own[-1].at:
            break
        in_a_row += 1
    return own[-1] if own[-1].exit in FINAL or in_a_row > retries else None
