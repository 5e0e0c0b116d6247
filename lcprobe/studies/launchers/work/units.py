"""The loop of a worker: take a unit of work that is free, do it, look again, until nothing is left.

A unit is claimed by an exclusively created file with a heartbeat, so that one process has it; what is done stays
done, and what a dead process had goes on where it was saved.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from lcprobe.errors import LockedError, StoppedEarly, StoppedUnsaved, exit_code_of
from lcprobe.locks import BEAT_SECONDS, Claim, ClaimLost, Claims, Process, is_gone, require_kept, this_process
from lcprobe.studies.launchers.contract import last_line_of
from lcprobe.studies.launchers.work.failures import (
    Failure,
    append_failure,
    failure_of,
    read_failures,
    reason_to_give_up,
)
from lcprobe.studies.launchers.work.reports import Reporter, take_reports

log = logging.getLogger(__name__)
WAIT_SECONDS = 1.0
"""Between two looks at what others have."""


class Unit(Protocol):
    """A piece of work that can be begun again at any time, and is done once."""

    @property
    def name(self) -> str:
        """Unique in the study."""
        ...

    @property
    def kind(self) -> str:
        """Of its reports."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of units that must be done before."""
        ...

    @property
    def claims(self) -> tuple[Claims, str]:
        """Where, and by what name, it is claimed."""
        ...

    @property
    def failures(self) -> Path:
        """The file of its failures."""
        ...

    @property
    def settings(self) -> str:
        """Digest of what its failures depend on: those under others say nothing of it."""
        ...

    def is_done(self) -> bool:
        """Whether nothing is left of it."""
        ...

    def progress(self) -> int:
        """How far it is saved; grows."""
        ...

    def run(self, kept: "Kept", report: Reporter) -> None:
        """Do what is left. Calls `kept` before what another process must not find changed."""
        ...


U = TypeVar("U", bound=Unit)


@dataclass
class Kept:
    """Called now and then, asks whether the claim is still this process's, no more often than it may be lost. Raises
    ClaimLost."""

    claim: Claim
    clock: Callable[[], float] = time.monotonic
    _asked: float = field(default=float("-inf"))

    def __call__(self) -> None:
        if self.clock() - self._asked > BEAT_SECONDS:
            self._asked = self.clock()
            require_kept(self.claim)


@dataclass(frozen=True)
class Rules:
    """Of a launch. launch: its number; retries: times that a unit is tried again."""

    study: Path
    launch: int
    retries: int

    def given_up(self, unit: Unit) -> Failure | None:
        """The failure after which a unit is not tried again; None: it may be."""
        return reason_to_give_up(read_failures(unit.failures, unit.name), self.launch, self.retries, unit.settings)

    def note(self, unit: Unit, process: Process, exit: int | None, why: str) -> Failure:
        """Keep a failure of a unit, which is as far as it is now."""
        failure = failure_of(unit.name, process, exit, why, unit.progress(), self.launch, unit.settings)
        append_failure(unit.failures, failure)
        return failure


def take_all(
    units: Sequence[Unit], rules: Rules, report: Reporter, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Failure]:
    """Do units until all are done or given up, by this process or others. Returns those given up, with the reason;
    those that need one of them are left."""
    while True:
        left, lost = unfinished(units, rules)
        if not left:
            return lost
        names = {unit.name for unit in left}
        if not any(_tried(unit, rules, report) for unit in left if not names & {*unit.needs}):
            sleep(WAIT_SECONDS)


def unfinished(units: Sequence[U], rules: Rules) -> tuple[list[U], dict[str, Failure]]:
    """The units that are neither done nor given up, nor need one that is; and those that are given up."""
    open_ = [unit for unit in units if not unit.is_done()]
    lost = {unit.name: why for unit in open_ if (why := rules.given_up(unit)) is not None}
    left = [unit for unit in open_ if unit.name not in lost]
    blocked: Mapping[str, object] = dict(lost)
    while stuck := [unit for unit in left if {*unit.needs} & blocked.keys()]:
        blocked = {**blocked, **{unit.name: None for unit in stuck}}
        left = [unit for unit in left if unit not in stuck]
    return left, lost


def _tried(unit: Unit, rules: Rules, report: Reporter) -> bool:
    """Do a unit, if it is free; whether it was tried."""
    claims, name = unit.claims
    claim = claims.take(name)
    if isinstance(claim, Process):
        return False
    try:
        _note_deaths(unit, rules, report)
        if unit.is_done() or rules.given_up(unit) is not None:  # now, as nobody else can change it
            return False
        report.begin(unit.kind, unit.name)
        unit.run(Kept(claim), report)
        return True
    except StoppedEarly:  # as it was told to: this process ends
        raise
    except ClaimLost as error:
        log.warning("%s: %s", unit.name, error)
        return True
    except LockedError:  # somebody trains it who is no worker
        return False
    except Exception as error:
        why = f"{type(error).__name__}: {error}" if exit_code_of(error) == 1 else str(error)
        failure = rules.note(unit, this_process(), exit_code_of(error), why)
        log.warning("%s failed: %s", unit.name, failure, exc_info=exit_code_of(error) == 1)
        if isinstance(error, StoppedUnsaved):  # it was told to end all the same
            raise
        return True
    finally:
        report.end()
        claim.release()


def _note_deaths(unit: Unit, rules: Rules, report: Reporter) -> None:
    """Note, once, that processes died, or lost their claim, with a unit that this one has now."""
    for left in take_reports(rules.study, lambda r: (r.kind, r.unit) == (unit.kind, unit.name), report.path):
        why = "its process is gone" if is_gone(left.who) else "its process stands still, or is cut off"
        why += f"; it had printed: {last_line_of(Path(left.log))}" if left.log else ""
        rules.note(unit, left.who, None, why)
