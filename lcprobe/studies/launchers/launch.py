"""Train a study, train a sweep in W&B's format, and probe, by workers that a launcher starts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.choices import Choice
from lcprobe.config import Config
from lcprobe.errors import ConfigError, LcprobeError, Said
from lcprobe.files import remove_leftovers, write_atomic
from lcprobe.locks import is_gone
from lcprobe.merging import Settings
from lcprobe.schema import plain
from lcprobe.studies.console import say
from lcprobe.studies.evaluation.engines import device
from lcprobe.studies.evaluation.evaluate_study import Prober
from lcprobe.studies.evaluation.jobs.job import Job
from lcprobe.studies.evaluation.jobs.units_file import write_probe_units
from lcprobe.studies.evaluation.session import Session, jobs_of
from lcprobe.studies.evaluation.targets import Named
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.studies.launchers.contract import Launcher, RunTask, Task
from lcprobe.studies.launchers.local import visible_gpus
from lcprobe.studies.launchers.watching.screen import summary
from lcprobe.studies.launchers.watching.state import study_state
from lcprobe.studies.launchers.watching.watch import Watch
from lcprobe.studies.launchers.work.failures import Failure, as_command, worst_of
from lcprobe.studies.launchers.work.orders import PROBE, TRAIN, ProbeOrder, TrainOrder, add_to_order, write_order
from lcprobe.studies.launchers.work.probing import NotedFailures, finished_units
from lcprobe.studies.launchers.work.reports import Report, read_reports, take_reports
from lcprobe.studies.launchers.work.training import TrainUnit, own_words, run_units, trial_units, tuned_runs
from lcprobe.studies.launchers.work.units import Rules, unfinished
from lcprobe.studies.planning.plan import StudyPlan
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.runtime import keep_memory, set_up_logging
from lcprobe.studies.status import WORK, read_status
from lcprobe.studies.tracking.alerts import alert_of_given_up
from lcprobe.studies.training.lr_sweep import trial_score, tune
from lcprobe.studies.training.sweep_trial import in_sweep
from lcprobe.studies.training.train_study import (
    alert_of_trained,
    next_line,
    print_plan,
    run_line,
    say_rates,
    write_study,
)
from lcprobe.training.processes import processes
from lcprobe.words import and_list, counted

log = logging.getLogger(__name__)
OF_KIND = {TRAIN: ("trial", "run"), PROBE: ("model",)}
"""Of units that `lcprobe status` shows."""


class WorkLeft(LcprobeError):
    """Some of a study failed; the rest is done. exit_code: that of the worst failure."""

    def __init__(self, message: str, code: int):
        self.exit_code = code
        super().__init__(message)


def train_by_workers(mapping: Mapping[str, Any], launcher: Choice) -> None:
    """As `train_study`, by workers. mapping: the config without the launcher. Raises WorkLeft where a run failed."""
    set_up_logging()
    keep_memory()
    started_by = _launcher(launcher)
    plan = print_plan(mapping, write=True)
    study = plan.folder
    write_study(plan, mapping)
    alone = plan.config.study.run
    if alone is None:
        units = _train([plan], write_order(study, TrainOrder(0, started_by.retries)), started_by)
    else:  # workers that an agent's launcher starts are those of its run in W&B: they train no other
        order = add_to_order(study, TrainOrder(0, started_by.retries, {alone: dict(in_sweep(mapping))}))
        units = _train([plan], order, started_by, tuple(unit.name for unit in _units_of(plan)))
    if units is None:
        return
    if plan.config.study.lr_sweep.lrs:
        say_rates(tune(plan, score=trial_score)[1])
    for unit in units:
        if (status := read_status(unit.folder)).get("status") == "done" and unit.job_type == "train":
            say(run_line(unit.name, status))
    remove_leftovers(study)
    if not plan.config.study.lr_sweep.only:
        alert_of_trained(plan)
    say(next_line(plan))


def trainer_of_trials(launcher: Choice) -> Callable[[Sequence[StudyPlan], Mapping[str, Mapping[str, Any]]], bool]:
    """What trains the trials of a sweep in W&B's format, given as plans and as configs by name, and returns whether
    they were waited for; those that failed have no value. Raises ConfigError as `_launcher`, before anything is
    written."""
    started_by = _launcher(launcher)

    def train(plans: Sequence[StudyPlan], mappings: Mapping[str, Mapping[str, Any]]) -> bool:
        try:
            order = write_order(plans[0].folder, TrainOrder(0, started_by.retries, mappings))
            return _train(plans, order, started_by) is not None
        except WorkLeft as error:
            say(str(error), to_stderr=True)
            return True

    return train


def prober_of(given: Sequence[Named], settings: Settings, named: Config | None) -> Prober:
    """What has a session probed by workers, where a launcher is given or this machine has several GPUs; what the
    command was given is handed on to them."""

    def probe(session: Session) -> bool:
        choice = session.config.launcher or _on_all_gpus(session)
        if choice is None:
            return True
        jobs = jobs_of(session)
        groups = sum(len(job.work.left(job.store)) for job in jobs)
        if all(job.is_done() for job in jobs) or (groups < 2 and session.config.launcher is None):
            return True
        launcher = _launcher(choice)
        folders = tuple(str(one) for one in given if isinstance(one, Path))
        models = tuple(one.address for one in given if not isinstance(one, Path))
        config = None if named is None else {key: v for key, v in plain(named).items() if key != "launcher"}
        handed = settings.without("launcher")
        order = ProbeOrder(0, launcher.retries, folders, models, config, handed.layers)
        write_probe_units(session.out, jobs)
        rules = _rules(session.out, write_order(session.out, order))
        failures = NotedFailures(rules, order.digest)

        def left(place: int) -> bool:
            return any(not job.is_done() and not failures.given_up(job) for job in jobs)

        devices = session.config.probe.context_parallel
        task = Task(session.out, (PROBE,), max(1, groups), devices, session.out / WORK / "logs")

        def died(report: Report, code: int, line: str) -> None:
            job = next((one for one in jobs if one.variant.name == report.unit), None)
            at = 0 if job is None else finished_units(job)
            failures.note(report.unit, report.who, code, line, at)

        if not _start(launcher, task, left, lambda: float(sum(map(_groups_done, jobs))), died, PROBE):
            return False
        lost = {job.variant.name: why for job in jobs if (why := failures.why(job)) is not None and not job.is_done()}
        _raise_for(lost, session.out)
        return True

    return probe


def _launcher(choice: Choice) -> Launcher[Any]:
    """The launcher of a choice. Raises ConfigError where it cannot start anything here, and under torchrun or srun,
    where every process would start workers."""
    here = processes()
    if here.size > 1:
        given = Said(f"a launcher in each of {here.size} processes of {here.starter}")
        raise ConfigError("launcher", given, f"one process, without {here.starter}; or no launcher")
    launcher: Launcher[Any] = choice.create()
    launcher.check()
    return launcher


def _train(
    plans: Sequence[StudyPlan], order: TrainOrder, launcher: Launcher[Any], only: tuple[str, ...] = ()
) -> list[TrainUnit] | None:
    """Train what is left of plans of one folder, ordered by its launch; their units, None where nobody waits for
    them. only: names of units that workers take; empty: all. Raises WorkLeft."""
    study = plans[0].folder
    rules = _rules(study, order)
    units = [unit for plan in plans for unit in _units_of(plan)]
    runs = [unit for unit in units if unit.job_type == "train"]
    devices = max(unit.run_.config.train.devices for unit in units)

    def open_units() -> list[TrainUnit]:
        return unfinished(units, rules)[0]

    if not open_units():
        return units
    task = Task(study, (TRAIN, *only), len(open_units()), devices, study / WORK / "logs")

    def done() -> float:
        return sum(unit.progress() + unit.is_done() for unit in units)

    def died(report: Report, code: int, line: str) -> None:
        for unit in (one for one in units if one.name == report.unit):
            rules.note(unit, report.who, code, line)

    def job_each(own: Sequence[TrainUnit]) -> bool:
        runs = tuple(RunTask(unit.name, unit.folder, own_words(unit), rules.launch, unit.settings) for unit in own)

        def left(place: int) -> bool:
            return runs[place].name in {unit.name for unit in open_units()}

        each = replace(task, count=len(runs), runs=runs)
        return not runs or _start(launcher, each, left, done, died, TRAIN)

    if launcher.of_runs(task):
        trials_first = [unit for unit in open_units() if unit.job_type == "sweep"]
        watched = job_each(trials_first) and job_each(_tuned(plans, rules, open_units()))
    else:
        watched = _start(launcher, task, lambda place: bool(open_units()), done, died, TRAIN)
    if not watched:
        return None
    lost = unfinished(units, rules)[1]
    final = {name: why for name, why in lost.items() if name in {unit.name for unit in runs} or why.exit != 4}
    _raise_for(final, study)
    return units


def _tuned(plans: Sequence[StudyPlan], rules: Rules, units: Sequence[TrainUnit]) -> list[TrainUnit]:
    """The runs among some units, at the best rates of their trials; without those whose trials were given up."""
    wanted, found = {unit.name for unit in units}, list[TrainUnit]()
    for plan in plans:
        runs = None if plan.config.study.lr_sweep.only else tuned_runs(plan, rules)
        if runs is not None:
            found += [unit for unit in run_units(plan, runs) if unit.name in wanted]
    return found


def _units_of(plan: StudyPlan) -> list[TrainUnit]:
    """Trials and runs, at rates that trials may change."""
    trials = trial_units(plan)
    if plan.config.study.lr_sweep.only:
        return trials
    return [*trials, *run_units(plan, {run.name: run for run in plan.runs})]


def _start(
    launcher: Launcher[Any],
    task: Task,
    left: Callable[[int], bool],
    done: Callable[[], float],
    died: Callable[[Report, int, str], None],
    kind: str,
) -> bool:
    """Start workers and watch them until nothing is left; whether anybody watched. died: is told what a dead worker
    was at."""
    if (scripts := launcher.scripts(task)) is not None:
        paths = [task.folder / WORK / f"{name}.sbatch" for name in scripts]
        for path, script in zip(paths, scripts.values(), strict=True):
            write_atomic(path, script)
            print(script)
        say(f"written, nothing is submitted: {' '.join(map(str, paths))}   next: sbatch {paths[0]}")
        return False
    if not launcher.waits:
        with launcher:
            started = launcher.start(task, range(launcher.places(task)))
        say(f"submitted: {', '.join(one.name for one in started)}   next: lcprobe status {task.folder} --watch")
        return False

    def dead(code: int, line: str) -> None:
        for report in take_reports(
            task.folder, lambda report: report.kind in (kind, "") and bool(is_gone(report.who))
        ):
            if report.unit:
                died(report, code, line)

    _say_who_goes_on(task.folder)
    with ProgressDisplay() as display:
        failed = set[str]()

        def show() -> None:
            try:
                display.show(*summary(study_state(task.folder), OF_KIND[kind]))
            except (LcprobeError, OSError) as error:  # what is shown is not what is done
                if str(error) not in failed:
                    log.warning("progress is not shown: %s; the work goes on", error)
                failed.add(str(error))

        Watch(launcher, task, left, done, show, dead).run()
    return True


def _say_who_goes_on(study: Path) -> None:
    """Print who is at work already: workers of a launcher that was killed, or of another one."""
    at_work = [str(one.who) for one in read_reports(study).values() if is_gone(one.who) is False]
    if at_work:
        many = counted(len(at_work), "worker")
        say(f"{many} of another launch at work here ({and_list(at_work, 3)}): what these have is not begun twice")


def _on_all_gpus(session: Session) -> Choice | None:
    """A worker for each GPU of this machine, or for each `context_parallel` of them, where it has room for several
    and no model is spread over them; none under torchrun or srun."""
    probe = session.config.probe
    if device() != "cuda" or probe.split or processes().size > 1 or len(visible_gpus()) < 2 * probe.context_parallel:
        return None
    return LAUNCHERS.convert("local", "launcher")


def _groups_done(job: Job) -> int:
    return len(job.work.groups) - len(job.work.left(job.store))


def _rules(study: Path, order: TrainOrder | ProbeOrder) -> Rules:
    return Rules(study, order.launch, order.retries)


def _raise_for(lost: Mapping[str, Failure], study: Path) -> None:
    if lost:
        alert_of_given_up(study, lost)
        why = worst_of(lost.values())
        name = next(name for name, one in lost.items() if one is why)
        more = f" (and {len(lost) - 1} more: lcprobe status {study})" if len(lost) > 1 else ""
        raise WorkLeft(f"{name}: {why}{more}; the rest is done", as_command(why.exit))
