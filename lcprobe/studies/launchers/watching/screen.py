"""Implements `lcprobe status`: the state of a study as a table, as JSON, or again and again."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcprobe.files import finite
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.launchers.watching.pace import seconds_left, share_done
from lcprobe.studies.launchers.watching.state import StudyState, UnitState, study_state
from lcprobe.words import duration, short

KINDS = {"trial": "trials", "run": "runs", "model": "models of the probe"}
WATCH_SECONDS = 2.0
CLEAR = "\x1b[2J\x1b[H"
"""Of a terminal."""


def show_status(folder: Path, watch: bool = False, as_json: bool = False) -> None:
    """Print the state; watch: until nothing is running and nothing waits. Raises DataError as `study_state`."""
    while True:
        state = study_state(folder)
        if watch and sys.stdout.isatty():
            print(CLEAR, end="")
        if as_json:
            print(json.dumps(as_facts(state), ensure_ascii=False, allow_nan=False), flush=True)
        else:
            _print(state)
        if not watch or not (state.of("running") or state.of("waiting")):
            return
        time.sleep(WATCH_SECONDS)


def as_facts(state: StudyState) -> dict[str, Any]:
    """The state as plain values."""
    counts = {name: len(state.of(name)) for name in ("done", "running", "failed", "waiting")}
    facts = {
        "study": str(state.folder),
        **counts,
        "share": share_done(state.units),
        "eta_seconds": seconds_left(state),
    }
    units = [{key: finite(value) for key, value in asdict(unit).items()} for unit in state.units]
    return facts | {"idle_workers": state.idle, "units": units}


def summary(state: StudyState, kinds: tuple[str, ...] = ("trial", "run", "model")) -> tuple[str, str, float]:
    """`training: 2 of 6 units done, 2 running (mamba2 step 40/100), 1 failed`, `1:20 left`, and the share done."""
    own = StudyState(state.folder, tuple(unit for unit in state.units if unit.kind in kinds), state.idle)
    running, failed = own.of("running"), own.of("failed")
    text = f"{len(own.of('done'))} of {len(own.units)} done, {len(running)} running"
    if running:
        more = f", {len(running) - 3} more" if len(running) > 3 else ""
        text += f" ({', '.join(f'{unit.name} {_how_far(unit)}' for unit in running[:3])}{more})"
    if failed:
        text += f", {len(failed)} failed"
    left = seconds_left(own)
    what = "probing" if kinds == ("model",) else "training"
    return f"{what}: {text}", "" if left is None else f"{duration(left)} left", share_done(own.units)


def _print(state: StudyState) -> None:
    for kind, title in KINDS.items():
        units = [unit for unit in state.units if unit.kind == kind]
        if units:
            print_rows([_row(unit) for unit in units], title)
    say("", *_reasons(state.units))
    counts = ", ".join(f"{len(state.of(name))} {name}" for name in ("done", "running", "failed", "waiting"))
    left, open_ = seconds_left(state), state.of("running") or state.of("waiting")
    rest = "" if not open_ else "; time left is not known yet" if left is None else f"; {duration(left)} left"
    if open_ and not state.of("running"):
        rest += f", once it goes on (lcprobe work {state.folder})"
    say(f"{state.folder}: {counts}, {share_done(state.units):.0%}{rest}")


def _row(unit: UnitState) -> dict[str, Any]:
    who = "; ".join(f"process {w.pid} on {w.host} since {w.since}" for w in unit.workers)
    beats = [w.beat for w in unit.workers if w.beat is not None]
    return {
        "name": unit.name,
        "state": unit.state,
        "done": _how_far(unit),
        "tokens/s": "" if unit.tokens_per_second is None else short(unit.tokens_per_second),
        "by": who,
        "last sign": f"{max(beats):.0f} s ago" if beats else "",
        "failures": unit.failures or "",
    }


def _how_far(unit: UnitState) -> str:
    what = "units" if unit.kind == "model" else "step"
    return f"{unit.done}/{unit.total} {what}" if unit.kind == "model" else f"{what} {unit.done}/{unit.total}"


def _reasons(units: Iterable[UnitState]) -> list[str]:
    return [f"{unit.name}: {unit.why}" for unit in units if unit.why and unit.state != "done"]
