"""Train every run of a study: implements `train.py`."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lcprobe.analysis.report.tables import write_csv
from lcprobe.config import to_yaml
from lcprobe.files import remove_leftovers, write_atomic, write_json
from lcprobe.studies.console import print_rows, say, width_of
from lcprobe.studies.planning.plan import StudyPlan, make_plan
from lcprobe.studies.planning.preflight import check_tasks_fit
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.status import read_status
from lcprobe.studies.training.lr_sweep import planned_rates, progress_of, spread_of, tune
from lcprobe.studies.training.plan_screen import full_lines, plan_table, screen_lines
from lcprobe.studies.training.sweep_trial import in_sweep
from lcprobe.studies.training.train_run import train_run
from lcprobe.training.ranks import is_main
from lcprobe.words import counted

PLAN_CSV, PLAN_NOTES = "plan.csv", "plan.txt"
"""In a study's folder: all columns of the plan, and its runs and notes in full."""
log = logging.getLogger(__name__)


def checked_plan(mapping: Mapping[str, Any]) -> StudyPlan:
    """The plan of a study whose tasks fit its tokenizers and lengths, with notes on what does not. Raises ConfigError
    where training or a probe cannot do without it."""
    plan = make_plan(in_sweep(mapping))
    use_kernels(plan.config.kernels)
    known = [number for number, run in enumerate(plan.runs) if run.trained_on]
    notes = check_tasks_fit([run.config for run in plan.runs], training=True, known=known)
    return replace(plan, notes=(*plan.notes, *notes))


def print_plan(mapping: Mapping[str, Any], full: bool = False, write: bool = False) -> StudyPlan:
    """Print the matched models and what the study costs, once everything that can be checked is. full: all columns,
    runs and notes; write: these go to files of the study's folder, too."""
    plan = checked_plan(mapping)
    show_plan(plan, full, write and plan.config.study.run is None)  # one run of several is not the study's plan
    return plan


def show_plan(plan: StudyPlan, full: bool = False, write: bool = False) -> None:
    """Print a plan. full, write: as for `print_plan`."""
    table = plan_table(plan, planned_rates(plan))
    everything = "--plan --full"
    if write:
        write_csv(plan.folder / PLAN_CSV, table.rows)
        write_atomic(plan.folder / PLAN_NOTES, "".join(f"{line}\n" for line in full_lines(plan, table)))
        everything = f"{plan.folder / PLAN_CSV}, {PLAN_NOTES}"
    if full:
        print_rows(table.rows, "matched models")
        say(*full_lines(plan, table))
    else:
        say(*screen_lines(plan, table, everything, width_of()))


def train_study(mapping: Mapping[str, Any]) -> None:
    """Run the learning-rate sweep where there is one, then train every run; finished runs are left as they are."""
    set_up_logging()
    keep_memory()
    plan = print_plan(mapping, write=True) if is_main() else checked_plan(mapping)
    if plan.config.study.run is None and is_main():
        write_atomic(plan.folder / "study.yaml", to_yaml(mapping))
    with ProgressDisplay(shown=is_main()) as display:
        done = _train_all(plan, display)
    if is_main():
        remove_leftovers(plan.folder)
        say(done)


def _train_all(plan: StudyPlan, display: ProgressDisplay) -> str:
    """Sweep and train; returns what is there, and what to do with it."""
    progress = progress_of(plan, display)
    runs, sweep = tune(plan, progress)
    if sweep and is_main():
        write_json(plan.folder / "sweep_used.json", sweep)
        groups = dict.fromkeys(row["group"] for row in sweep)
        print_rows([spread_of(sweep, group) for group in groups], "learning rates")
    if plan.config.study.lr_sweep.only:
        return f"swept: {plan.folder / 'lr_sweep.json'} (use it as study.tuned_by)"
    for run in plan.runs:
        before = read_status(runs[run.name].folder)
        status = train_run(runs[run.name], observer=progress.run(run.name))
        progress.finished("run", run.name, status["seconds"])
        line = f"{run.name}: {status['tokens']:,} tokens in {status['seconds']:.0f} s"
        line += f", data digest {status['data_digest'][:16]}"
        if status["skipped"]:
            line += f", {counted(status['skipped'], 'step')} skipped"
        if is_main() and status != before:  # a finished run has said so itself
            say(line)
    where = plan.folder if plan.config.study.run is None else plan.runs[0].folder
    return f"trained: {where}   next: python evaluate.py {where}"
