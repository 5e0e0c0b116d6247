"""The units of a probe: what is claimed are groups of questions (`lcprobe.probing.sharing`), what is tried again is a
model. A model that is given up does not hold up the others."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lcprobe.config import parse
from lcprobe.errors import StoppedEarly, exit_code_of
from lcprobe.locks import Process, this_process
from lcprobe.probing.config import PublishedModel
from lcprobe.probing.progress import Done, ProbeProgress
from lcprobe.studies.evaluation.dividing.processes import sharing
from lcprobe.studies.evaluation.evaluate_study import resolve_targets
from lcprobe.studies.evaluation.jobs.job import Job, do_jobs
from lcprobe.studies.evaluation.session import Session, jobs_of, open_session
from lcprobe.studies.launchers.work.failures import (
    FAILURES,
    Failure,
    append_failure,
    failure_of,
    read_failures,
    reason_to_give_up,
)
from lcprobe.studies.launchers.work.orders import PROBE, ProbeOrder
from lcprobe.studies.launchers.work.reports import Reporter
from lcprobe.studies.launchers.work.units import Rules
from lcprobe.studies.status import WORK

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NotedFailures:
    """Failures that are noted and tried again; see `jobs.job.Failures`. settings: digest of the order."""

    rules: Rules
    settings: str

    def why(self, job: Job) -> Failure | None:
        """The failure after which a model is not tried again; None: it may be."""
        failures = read_failures(self._file, job.variant.name)
        return reason_to_give_up(failures, self.rules.launch, self.rules.retries, self.settings)

    def given_up(self, job: Job) -> bool:
        """See Failures."""
        return self.why(job) is not None

    def failed(self, job: Job, error: Exception) -> None:
        """See Failures."""
        if isinstance(error, StoppedEarly):
            raise error
        code, name = exit_code_of(error), job.variant.name
        why = f"{type(error).__name__}: {error}" if code == 1 else str(error)
        failure = self.note(name, this_process(), code, why, finished_units(job))
        log.warning("%s failed: %s", name, failure, exc_info=code == 1)

    def note(self, name: str, process: Process, exit: int | None, why: str, at: int) -> Failure:
        """Keep a failure of a model, of which so many units are finished."""
        failure = failure_of(name, process, exit, why, at, self.rules.launch, self.settings)
        append_failure(self._file, failure)
        return failure

    @property
    def _file(self) -> Path:
        return self.rules.study / WORK / FAILURES


def finished_units(job: Job) -> int:
    """How many units of records a model has."""
    return sum(job.store.has(unit) for unit in job.work.ids)


def probe_units(
    order: ProbeOrder, rules: Rules, report: Reporter, wanted: frozenset[str] | None
) -> dict[str, Failure]:
    """Probe what is free until nothing is left; what was given up, by model. wanted: models; None: all. Writes no
    report: whoever started the workers does."""
    given = [*map(Path, order.folders), *map(PublishedModel, order.models)]
    named = None if order.config is None else parse(order.config)
    targets, config, out = resolve_targets(given, order.laid_on, named)
    with sharing(config.probe, config.kernels, out):
        failures = NotedFailures(rules, order.digest)
        return _probe_units(open_session(targets, config, out), failures, report, wanted)


def _probe_units(
    session: Session, failures: NotedFailures, report: Reporter, wanted: frozenset[str] | None
) -> dict[str, Failure]:
    jobs = [job for job in jobs_of(session) if wanted is None or job.variant.name in wanted]

    def progress(job: Job) -> ProbeProgress:
        report.begin(PROBE, job.variant.name)
        first: list[int] = []
        begun = report.clock()

        def show(done: Done, label: str) -> None:
            first[:] = first or [done.tokens]
            seconds = report.clock() - begun
            report.at(what=label, done=done.tokens, total=job.work.plan.tokens, first=first[0], seconds=seconds)

        return show

    do_jobs(jobs, session.config.probe, progress, failures)
    return {job.variant.name: why for job in jobs if not job.is_done() and (why := failures.why(job)) is not None}
