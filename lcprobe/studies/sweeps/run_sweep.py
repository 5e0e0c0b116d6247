"""Trains the trials of a sweep one after another on this machine, as an agent of W&B would."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.choices import Choice
from lcprobe.config import load, parse, to_yaml
from lcprobe.errors import NumericsError, require
from lcprobe.files import remove_leftovers, write_atomic, write_json
from lcprobe.models.matching import mismatch_of
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.planning.plan import StudyPlan
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.status import read_status
from lcprobe.studies.sweeps.sweep_file import Sweep, Trial
from lcprobe.studies.sweeps.trial_names import named
from lcprobe.studies.tracking import final_loss, read_metrics
from lcprobe.studies.training.lr_sweep import progress_of, tune
from lcprobe.studies.training.study_progress import StudyProgress
from lcprobe.studies.training.sweep_trial import one_run, study_of
from lcprobe.studies.training.train_run import train_run
from lcprobe.studies.training.train_study import checked_plan, plan_to_train, show_plan
from lcprobe.words import counted

log = logging.getLogger(__name__)
FINAL_LOSS = "train/final_loss"


TrainTrials = Callable[[Sequence[StudyPlan], Mapping[str, dict[str, Any]]], bool]
"""Trains the trials of plans, given with their configs by name; whether they were waited for."""


def run_sweep(sweep: Sweep, trials: list[Trial], overrides: list[str], others: TrainTrials | None = None) -> None:
    """Train every trial, a line for each. The study's folder gets study.yaml, with an axis of trials, so that it is
    probed as any other, and sweep.json, the best trial first.

    overrides: key=value on top of all trials; others: who trains them, None: this process. A trial that diverges has
    no value, and does not end the sweep.
    """
    set_up_logging()
    keep_memory()
    own = named(trials)
    mappings = {name: _mapping(sweep, name, trial, overrides) for name, trial in own.items()}
    plans = {name: plan_to_train(mapping) for name, mapping in mappings.items()}
    whole, metric = _together(list(plans.values())), sweep.metric or FINAL_LOSS
    show_plan(whole, write=True)
    for note in sweep.notes:
        say(note)
    write_atomic(whole.folder / "study.yaml", to_yaml(study_of(mappings)))
    if others is not None and not others([*plans.values()], mappings):
        return
    rows = []
    with ProgressDisplay(shown=others is None) as display:
        progress = progress_of(whole, display)
        for number, (plan, trial) in enumerate(zip(plans.values(), own.values(), strict=True), start=1):
            run = plan.runs[0]
            done = _train(plan, display, progress) if others is None else _trained(run.folder)
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


def _trained(folder: Path) -> str:
    """What there is to say of a trial that others have trained."""
    status = read_status(folder)
    if status.get("status") != "done":
        return f"not trained ({status.get('why', 'nobody began it')})"
    return f"{counted(status['tokens'], 'token')} in {status['seconds']:.0f} s"


def _together(plans: Sequence[StudyPlan]) -> StudyPlan:
    """The plans of the trials as one."""
    runs = [plan.runs[0] for plan in plans]
    notes = dict.fromkeys(note for plan in plans for note in plan.notes)
    return replace(plans[0], runs=runs, mismatch=mismatch_of([r.matched.amount for r in runs]), notes=tuple(notes))


def print_trials(sweep: Sweep, trials: list[Trial], overrides: list[str]) -> None:
    """Check and print the trials without training them."""
    own, rows = named(trials), []
    for name, trial in own.items():
        plan = checked_plan(_mapping(sweep, name, trial, overrides), fetch=False)
        rows.append({"trial": plan.runs[0].name, **trial})
    draws = f" of {counted(len(trials), 'draw')}" if len(own) < len(trials) else ""
    print_rows(rows, f"{counted(len(own), 'trial')}{draws}")
    for note in sweep.notes:
        say(note)


def launcher_of(sweep: Sweep, trials: Sequence[Trial], overrides: list[str]) -> Choice | None:
    """The launcher of a sweep's trials, which all of them have: of the command line, of the sweep's command, or of a
    config in it. Raises ConfigError for one that cannot be, and for mistakes in the first trial's config."""
    launcher = parse(_loaded([*sweep.words(trials[0]), *overrides])).launcher
    if launcher is not None:
        launcher.resolve()
    return launcher


def _mapping(sweep: Sweep, name: str, trial: Trial, overrides: list[str]) -> dict[str, Any]:
    """The config of a trial, without the launcher. Raises ConfigError for a name that all trials would have."""
    given = _loaded([*sweep.words(trial), *overrides])
    run = (given.get("study") or {}).get("run")
    require("study.run", run, run is None, "none in a sweep, whose trials are named by their values")
    return {key: value for key, value in one_run(given, name).items() if key != "launcher"}


def _loaded(words: Sequence[str]) -> dict[str, Any]:
    return load([word for word in words if "=" not in word], [word for word in words if "=" in word])


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
