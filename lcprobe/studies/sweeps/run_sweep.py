"""Trains the trials of a sweep one after another on this machine, as an agent of W&B would."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.config import load, to_yaml
from lcprobe.errors import NumericsError
from lcprobe.files import remove_leftovers, write_atomic, write_json
from lcprobe.models.matching import mismatch_of
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.planning.plan import StudyPlan
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.sweeps.sweep_file import Sweep, Trial
from lcprobe.studies.tracking import final_loss, read_metrics
from lcprobe.studies.training.lr_sweep import progress_of, tune
from lcprobe.studies.training.study_progress import StudyProgress
from lcprobe.studies.training.sweep_trial import one_run
from lcprobe.studies.training.train_run import train_run
from lcprobe.studies.training.train_study import checked_plan, show_plan
from lcprobe.words import counted

log = logging.getLogger(__name__)
FINAL_LOSS = "train/final_loss"


def run_sweep(sweep: Sweep, trials: list[Trial], overrides: list[str]) -> None:
    """Train every trial, a line for each. The study's folder gets study.yaml, with an axis of trials, so that it is
    probed as any other, and sweep.json, the best trial first.

    overrides: key=value on top of all trials. A trial that diverges has no value, and does not end the sweep.
    """
    set_up_logging()
    keep_memory()
    mappings = {_name(trial): _mapping(sweep, trial, overrides) for trial in trials}
    plans = {name: checked_plan(mapping) for name, mapping in mappings.items()}
    whole, metric = _together(list(plans.values())), sweep.metric or FINAL_LOSS
    show_plan(whole, write=True)
    write_atomic(whole.folder / "study.yaml", to_yaml(_study(mappings)))
    rows = []
    with ProgressDisplay() as display:
        progress = progress_of(whole, display)
        for number, (plan, trial) in enumerate(zip(plans.values(), _distinct(trials), strict=True), start=1):
            run = plan.runs[0]
            done = _train(plan, display, progress)
            value = _value(run.folder, sweep.metric)
            shown = "no value" if value is None else f"{value:.4g}"
            say(f"trial {number} of {len(plans)}: {run.name}: {metric} {shown}, {done}")
            rows.append({"trial": run.name, **trial, metric: value})
    rows.sort(key=lambda row: _order(row[metric], sweep.maximize))
    write_json(whole.folder / "sweep.json", {"metric": metric, "trials": rows})
    remove_leftovers(whole.folder)
    print_rows(rows, "trials, the best first")
    say(f"swept: {whole.folder / 'sweep.json'}   next: python evaluate.py {whole.folder}")


def _train(plan: StudyPlan, display: ProgressDisplay, progress: StudyProgress) -> str:
    """Train the run of a trial; what there is to say of it."""
    use_kernels(plan.config.kernels)
    name = plan.runs[0].name
    try:
        run = tune(plan, progress_of(plan, display))[0][name]
        status = train_run(run, observer=progress.run(name))
    except NumericsError as error:
        progress.finished("run", name, 0)
        return f"diverged ({error})"
    progress.finished("run", name, status["seconds"])
    return f"{counted(status['tokens'], 'token')} in {status['seconds']:.0f} s"


def _together(plans: Sequence[StudyPlan]) -> StudyPlan:
    """The plans of the trials as one."""
    runs = [plan.runs[0] for plan in plans]
    notes = dict.fromkeys(note for plan in plans for note in plan.notes)
    return replace(plans[0], runs=runs, mismatch=mismatch_of([r.matched.amount for r in runs]), notes=tuple(notes))


def _distinct(trials: Sequence[Trial]) -> list[Trial]:
    """The trials without those that were drawn again."""
    return list({_name(trial): trial for trial in trials}.values())


def _study(mappings: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The config of the sweep as a study: the first trial's, and an axis with what each has other than that one."""
    configs = {
        name: {**mapping, "study": {k: v for k, v in mapping["study"].items() if k != "run"}}
        for name, mapping in mappings.items()
    }
    first = next(iter(configs.values()))
    return {**first, "grid": {"trial": {name: _changes(first, own) for name, own in configs.items()}}}


def _changes(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What one mapping has that another has not, mappings within them alike; lists as a whole."""
    changes = {}
    for key, value in own.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            changes |= {key: inner} if (inner := _changes(before, value)) else {}
        elif key not in base or before != value:
            changes[key] = value
    return changes


def print_trials(sweep: Sweep, trials: list[Trial], overrides: list[str]) -> None:
    """Check and print the trials without training them."""
    names = [checked_plan(_mapping(sweep, trial, overrides)).runs[0].name for trial in trials]
    print_rows([{"trial": name, **trial} for name, trial in zip(names, trials, strict=True)], f"{len(trials)} trials")


def _mapping(sweep: Sweep, trial: Trial, overrides: list[str]) -> dict[str, Any]:
    return dict(one_run(_loaded([*sweep.words(trial), *overrides]), _name(trial)))


def _loaded(words: Sequence[str]) -> dict[str, Any]:
    return load([word for word in words if "=" not in word], [word for word in words if "=" in word])


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
