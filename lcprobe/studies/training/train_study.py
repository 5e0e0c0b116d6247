"""Train every run of a study: implements `train.py`."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lcprobe_kernels.report import device_of

from lcprobe.analysis.report.tables import write_csv
from lcprobe.config import to_yaml
from lcprobe.errors import ConfigError, listed, nearest_name
from lcprobe.files import remove_leftovers, write_atomic, write_json
from lcprobe.models.extend import EXTENSIONS
from lcprobe.studies.console import print_rows, say, width_of
from lcprobe.studies.planning.kernel_paths import check_backend_fits, path_lines
from lcprobe.studies.planning.plan import StudyPlan, make_plan
from lcprobe.studies.planning.preflight import check_tasks_fit
from lcprobe.studies.planning.text_fits import counted_here
from lcprobe.studies.preparing import preparing
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.status import read_status
from lcprobe.studies.tracking.alerts import study_alert
from lcprobe.studies.tracking.chosen import require_trackers
from lcprobe.studies.training.lr_sweep import planned_rates, progress_of, spread_of, trial_folder, trials_of, tune
from lcprobe.studies.training.plan_screen import full_lines, plan_table, screen_lines
from lcprobe.studies.training.same_settings import SameTexts, check_begun
from lcprobe.studies.training.sweep_trial import add_trial, in_sweep
from lcprobe.studies.training.train_run import train_run
from lcprobe.studies.training.units_file import add_train_units, write_train_units
from lcprobe.training.ranks import is_main
from lcprobe.words import counted

PLAN_CSV, PLAN_NOTES = "plan.csv", "plan.txt"
"""In a study's folder: all columns of the plan, and its runs and notes in full."""
CHECKED_LATER = "what depends on its tokens is checked before training"
log = logging.getLogger(__name__)


def checked_plan(mapping: Mapping[str, Any], fetch: bool = True) -> StudyPlan:
    """The plan of a study whose tasks fit its tokenizers and lengths, with notes on what does not. fetch: as for
    `make_plan`. Raises ConfigError where training or a probe cannot do without it."""
    plan = make_plan(in_sweep(mapping), fetch)
    require_trackers(plan.config.track)
    use_kernels(plan.config.kernels)
    check_backend_fits(plan, *device_of(None))
    counted = [counted_here(run.config) for run in plan.runs]
    away = {number: f"{note}; {CHECKED_LATER}" for number, (_, note) in enumerate(counted) if note}
    known = [number for number, run in enumerate(plan.runs) if run.trained_on or number in away]
    notes = check_tasks_fit([config for config, _ in counted], training=True, known=known)
    return replace(plan, notes=(*plan.notes, *dict.fromkeys(away.values()), *notes))


def plan_to_train(mapping: Mapping[str, Any]) -> StudyPlan:
    """As `checked_plan`, of a study whose runs begin, or go on with the settings that they have. Raises ConfigError
    for other ones."""
    plan = checked_plan(mapping)
    check_same_runs(plan)
    return plan


def check_same_runs(plan: StudyPlan) -> None:
    """Raises ConfigError where a run or a trial of a plan has begun with other settings, and DataError where it was
    with another text, before anything of the plan is written."""
    texts = SameTexts()
    for trial in (trial for own in trials_of(plan).values() for trial in own):
        check_begun(trial_folder(plan, trial), trial.config)
        texts.check(trial_folder(plan, trial), trial.config, trial.trained_on)
    sweep = plan.config.study.lr_sweep
    for run in () if sweep.only else plan.runs:
        check_begun(run.folder, run.config, is_tuned=bool(sweep.lrs or plan.config.study.tuned_by))
        texts.check(run.folder, run.config, run.trained_on)


def print_plan(mapping: Mapping[str, Any], full: bool = False, write: bool = False) -> StudyPlan:
    """Print the matched models and what the study costs, once everything that can be checked is. full: all columns,
    runs and notes; write: these go to files of the study's folder, too, for training, which needs what is on the
    hub."""
    plan = plan_to_train(mapping) if write else checked_plan(mapping, fetch=False)
    _check_names(plan)
    if not write:  # training finds it out, or does without
        _check_corpus(plan)
    is_whole = plan.config.study.run is None  # one run of several is not the study's plan
    if write and not is_whole:
        add_train_units(plan)
    show_plan(plan, full, write and is_whole)
    return plan


