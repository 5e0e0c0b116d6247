"""What each worker is at: a small file for every one of them, written now and then, deleted when it ends.

A file that a killed worker has left names the unit that it had: whoever takes that unit knows that it was tried.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lcprobe.files import write_json
from lcprobe.locks import Process, process_tag, this_process
from lcprobe.studies.status import WORK

WORKERS = "workers"
WRITE_SECONDS = 2.0
"""Between two states of a file, at least."""


@dataclass(frozen=True)
class Report:
    """process: host, number and start of the worker. kind: `train` or `probe`, empty between units; unit: of it;
    done, total: steps, or tokens of a model's questions; first: what was done when this process took it; seconds:
    since then. log: the file that it prints to, empty where that is not known."""

    process: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    unit: str = ""
    since: str = ""
    what: str = ""
    done: int = 0
    total: int = 0
    first: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None
    loss: float | None = None
    log: str = ""

    @property
    def who(self) -> Process:
        """The worker."""
        known = {f.name for f in fields(Process)}
        return Process(**{name: value for name, value in self.process.items() if name in known})

    @property
    def pace(self) -> float | None:
        """Of steps or tokens, per second; None before there is one."""
        return (self.done - self.first) / self.seconds if self.seconds > 0 and self.done > self.first else None


class Reporter:
    """Writes the file of this worker."""

    def __init__(self, study: Path, log: str = "", clock: Callable[[], float] = time.monotonic):
        self.path = study / WORK / WORKERS / f"{process_tag()}.json"
        self._log, self.clock, self._next = log, clock, 0.0
        self._now = Report(asdict(this_process()), log=log)

    def begin(self, kind: str, unit: str) -> None:
        """A unit was taken."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._write(Report(self._now.process, kind, unit, since, log=self._log))

    def at(self, **changes: Any) -> None:
        """The unit is so far; see Report."""
        if self.clock() >= self._next:
            self._write(replace(self._now, **changes))

    def end(self) -> None:
        """No unit is in hand."""
        self._write(Report(self._now.process, log=self._log))
        self._next = 0.0

    def close(self) -> None:
        """The worker ends."""
        with suppress(OSError):
            self.path.unlink()

    def _write(self, report: Report) -> None:
        self._now, self._next = report, self.clock() + WRITE_SECONDS
        with suppress(OSError):  # a full disk: the work goes on
            write_json(self.path, asdict(report))


def read_reports(study: Path) -> dict[Path, Report]:
    """What workers are at, by file; those of dead ones included."""
    found = {}
    names = {f.name for f in fields(Report)}
    for path in sorted((study / WORK / WORKERS).glob("*.json")):
        with suppress(OSError, ValueError, TypeError):  # deleted meanwhile
            row = json.loads(path.read_text(encoding="utf-8"))
            found[path] = Report(**{name: row[name] for name in names & row.keys()})
    return found


def take_reports(study: Path, wanted: Callable[[Report], bool], but: Path | None = None) -> list[Report]:
    """The reports that are wanted, deleted: of processes that are gone. Each is returned once, whoever asks. but: the
    asking process's own."""
    taken = []
    for path, report in read_reports(study).items():
        if path != but and wanted(report):
            with suppress(OSError):
                path.unlink()  # fails for all but one of those who try
                taken.append(report)
    return taken
