"""What is done, running, failed and waiting of a study, from its files alone: nothing is planned, no model is built,
no torch is imported, and nothing is written but a file without a name, whose date is the time by the clock that dates
the others."""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lcprobe.errors import DataError, NumericsError
from lcprobe.locks import OWNER, Process, gone_from, holder_of, is_gone
from lcprobe.probing.store import Store, text_store
from lcprobe.studies.launchers.work.failures import FAILURES, read_failures, reason_to_give_up
from lcprobe.studies.launchers.work.orders import (
    PROBE,
    TRAIN,
    ProbeOrder,
    TrainOrder,
    known_units,
    probe_order,
    train_order,
)
from lcprobe.studies.launchers.work.reports import Report, read_reports
from lcprobe.studies.status import WORK, read_status
from lcprobe.studies.tracking.metrics_csv import read_metrics

State = Literal["done", "running", "failed", "waiting"]
DAMAGED = "damaged"
SILENT = 180.0
"""Seconds without a heartbeat after which a process is taken for gone."""


@dataclass(frozen=True)
class Worker:
    """Who is at a unit. beat: seconds since its last sign, None where it gives none."""

    host: str
    pid: int
    since: str
    beat: float | None = None


@dataclass(frozen=True)
class UnitState:
    """kind: trial, run, or model (of a probe). size: planned FLOPs, or tokens of questions; done: steps, or units of
    records, of total; share: of the size; seconds: that this took, 0 where unknown; pace: of the one in hand, share
    per second; workers: of a model several. failures: how often it failed; why: the last time."""

    kind: str
    name: str
    group: str
    state: State
    size: float
    done: int = 0
    total: int = 0
    share: float = 0.0
    seconds: float = 0.0
    pace: float | None = None
    tokens_per_second: float | None = None
    loss: float | None = None
    workers: tuple[Worker, ...] = ()
    failures: int = 0
    why: str = ""


@dataclass(frozen=True)
class StudyState:
    """Of a study's folder. units: trials, runs, then models of a probe."""

    folder: Path
    units: tuple[UnitState, ...]
    idle: int = field(default=0)
    """Workers that wait, or are between two units."""

    def of(self, state: State, kinds: tuple[str, ...] = ("trial", "run", "model")) -> list[UnitState]:
        """The units in a state."""
        return [unit for unit in self.units if unit.state == state and unit.kind in kinds]


class _Clock:
    """Ages of files of a folder, by the clock of its file system: a look from another machine, whose own clock may be
    another, gives the same."""

    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def _now(self) -> float:
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:  # a folder to read alone
            return time.time()

    def age(self, path: Path) -> float | None:
        """Seconds since a file was written or touched; None where there is none."""
        with suppress(OSError):
            return max(0.0, self._now - path.stat().st_mtime)
        return None

    def is_gone(self, who: Process, path: Path) -> bool:
        """Whether the holder of a lock or claim is gone: not one that is seen alive, however late its heartbeat."""
        gone = gone_from(who, path)
        if gone is None and who.beats:
            age = self.age(path)
            return age is not None and age > SILENT
        return bool(gone)


def study_state(folder: Path) -> StudyState:
    """The state now. Raises DataError for a folder in which no command has written what there is to do."""
    train, probe = known_units(folder, TRAIN), known_units(folder, PROBE)
    if not train and not probe:
        allowed = "a study's folder, in which train.py or evaluate.py of this version has begun"
        raise DataError(f"{folder}: nothing is known of what there is to do; allowed: {allowed}")
    clock = _Clock(folder)
    reports = [report for report in read_reports(folder).values() if not is_gone(report.who)]
    trained = train_order(folder) or TrainOrder()
    runs = [_train_unit(folder, unit, trained, reports, clock) for unit in train.get("units", [])]
    models = _probe_units(folder, probe, probe_order(folder) or ProbeOrder(), reports, clock)
    return StudyState(folder, (*runs, *models), sum(not report.unit for report in reports))