def _check_names(plan: StudyPlan) -> None:
    """Raises ConfigError for a display name of nothing; one run of several does not know the others."""
    if plan.config.study.run is not None:
        return
    known = dict.fromkeys(
        [name for run in plan.runs for name in (run.config.study.architecture or run.group, run.group, run.name)]
        + [*EXTENSIONS, *(method.label for method in plan.config.pe.methods())]
    )
    for name, shown in plan.config.study.names.items():
        if name not in known and re.split(r"[+@(]", name)[0] not in known:
            raise ConfigError(f"study.names.{name}", shown, listed(known, " | "), nearest_name(name, known))


def _check_corpus(plan: StudyPlan) -> None:
    """Raises ConfigError for a corpus on this machine that is not there, unless what was prepared of it is enough."""
    wanted = {repr(run.config.data.corpus): run.config.data.corpus for run in plan.runs if not run.trained_on}
    for source in (choice.create() for corpus in wanted.values() for choice in corpus):
        if source.is_local():
            source.fingerprint()


def show_plan(plan: StudyPlan, full: bool = False, write: bool = False) -> None:
    """Print a plan. full, write: as for `print_plan`."""
    table = plan_table(plan, planned_rates(plan))
    everything = "--plan --full"
    if write:
        write_csv(plan.folder / PLAN_CSV, table.rows)
        write_train_units(plan)
        write_atomic(plan.folder / PLAN_NOTES, "".join(f"{line}\n" for line in full_lines(plan, table)))
        everything = f"{plan.folder / PLAN_CSV}, {PLAN_NOTES}"
    if full:
        print_rows(table.rows, "matched models")
        say(*full_lines(plan, table), *(f"kernels: {line}" for line in path_lines(plan, *device_of(None))))
    else:
        say(*screen_lines(plan, table, everything, width_of()))


def train_study(mapping: Mapping[str, Any]) -> None:
    """Run the learning-rate sweep where there is one, then train every run; finished runs are left as they are."""
    set_up_logging()
    keep_memory()
    plan = print_plan(mapping, write=True) if is_main() else plan_to_train(mapping)
    if is_main():
        write_study(plan, mapping)
    with ProgressDisplay(shown=is_main()) as display:
        done = _train_all(plan, display)
    if is_main():
        remove_leftovers(plan.folder)
        say(done)


def alert_of_trained(plan: StudyPlan) -> None:
    """Alert that all runs of a plan are trained; one run of several is no study."""
    if plan.config.study.run is None:
        text = f"{counted(len(plan.runs), 'run')} of {plan.config.train.trained_tokens:,} tokens"
        study_alert(plan.config.track, plan.folder, f"{plan.folder.name}: all runs are trained", text)


def write_study(plan: StudyPlan, mapping: Mapping[str, Any]) -> None:
    """Write study.yaml, or add a trial to it; one run of several changes nothing."""
    if plan.config.study.run is None:
        write_atomic(plan.folder / "study.yaml", to_yaml(mapping))
    elif (trial := in_sweep(mapping)) is not mapping:
        add_trial(plan.folder, trial)


def _train_all(plan: StudyPlan, display: ProgressDisplay) -> str:
    """Sweep and train; returns what is there, and what to do with it."""
    progress = progress_of(plan, display)
    runs, sweep = tune(plan, progress)
    if sweep and is_main():
        write_json(plan.folder / "sweep_used.json", sweep)
        say_rates(sweep)
    if plan.config.study.lr_sweep.only:
        return next_line(plan)
    for run in plan.runs:
        before = read_status(runs[run.name].folder)
        prepares = preparing(display, " ".join(map(str, run.config.data.corpus)))
        status = train_run(runs[run.name], observer=progress.run(run.name), prepares=prepares)
        progress.finished("run", run.name, status["seconds"])
        if is_main() and status != before:  # a finished run has said so itself
            say(run_line(run.name, status))
    if is_main():
        alert_of_trained(plan)
    return next_line(plan)


def say_rates(sweep: Sequence[dict[str, Any]]) -> None:
    """Print the best rates of a sweep by its rows."""
    groups = dict.fromkeys(row["group"] for row in sweep)
    print_rows([spread_of([*sweep], group) for group in groups], "learning rates")


def run_line(name: str, status: Mapping[str, Any]) -> str:
    """What there is to say of a finished run."""
    line = f"{name}: {status['tokens']:,} tokens in {status['seconds']:.0f} s"
    line += f", data digest {status['data_digest'][:16]}"
    return line + (f", {counted(status['skipped'], 'step')} skipped" if status["skipped"] else "")


def next_line(plan: StudyPlan) -> str:
    """What is there now, and what to do with it."""
    if plan.config.study.lr_sweep.only:
        return f"swept: {plan.folder / 'lr_sweep.json'} (use it as study.tuned_by)"
    where = plan.folder if plan.config.study.run is None else plan.runs[0].folder
    return f"trained: {where}   next: python evaluate.py {where}"
