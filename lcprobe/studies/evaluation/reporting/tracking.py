"""What an evaluation tracks in W&B: the report in a run of job type `probe`, and each model's values in its own run,
so that models are compared as runs.

For a run of the study that is probed that is its training run, which is resumed; a published model, a model with a
method or template, and a run of another study have one of job type `eval`.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.write import Report
from lcprobe.config import Config
from lcprobe.errors import CheckpointError, LockedError, shorten
from lcprobe.files import digest_json
from lcprobe.locks import folder_lock
from lcprobe.schema import plain
from lcprobe.studies.evaluation.session import Session
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.status import read_status
from lcprobe.studies.tracking import WandbRun, read_metrics
from lcprobe.studies.tracking.alerts import alert_once
from lcprobe.studies.tracking.chosen import is_tracked, open_run
from lcprobe.studies.tracking.eval_values import eval_curves, eval_summary
from lcprobe.studies.tracking.kept_evaluations import KEPT, Evaluation, Shared, keep, merged, read_kept
from lcprobe.studies.tracking.lineage import checkpoint_of, dataset_of, records_of, report_of
from lcprobe.studies.tracking.wandb_tracker import saved_run
from lcprobe.studies.training.tracking import AXIS, track_final
from lcprobe.tracking import NoTracker, Tracker
from lcprobe.words import counted

log = logging.getLogger(__name__)


@contextmanager
def probe_run(session: Session, config: Config, folder: Path) -> Iterator[Tracker]:
    """The tracker of a report that is written to `folder`, for the block; it is closed as the block ends."""
    tracker: Tracker = NoTracker()
    if is_tracked(config.track, session.out):
        study, place = _place(session.out)
        inside = folder.resolve().relative_to(session.out.resolve()).parts if _is_below(folder, session.out) else ()
        facts = {
            "targets": {t.name: t.source.path.name for t in session.targets},
            "probe": plain(config.probe),
            "pe": plain(config.pe),
            "compat": plain(config.compat),
        }
        name = "/".join([config.study.name, *inside, "probe"])
        run = WandbRun(
            str(study), "/".join([*place, *inside]), name, config.study.name, "probe", tags=["probe"], config=facts
        )
        tracker = open_run(config.track, run, session.out)
        for target in session.targets:
            if target.run_folder is not None:
                tracker.uses(checkpoint_of(target.config, target.run_folder, target.source.path))
    try:
        yield tracker
    except BaseException as error:
        tracker.finish(error)
        raise
    tracker.finish()


def track_report(tracker: Tracker, report: Report, name: str, home: Path) -> None:
    """Track the page, and it and the records of `home` as artifacts."""
    tracker.page("report/page", report.html)
    tracker.artifact(records_of(name, home))
    tracker.artifact(report_of(name, report.html, home))
    found = report.findings[0] if report.findings else "nothing is resolved"
    alert_once(tracker, home, f"{name}: a report is written", f"{os.path.relpath(report.html, home)}: {found}")


def track_models(
    session: Session, config: Config, results: Results, names: Mapping[str, str], question: str, own: bool
) -> None:
    """Track what was found of each model in its own run, with what was found by other questions. names: of models, as
    the results have them; question: the digest of what was asked; own: whether it is the study's own question."""
    if not is_tracked(config.track, session.out):
        return
    replaced, kept = set[str](), set[str]()
    for variant in session.variants:
        folder, name = _training_run(session, variant), names.get(variant.name, variant.name)
        found = Evaluation(question, eval_summary(results, name), eval_curves(results, name), own)
        try:
            with nullcontext() if folder is None else folder_lock(folder):
                shared = _track_model(session, config, results, variant, name, folder, found)
            replaced.update(shared.replaced)
            kept.update(shared.kept)
        except LockedError:
            log.warning("W&B: %s is being trained; its values are sent when it is probed next", variant.name)
    if replaced:
        line = "W&B: %s of other questions replaced by this one's, since they have one name: %s"
        log.info(line, counted(len(replaced), "value"), shorten(", ".join(sorted(replaced)), 80))
    if kept:
        line = "W&B: %s of this question left out: the study's own, or one with more answers, has these names: %s"
        log.info(line, counted(len(kept), "value"), shorten(", ".join(sorted(kept)), 80))


def _track_model(
    session: Session,
    config: Config,
    results: Results,
    variant: Variant,
    name: str,
    folder: Path | None,
    found: Evaluation,
) -> Shared:
    """name: of the model in the results. folder: of the training run that is resumed; None: it has a run of its
    own. Returns names of values that it shares with other questions."""
    saved, ended = None if folder is None else saved_run(folder), None
    if folder is None or saved is None:
        run = _eval_run(session, config, results, variant, name)
        kept = session.out / f"wandb_eval-{digest_json(run.run)[:10]}.json"
        tracker = open_run(config.track, run, session.out)
    else:
        kept, rows = folder / KEPT, read_metrics(folder / "metrics.csv")
        tracker = open_run(config.track, saved, session.out, goes_on=True, rows=rows)
        tracker.uses(dataset_of(saved))
        status = read_status(folder)
        if status.get("status") == "done":
            track_final(tracker, folder, variant.target.config, status)
        else:
            ended = CheckpointError(f"{folder.name} is not trained to its end")
    shared = keep(kept, found)
    everything = merged(read_kept(kept))
    for row in everything.curves:
        tracker.metrics(row)
    tracker.summary(everything.summary)
    tracker.finish(ended)
    return shared


def _training_run(session: Session, variant: Variant) -> Path | None:
    """The folder of the run that has a variant's training in W&B, where it belongs to the study that is probed."""
    folder = variant.target.run_folder
    if folder is None or variant.name != variant.target.name or saved_run(folder) is None:
        return None
    home = session.out.resolve()
    return folder if home in (folder.resolve(), folder.resolve().parent) else None


def _eval_run(session: Session, config: Config, results: Results, variant: Variant, name: str) -> WandbRun:
    study, place = _place(session.out)
    run = next(run for run in results.study.runs if run.name == name)
    facts: dict[str, Any] = {k: v for k, v in asdict(run).items() if isinstance(v, str | int | float)}
    trained = None if variant.target.run_folder is None else saved_run(variant.target.run_folder)
    if trained is not None:
        facts |= {key: value for key, value in trained.config.items() if key.startswith(AXIS)}
    shown = f"{config.study.name}/{name}"
    return WandbRun(
        str(study), "/".join([*place, variant.name]), shown, config.study.name, "eval", tags=["eval"], config=facts
    )


def _place(home: Path) -> tuple[Path, tuple[str, ...]]:
    """The study that a folder of results belongs to, and its place there: of a run's folder, that of the run."""
    saved = saved_run(home)
    return (home, ()) if saved is None else (Path(saved.study), Path(saved.run).parts)


def _is_below(folder: Path, home: Path) -> bool:
    return folder.resolve().is_relative_to(home.resolve())
