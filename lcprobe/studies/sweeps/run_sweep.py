"""Trains the trials of a sweep one after another on this machine, as an agent of W&B would."""

import logging
import math
from pathlib import Path
from typing import Any

from lcprobe.config import load
from lcprobe.errors import NumericsError
from lcprobe.files import write_json
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.sweeps.sweep_file import Sweep, Trial
from lcprobe.studies.tracking import final_loss, read_metrics
from lcprobe.studies.training.sweep_trial import one_run
from lcprobe.studies.training.train_study import train_study

log = logging.getLogger(__name__)
FINAL_LOSS = "train/final_loss"


def run_sweep(sweep: Sweep, trials: list[Trial], overrides: list[str]) -> None:
    """Train every trial, and write sweep.json into the study's folder, the best one first.

    overrides: key=value on top of all trials. A trial that diverges has no value, and does not end the sweep.
    """
    rows, folder = [], Path()
    for number, trial in enumerate(trials, start=1):
        mapping = _mapping(sweep, trial, overrides)
        run = make_plan(mapping).runs[0]
        folder = run.folder.parent
        say(f"trial {number} of {len(trials)}: {run.name}")
        try:
            train_study(mapping)
        except NumericsError as error:
            log.warning("%s diverged (%s)", run.name, error)
        rows.append({"trial": run.name, **trial, sweep.metric or FINAL_LOSS: _value(run.folder, sweep.metric)})
    rows.sort(key=lambda row: _order(row[sweep.metric or FINAL_LOSS], sweep.maximize))
    write_json(folder / "sweep.json", {"metric": sweep.metric or FINAL_LOSS, "trials": rows})
    print_rows(rows, "trials, the best first")
    say(f"swept: {folder / 'sweep.json'}")


def print_trials(sweep: Sweep, trials: list[Trial], overrides: list[str]) -> None:
    """Check and print the trials without training them."""
    names = [make_plan(_mapping(sweep, trial, overrides)).runs[0].name for trial in trials]
    print_rows([{"trial": name, **trial} for name, trial in zip(names, trials, strict=True)], f"{len(trials)} trials")


def _mapping(sweep: Sweep, trial: Trial, overrides: list[str]) -> dict[str, Any]:
    words = [*sweep.words(trial), *overrides]
    files = [word for word in words if "=" not in word]
    return dict(one_run(load(files, [word for word in words if "=" in word]), _name(trial)))


def _name(trial: Trial) -> str:
    """`lr=0.01-d_model=64`, in the letters that folders have."""
    values = {key.rpartition(".")[2]: f"{v:g}" if isinstance(v, float) else str(v) for key, v in trial.items()}
    name = "-".join(f"{key}={value}" for key, value in values.items())
    return "".join(c if c.isalnum() or c in "._+=-" else "_" for c in name)[:100] or "trial"


def _value(folder: Path, metric: str | None) -> float | None:
    """The metric of a trial: its final loss, or the last value in its rows; None without one."""
    rows = read_metrics(folder / "metrics.csv")
    if metric in (None, FINAL_LOSS):
        value = final_loss(rows)
    else:
        value = next((row[metric] for row in reversed(rows) if metric in row), math.nan)
    return value if math.isfinite(value) else None


def _order(value: float | None, maximize: bool) -> float:
    return math.inf if value is None else -value if maximize else value
