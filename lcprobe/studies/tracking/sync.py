"""`lcprobe sync`: sends what was tracked offline to W&B, every run once.

A run that was interrupted, or probed after training, has several W&B folders, of which the newest has everything: it
alone is sent, and replaces what W&B has of the run. Where the process of the newest was killed before it had
everything, it is an older one, and that is said. What was sent is remembered by content and server beside it, so that
the next call sends what is new. W&B's own client uploads.
"""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lcprobe.errors import ConfigError, LcprobeError, Said, ServerError
from lcprobe.files import digest_file, read_json, write_json
from lcprobe.locks import waited_claim
from lcprobe.studies.console import say
from lcprobe.studies.tracking.identity import IDENTITY
from lcprobe.studies.tracking.log_file import read_log
from lcprobe.studies.tracking.modes import credentials, fault_of, server, unreachable
from lcprobe.words import counted

SENT = "sent.json"
"""In a W&B folder: digest of the log that was sent, by server."""
TORN = "ends with an incomplete record"
"""What W&B's client says of a log whose complete rows it has sent."""
_FOLDER = re.compile(r"(offline-)?run-(\d{8}_\d{6})-(.+)")


@dataclass(frozen=True)
class Tracked:
    """A folder of W&B. log: its file of records; begun: when, as its name says."""

    log: Path
    id: str
    begun: str
    offline: bool

    def is_sent(self, address: str) -> bool:
        """Whether a server has it as it is."""
        try:
            return read_json(self.log.parent / SENT)[address] == digest_file(self.log)
        except (OSError, ValueError, KeyError, TypeError):
            return False


@dataclass(frozen=True)
class Plan:
    """What is to be done. send: the newest whole folder of each run, where it is offline and not sent. sent: runs
    that the server has. superseded: folders of which another one has everything. notes: on folders that are passed
    over, though they are newer."""

    send: list[Tracked]
    sent: int
    superseded: int
    notes: list[str] = field(default_factory=list)


def sync(folders: list[Path]) -> None:
    """Send what was tracked offline in the folders of studies, or of runs.

    Raises ConfigError where nothing was tracked, ServerError without credentials or answer, and for runs that could
    not be sent.
    """
    found = list({one.log.resolve(): one for folder in folders for one in tracked_in(folder)}.values())
    if not found:
        allowed = "a folder with runs that were tracked offline (track.wandb=offline)"
        raise ConfigError("sync", ", ".join(map(str, folders)), allowed)
    try:
        address = server()
        has_credentials, fault = credentials()
    except LcprobeError:
        raise
    except Exception as error:  # of W&B's settings, or of its installation
        raise ConfigError("W&B's settings", Said(fault_of(error)), "settings that W&B itself can read") from None
    if not has_credentials:
        given = fault or "it has no credentials"
        raise ServerError(f"W&B: {given} (for {address}); allowed: `wandb login`, or WANDB_API_KEY")
    if reason := unreachable(address):
        raise ServerError(f"W&B: {reason}; nothing was sent")
    with ExitStack() as claims:
        for study in sorted({_study_of(one.log) for one in found}):  # in order: two of us do not wait for each other
            claims.enter_context(waited_claim(study, "sync", str(study), wait="sends it to W&B"))
        plan = plan_of(found, address)
        say(*plan.notes)
        failed = _send(plan.send, address)
    for one in plan.send:
        if one not in failed:
            say(f"sent: {one.log.parent}")
    there = f"{plan.sent} there already, {counted(plan.superseded, 'folder')} superseded by others"
    say(f"{counted(len(plan.send) - len(failed), 'run')} sent to {address} ({there})")
    if failed:
        names = ", ".join(str(one.log.parent) for one in failed)
        raise ServerError(f"W&B did not take {names}; the same command sends them again")


def _study_of(log: Path) -> Path:
    """The study's folder that a log of W&B lies in, whichever folder was asked for; without one, the run's."""
    run = log.resolve().parents[2]
    return next((folder for folder in (run, *run.parents) if (folder / IDENTITY).is_file()), run)


def tracked_in(folder: Path) -> list[Tracked]:
    """The W&B folders below a folder, each once."""
    found: dict[Path, Tracked] = {}
    for log in sorted(folder.rglob("*.wandb")):
        match = _FOLDER.fullmatch(log.resolve().parent.name)
        if match:
            found[log.resolve()] = Tracked(log, match[3], match[2], match[1] is not None)
    return list(found.values())


def plan_of(found: list[Tracked], address: str) -> Plan:
    """What is to be sent to a server. A run that went on online is there."""
    runs: dict[str, list[Tracked]] = {}
    for one in sorted(found, key=lambda one: (one.begun, one.offline)):
        runs.setdefault(one.id, []).append(one)
    notes: list[str] = []
    chosen = [one for folders in runs.values() if (one := _whole(folders, notes)) is not None]
    send = [one for one in chosen if one.offline and not one.is_sent(address)]
    superseded = {one.log for one in found if one.offline} - {one.log for one in chosen}
    return Plan(sorted(send, key=lambda one: one.begun), len(chosen) - len(send), len(superseded), notes)


def _whole(folders: list[Tracked], notes: list[str]) -> Tracked | None:
    """The newest folder of a run that has all that an older one has, with notes on newer ones; None: no folder has
    anything. folders: in the order of time. What a folder that was online
    lacks, the server has."""
    chosen, logged, passed = None, None, list[tuple[Tracked, str]]()
    for one in reversed(folders):
        own = read_log(one.log)
        if own is None and chosen is None:
            passed.append((one, "it is empty or torn"))
        if own is None or (logged is not None and logged.replaces(own)):
            continue
        if chosen is not None and logged is not None:
            more = f"goes to {own.tokens:,.0f} tokens" if own.tokens > logged.tokens else "has more results"
            passed.append((chosen, f"it was cut off, an older one {more}"))
        chosen, logged = one, own
        if not one.offline:
            break
    instead = "nothing is sent of its run" if chosen is None else f"{chosen.log.parent.name} is taken instead"
    notes += [f"{one.log.parent}: {why}; {instead}" for one, why in passed]
    return chosen


def _send(runs: list[Tracked], address: str) -> list[Tracked]:
    """Upload with W&B's client; those that it did not finish."""
    if not runs:
        return []
    digests = {one: digest_file(one.log) for one in runs}
    for one in runs:
        _done(one).unlink(missing_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_RUN_ID")}
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", *(str(one.log) for one in runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    torn = {one for one in runs if any(one.log.parent.name in line and TORN in line for line in lines)}
    for one in torn:
        say(f"{one.log.parent}: its last row is incomplete (its process was killed, or goes on); the others are sent")
    for one, digest in digests.items():
        if _done(one).is_file() or one in torn:
            before = read_json(one.log.parent / SENT) if (one.log.parent / SENT).is_file() else {}
            write_json(one.log.parent / SENT, {**before, address: digest})
    failed = [one for one in runs if not _done(one).is_file() and one not in torn]
    if failed:
        say(*[line for line in lines if "rror" in line or "ailed" in line][-5:])
    return failed


def _done(one: Tracked) -> Path:
    """What W&B's client writes when a log has been uploaded to its end."""
    return one.log.with_suffix(".wandb.synced")