def _train_unit(
    study: Path, unit: Mapping[str, Any], order: TrainOrder, reports: list[Report], clock: _Clock
) -> UnitState:
    folder, steps = study / unit["folder"], int(unit["steps"])
    status, known = _quiet_status(folder), {k: unit[k] for k in ("kind", "name", "group")}
    failures = read_failures(folder / FAILURES, unit["name"])
    lost = reason_to_give_up(failures, order.launch, order.retries, unit.get("settings", ""))
    own = {"size": float(unit["flops"]), "total": steps, "failures": len(failures)}
    own |= {"why": str(failures[-1]) if failures else ""}
    if status.get("status") == DAMAGED:
        own |= {
            "why": f"{folder / 'status.json'} is damaged: not known to be done until it is deleted and train.py run"
        }
    step, seconds = _saved(folder)
    if status.get("status") == "done" and status.get("step", 0) >= steps:
        spent = float(status.get("seconds", seconds))
        return UnitState(**known, **own, state="done", done=steps, share=1.0, seconds=spent)
    own |= {"done": step, "share": min(1.0, step / steps), "seconds": seconds}
    holders = [holder_of(folder / OWNER), holder_of(study / WORK / f"{unit['name']}.claim")]
    paths = (folder / OWNER, study / WORK / f"{unit['name']}.claim")
    live = [
        (who, path)
        for who, path in zip(holders, paths, strict=True)
        if who is not None and not clock.is_gone(who, path)
    ]
    if live:
        who, path = live[0]
        report = next((r for r in reports if r.kind == TRAIN and r.unit == unit["name"] and r.total), None)
        own |= _in_hand(report, folder, step, steps)
        worker = Worker(who.host, who.pid, who.since, clock.age(path) if who.beats else None)
        return UnitState(**known, **own, state="running", workers=(worker,))
    if lost is not None:
        final = lost.exit == NumericsError.exit_code and unit["kind"] == "trial"
        return UnitState(**known, **own, state="done" if final else "failed")
    return UnitState(**known, **own, state="waiting")


def _in_hand(report: Report | None, folder: Path, step: int, steps: int) -> dict[str, Any]:
    """How far a run in hand is: as its worker says, else as its metrics do."""
    if report is not None:
        own: dict[str, Any] = {"done": report.done, "share": min(1.0, report.done / steps), "loss": report.loss}
        own["tokens_per_second"] = report.tokens_per_second
        if report.pace is not None:
            own |= {"pace": report.pace / steps, "seconds": 0.0}
        return own
    with suppress(OSError, ValueError):
        rows = [row for row in read_metrics(folder / "metrics.csv") if "train/tokens_per_second" in row]
        last = rows[-1] if rows else {}
        at = max(step, int(last.get("step", 0)))
        own = {"done": at, "share": min(1.0, at / steps), "loss": last.get("train/loss")}
        return own | {"tokens_per_second": last.get("train/tokens_per_second")}
    return {}


def _probe_units(
    study: Path, file: Mapping[str, Any], order: ProbeOrder, reports: list[Report], clock: _Clock
) -> list[UnitState]:
    """One for each model: its units of records, who is at them, and what failed."""
    if not file:
        return []
    records, texts = Store(study / "records"), text_store(study)
    claims = {**_live(records.folder, clock), **_live(texts.folder, clock)}
    found = []
    for model in file["models"]:
        name, units = model["name"], model["units"]
        done = [unit for unit in units if records.has(unit)]
        tokens, finished = sum(units.values()), sum(units[unit] for unit in done)
        text = [model["text"]] if model["text"] else []
        n_done = len(done) + sum(texts.has(unit) for unit in text)
        total = len(units) + len(text)
        complete = n_done + len(model["unmade"]) >= total and (study / model["notes"]).is_file()
        working = [report for report in reports if report.kind == PROBE and report.unit == name]
        who = {
            (claims[group].host, claims[group].pid): claims[group]
            for group in [*model["groups"], *text]
            if group in claims
        }
        failures = read_failures(study / WORK / FAILURES, name)
        lost = reason_to_give_up(failures, order.launch, order.retries, order.digest)
        state: State = "done" if complete else "running" if who else "failed" if lost is not None else "waiting"
        paces = [report.pace for report in working if report.pace is not None]
        found.append(
            UnitState(
                "model", name, name, state, float(tokens), n_done, total,
                share=1.0 if complete else finished / max(tokens, 1),
                pace=sum(paces) / max(tokens, 1) if paces else None,
                tokens_per_second=sum(paces) if paces else None,
                workers=() if complete else tuple(who.values()),
                failures=len(failures), why=str(failures[-1]) if failures else "",
            )
        )  # fmt: skip
    return found


def _live(folder: Path, clock: _Clock) -> dict[str, Worker]:
    """Who has a claim in a folder, by its name."""
    found = {}
    for path in folder.glob("*.claim"):
        who = holder_of(path)
        if who is not None and not clock.is_gone(who, path):
            found[path.name.removesuffix(".claim")] = Worker(who.host, who.pid, who.since, clock.age(path))
    return found


def _saved(folder: Path) -> tuple[int, float]:
    """Steps and seconds at the newest checkpoint that is whole."""
    for path in sorted((folder / "checkpoints").glob("step-*/state.json"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(path.read_text(encoding="utf-8"))
            return int(state["step"]), float(state["seconds"])
    return 0, 0.0


def _quiet_status(folder: Path) -> dict[str, Any]:
    """What status.json says; `status` alone, that it is damaged, where it is not what train.py writes."""
    try:
        found = read_status(folder)
        if not all(isinstance(found.get(name, 0), int | float) for name in ("step", "seconds")):
            return {"status": DAMAGED}
        return found
    except DataError:
        return {"status": DAMAGED}
    except OSError:
        return {}
