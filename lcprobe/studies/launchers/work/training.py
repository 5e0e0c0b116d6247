"""The units of training: the trials of a learning-rate sweep, then the runs, each in its own folder.

A run is claimed by the lock of its folder, so that train.py and workers know of each other. A run on several devices
is started as as many processes, of which the first holds that lock; its worker holds a claim beside.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcprobe.config import load, parse, to_yaml
from lcprobe.errors import (
    CheckpointError,
    LcprobeError,
    LockedError,
    NumericsError,
    PeerError,
    StoppedEarly,
)
from lcprobe.files import write_atomic, write_json
from lcprobe.locks import Claims, children_of, end_tree, folder_claims
from lcprobe.studies.launchers.work.failures import FAILURES, Failure
from lcprobe.studies.launchers.work.orders import TRAIN, TrainOrder
from lcprobe.studies.launchers.work.reports import Reporter
from lcprobe.studies.launchers.work.units import Kept, Rules, take_all
from lcprobe.studies.planning.costs import training_flops
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan, make_plan
from lcprobe.studies.runtime import use_kernels
from lcprobe.studies.status import WORK, read_status, status_path
from lcprobe.studies.tracking.wandb_tracker import JobType
from lcprobe.studies.training.lr_sweep import trial_folder, trial_score, trials_of, tune
from lcprobe.studies.training.train_run import train_run
from lcprobe.studies.training.units_file import settings_of
from lcprobe.training.checkpoint import newest_progress
from lcprobe.training.progress import StepReport

OF_CODE = {cls.exit_code: cls for cls in (LcprobeError, NumericsError, CheckpointError, LockedError, StoppedEarly)}
"""What a run on several devices ended with, by its exit code."""
TRIAL = "lcprobe.studies.launchers.work.trial"
"""The module that each process of a trial on several devices runs."""


@dataclass(frozen=True)
class TrainUnit:
    """A trial or a run; see Unit. run_: with the rate that it is trained at; settings: as planned, without one."""

    run_: PlannedRun
    folder: Path
    study: Path
    job_type: JobType
    claims: tuple[Claims, str]
    settings: str
    needs: tuple[str, ...] = ()
    kind: str = TRAIN

    @property
    def name(self) -> str:
        """Of the run, or of the trial."""
        return self.run_.name

    @property
    def failures(self) -> Path:
        """In its folder."""
        return self.folder / FAILURES

    @property
    def size(self) -> float:
        """FLOPs of its budget."""
        return training_flops(self.run_.matched.cost, self.run_.config.train.trained_tokens)

    def is_done(self) -> bool:
        """Whether its status says so, for a budget that is no smaller."""
        status = read_status(self.folder)
        return status.get("status") == "done" and status.get("step", 0) >= self.run_.config.train.steps

    def progress(self) -> int:
        """Steps at its newest checkpoint."""
        return newest_progress(self.folder / "checkpoints").step

    def run(self, kept: Kept, report: Reporter) -> None:
        """Train what is left."""
        if self.run_.config.train.devices > 1:
            _run_on_devices(self)
            return
        use_kernels(self.run_.config.kernels)

        def observe(step: StepReport) -> None:
            kept()  # train_run asks before it writes; this ends it before that
            report.at(
                done=step.step, total=step.steps, first=step.first, seconds=step.seconds, loss=step.loss,
                tokens_per_second=step.tokens_per_second,
            )  # fmt: skip

        train_run(self.run_, self.folder, self.job_type, observe, claim=kept.claim)


def trial_units(plan: StudyPlan) -> list[TrainUnit]:
    """The trials of a plan's sweep, the largest first."""
    trials = [trial for own in trials_of(plan).values() for trial in own]
    units = [_unit(t, settings_of(t.config), trial_folder(plan, t), plan.folder, "sweep") for t in trials]
    return _largest_first(units)


def run_units(plan: StudyPlan, runs: Mapping[str, PlannedRun]) -> list[TrainUnit]:
    """The runs of a plan, the largest first. runs: by name, as they are tuned."""
    names = {runs[run.name].folder.resolve(): run.name for run in plan.runs}
    units = []
    for planned in plan.runs:
        run, settings = runs[planned.name], settings_of(planned.config)
        start = run.config.train.from_
        needs = [] if start is None else [names[place] for place in (Path(start).resolve(),) if place in names]
        units.append(_unit(run, settings, run.folder, plan.folder, "train", tuple(needs)))
    return _largest_first(units)


def plans_of(study: Path, order: TrainOrder) -> list[StudyPlan]:
    """The plans of what is to be trained in a folder: one, or one for each trial of a sweep in W&B's format. Raises
    ConfigError as `make_plan`."""
    mappings = [*order.trials.values()] or [load([str(study / "study.yaml")], [])]
    return [make_plan(_at(study, mapping)) for mapping in mappings]


