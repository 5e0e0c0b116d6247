"""Implements `lcprobe work`: take what is free of a study until nothing is left."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from lcprobe.studies.console import say
from lcprobe.studies.launchers.work.failures import Failure, as_command, worst_of
from lcprobe.studies.launchers.work.orders import PROBE, TRAIN, check_wanted, order_of
from lcprobe.studies.launchers.work.probing import probe_units
from lcprobe.studies.launchers.work.reports import Reporter
from lcprobe.studies.launchers.work.training import plans_of, train_units
from lcprobe.studies.launchers.work.units import Rules
from lcprobe.studies.runtime import keep_memory, set_up_logging
from lcprobe.studies.tracking.alerts import alert_of_given_up
from lcprobe.training.processes import SRUN, TORCHRUN


def work(study: Path, wanted: Sequence[str]) -> int:
    """Train and probe what is free in a study's folder until nothing is left; the exit code: 0, or that of what was
    given up. wanted: `train`, `probe`, and names of runs, trials and models; empty: everything.

    Raises ConfigError for a folder in which nothing is to be done, for unknown names, and what a unit raises that is
    told to end.
    """
    for name in (*TORCHRUN, *SRUN):  # srun starts several workers of a job, which are no processes of one run
        os.environ.pop(name, None)
    set_up_logging()
    keep_memory()
    check_wanted(study, wanted)
    train, probe = order_of(study)
    kinds, names = {*wanted} & {TRAIN, PROBE}, frozenset(wanted) - {TRAIN, PROBE}
    report, lost = Reporter(study, _printed_to()), dict[str, Failure]()
    with closing(report):
        if train is not None and (not kinds or TRAIN in kinds):
            rules = Rules(study, train.launch, train.retries)
            own = {name: trial for name, trial in train.trials.items() if name in names}
            plans = plans_of(study, replace(train, trials=own) if own else train)
            lost |= train_units(plans, rules, report, names or None)
        if probe is not None and (not kinds or PROBE in kinds) and not lost:
            rules = Rules(study, probe.launch, probe.retries)
            lost |= probe_units(probe, rules, report, names or None)
    alert_of_given_up(study, lost)
    say(*(f"given up: {name}: {why}" for name, why in lost.items()))
    return as_command(worst_of(lost.values()).exit) if lost else 0


def _printed_to() -> str:
    """The file that stderr goes to; empty where it is none."""
    try:
        path = os.readlink(f"/proc/self/fd/{sys.stderr.fileno()}")
        return path if os.path.isfile(path) else ""
    except (OSError, ValueError):
        return ""
