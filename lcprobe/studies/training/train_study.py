"""Train every run of a study: implements `train.py`."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lcprobe.config import to_yaml
from lcprobe.files import remove_leftovers, write_atomic, write_json
from lcprobe.studies.console import print_rows, terminal
from lcprobe.studies.planning.costs import (
    held_equal_note,
    matching_table,
    memory_notes,
    schedule_notes,
    whole_steps_notes,
)
from lcprobe.studies.planning.plan import StudyPlan, make_plan
from lcprobe.studies.planning.preflight import check_tasks_fit
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.training.lr_sweep import planned_rates, spread_of, tune
from lcprobe.studies.training.train_run import train_run
from lcprobe.training.ranks import is_main

log = logging.getLogger(__name__)


def checked_plan(mapping: Mapping[str, Any]) -> StudyPlan:
    """The plan of a study whose tasks fit its tokenizers and lengths, with notes on what does not. Raises ConfigError
    where training or a probe cannot do without it."""
    plan = make_plan(mapping)
    use_kernels(plan.config.kernels)
    known = [number for number, run in enumerate(plan.runs) if run.trained_on]
    notes = check_tasks_fit([run.config for run in plan.runs], training=True, known=known)
    return replace(plan, notes=(*plan.notes, *notes))


def print_plan(mapping: Mapping[str, Any]) -> StudyPlan:
    """Print the matched models and what the study costs, once everything that can be checked is."""
    plan = checked_plan(mapping)
    rates = planned_rates(plan)
    print_rows([{**row, "lr": rates[str(row["model"])]} for row in matching_table(plan)], "matched models")
    spread = f"{plan.config.match.amount} within {plan.mismatch:.2%} of each other"
    tokens = sum(run.config.train.trained_tokens for run in plan.runs)
    runs = ", ".join(run.name for run in plan.runs)
    terminal().print(f"{len(plan.runs)} runs ({runs}); {spread}; {tokens:,} training tokens", soft_wrap=True)
    of_budgets = [*held_equal_note(plan), *whole_steps_notes(plan), *schedule_notes(plan)]
    for note in [*of_budgets, *plan.notes, *memory_notes(plan)]:
        terminal().print(note, soft_wrap=True)
    return plan


def train_study(mapping: Mapping[str, Any]) -> None:
    """Run the learning-rate sweep where there is one, then train every run; finished runs are left as they are."""
    set_up_logging()
    keep_memory()
    plan = print_plan(mapping) if is_main() else checked_plan(mapping)
    if plan.config.study.run is None and is_main():
        write_atomic(plan.folder / "study.yaml", to_yaml(mapping))
    runs, sweep = tune(plan)
    if sweep and is_main():
        write_json(plan.folder / "sweep_used.json", sweep)
        groups = dict.fromkeys(row["group"] for row in sweep)
        print_rows([spread_of(sweep, group) for group in groups], "learning rates")
    if plan.config.study.lr_sweep.only:
        remove_leftovers(plan.folder)
        terminal().print(f"swept: {plan.folder / 'lr_sweep.json'} (use it as study.tuned_by)", soft_wrap=True)
        return
    for run in plan.runs:
        status = train_run(runs[run.name])
        console = terminal(quiet=not is_main())
        line = f"{run.name}: {status['tokens']:,} tokens in {status['seconds']:.0f} s"
        line += f", data digest {status['data_digest'][:16]}"
        if status["skipped"]:
            line += f", {status['skipped']} steps skipped"
        console.print(line)
    if is_main():
        remove_leftovers(plan.folder)
    where = plan.folder if plan.config.study.run is None else plan.runs[0].folder
    terminal(quiet=not is_main()).print(f"trained: {where}   next: python evaluate.py {where}", soft_wrap=True)