def train_units(
    plans: list[StudyPlan], rules: Rules, report: Reporter, wanted: frozenset[str] | None
) -> dict[str, Failure]:
    """Train what is free of several plans until nothing is left; what was given up. wanted: names; None: all."""

    def own(units: list[TrainUnit]) -> list[TrainUnit]:
        return [unit for unit in units if wanted is None or unit.name in wanted]

    lost = take_all(own([unit for plan in plans for unit in trial_units(plan)]), rules, report)
    units: list[TrainUnit] = []
    for plan in plans:
        runs = tuned_runs(plan, rules)
        if runs is not None and not plan.config.study.lr_sweep.only:
            units += run_units(plan, runs)
    return lost | take_all(own(units), rules, report)


def tuned_runs(plan: StudyPlan, rules: Rules) -> dict[str, PlannedRun] | None:
    """The runs at the best rates of their trials; None while trials are missing. A trial whose numbers were not
    finite is a result, and one that was given up for another reason none."""
    for trial in trial_units(plan):
        why = None if trial.is_done() else rules.given_up(trial)
        if not trial.is_done() and (why is None or why.exit != NumericsError.exit_code):
            return None
    runs, rows = tune(plan, score=trial_score)
    if rows:
        write_json(plan.folder / "sweep_used.json", rows)
    return runs


def _at(study: Path, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A study's config, at the place where its folder is now, and without what starts workers."""
    own = {key: value for key, value in mapping.items() if key != "launcher"}
    config = parse(own)
    if (Path(config.study.folder) / config.study.name).resolve() == study.resolve():
        return own
    return {**own, "study": {**own.get("study", {}), "folder": str(study.parent), "name": study.name}}


def _unit(
    run: PlannedRun, settings: str, folder: Path, study: Path, job_type: JobType, needs: tuple[str, ...] = ()
) -> TrainUnit:
    several = run.config.train.devices > 1
    claims = (Claims(study / WORK), run.name) if several else (folder_claims(folder), "")
    return TrainUnit(run, folder, study, job_type, claims, settings, needs)


def _largest_first(units: list[TrainUnit]) -> list[TrainUnit]:
    return sorted(units, key=lambda unit: -unit.size)


def own_words(unit: TrainUnit) -> tuple[str, ...]:
    """What Python is given in each process of a trial or a run on several devices. Writes a run's config."""
    if unit.job_type == "sweep":
        return "-m", TRIAL, str(unit.study), unit.name
    return "-m", "lcprobe", "train", str(write_run_config(unit))


def write_run_config(unit: TrainUnit) -> Path:
    """The run's resolved config, with which train.py trains it alone."""
    path = unit.study / WORK / "runs" / f"{unit.name}.yaml"
    config = to_yaml(unit.run_.config)
    if not path.is_file() or path.read_text(encoding="utf-8") != config:
        write_atomic(path, config)
    return path


def _run_on_devices(unit: TrainUnit) -> None:
    """Train a trial or a run as several processes of this machine. Raises the error that its status names, where it
    is of these processes: they may fail before they write any. One that ends without progress, and without this
    process being told to, did not stop but fail, whatever its exit code."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = [*torchrun, str(unit.run_.config.train.devices), *own_words(unit)]
    before, began = _written(unit.folder), unit.progress()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        code = process.wait()
    except BaseException:  # told to end: so are its processes, which save
        _tell_ranks(process)
        try:
            process.wait()
        except BaseException:  # told again: at once
            end_tree(process.pid)
            raise
        raise
    if code != 0 and not unit.is_done():
        status = read_status(unit.folder) if _written(unit.folder) != before else {}
        why, code = str(status.get("why", f"torchrun ended with {code}")), int(status.get("exit_code", 1))
        if code == StoppedEarly.exit_code and unit.progress() <= began:
            raise PeerError(why)
        if code in OF_CODE:
            raise OF_CODE[code](why)
        raise RuntimeError(why) if status and code == 1 else OSError(why)  # a defect; or nobody knows


def _tell_ranks(torchrun: "subprocess.Popen[bytes]") -> None:
    """Tell the processes of a run to save and end, all at the same step, on which torchrun ends. Told itself, it
    would kill them after 30 seconds, less than two steps and a checkpoint of a large model take; torch 2.11 knows no
    other time."""
    ranks = children_of(torchrun.pid)
    for pid in ranks:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not ranks:  # not started yet, or the system does not say
        torchrun.send_signal(signal.SIGTERM)


def _written(folder: Path) -> tuple[int, int] | None:
    """What tells one writing of a status from the next, whatever clocks say; None without one."""
    try:
        found = status_path(folder).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
