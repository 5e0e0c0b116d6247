"""Evaluations that are killed, and records that are damaged."""

import os
import signal
from pathlib import Path
from typing import Any

from lcprobe.probing.store.disk import Store
from lcprobe.probing.store.journal import checked_line
from lcprobe.records import Record
from validation.faults.files import _cut, _flip
from validation.faults.harness import Fault, Place


def _units(place: Place) -> list[Path]:
    return sorted((place.folder / "runs" / "tiny" / "records").glob("*.parquet"))


def _bit(place: Place) -> None:
    _flip(_units(place)[0], 0.4)


def _truncated(place: Place) -> None:
    _cut(_units(place)[0])


def _no_records(place: Place) -> None:
    for path in _units(place):
        path.unlink()


def _kill_in_batch(place: Place) -> None:
    """SIGKILL when half of a batch is in the journal."""

    def append(self: Store, journal: str, batch: list[Record]) -> None:
        line = checked_line(batch)
        self.journal(journal).write_bytes(line[: len(line) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Store.append = append  # type: ignore[method-assign]


def _kill_in_second(place: Place) -> None:
    """SIGKILL when the second unit is to be written, and the claim on it is there."""
    plain, finished = Store.finish, []

    def finish(self: Store, *args: Any, **kwargs: Any) -> None:
        finished.append(1)
        if len(finished) == 2:
            os.kill(os.getpid(), signal.SIGKILL if list(self.folder.glob("*.claim")) else signal.SIGABRT)
        plain(self, *args, **kwargs)

    Store.finish = finish  # type: ignore[method-assign]


SET_ASIDE = "allowed: evaluate.py (or lcprobe score) again, which redoes it"
FAULTS = (
    Fault("records: a bit", "a bit of a file of records flipped", 75, SET_ASIDE, records=True, damage=_bit),
    Fault("records: truncated", "half of a file of records", 75, SET_ASIDE, records=True, damage=_truncated),
    Fault(
        "SIGKILL in a batch",
        "SIGKILL in an evaluation when half of a batch is in the journal",
        -9,
        "",
        records=True,
        damage=_no_records,
        inject=_kill_in_batch,
        then_says="bytes of an interrupted batch, which is scored again",
    ),
    Fault(
        "SIGKILL in an evaluation",
        "when the second of two units is to be written; its claim stays",
        -9,
        "",
        records=True,
        damage=_no_records,
        inject=_kill_in_second,
    ),
)
