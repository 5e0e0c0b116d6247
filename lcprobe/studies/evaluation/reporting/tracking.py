"""What an evaluation tracks in W&B: the report in a run of job type `probe`, and each model's values in its own run,
so that models are compared as runs.

For a run of the study that is probed that is its training run, which is resumed; a published model, a model with a
method or template, and a run of another study have one of job type `eval`.
"""

import logging
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
from lcprobe.studies.tracking import WandbRun, WandbTracker, read_metrics, wandb_mode
from lcprobe.studies.tracking.eval_values import eval_curves, eval_summary
from lcprobe.studies.tracking.kept_evaluations import KEPT, Evaluation, keep, merged, read_kept
from lcprobe.studies.tracking.wandb_tracker import saved_run
from lcprobe.studies.training.tracking import track_final
from lcprobe.tracking import NoTracker, Tracker
from lcprobe.words import counted

log = logging.getLogger(__name__)


@contextmanager
def probe_run(session: Session, config: Config, folder: Path) -> Iterator[Tracker]:
    """The tracker of a report that is written to `folder`, for the block; it is closed as the block ends."""
    tracker: Tracker = NoTracker()
    if wandb_mode(config.track, session.out) != "off":
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
        tracker = WandbTracker(config.track, run, session.out)
    try:
        yield tracker
    except BaseException as error:
        tracker.finish(error)
        raise
    tracker.finish()


def track_report(tracker: Tracker, report: Report, name: str, home: Path) -> None:
    """Track the page, and the records of `home` as an artifact."""
    tracker.page("report/page", report.html)
    files = [*sorted((home / "records").glob("*.parquet")), *sorted((home / "context").glob("*.parquet"))]
    tracker.artifact(f"{name}-records", "records", files)


def track_models(session: Session, config: Config, results: Results, names: Mapping[str, str], question: str) -> None:
    """Track what was found of each model in its own run, with what was found by other questions. names: of models, as
    the results have them; question: the digest of what was asked."""
    if wandb_mode(config.track, session.out) == "off":
        return
    replaced: set[str] = set()
    for variant in session.variants:
        folder, name = _training_run(session, variant), names.get(variant.name, variant.name)
        found = Evaluation(question, eval_summary(results, name), eval_curves(results, name))
        try:
            with nullcontext() if folder is None else folder_lock(folder):
                replaced |= set(_track_model(session, config, results, variant, name, folder, found))
        except LockedError:
            log.warning("W&B: %s is being trained; its values are sent when it is probed next", variant.name)
    if replaced:
        line = "W&B: %s of other questions replaced by this one's, since they have one name: %s"
        log.info(line, counted(len(replaced), "value"), shorten(", ".join(sorted(replaced)), 80))


def _track_model(
    session: Session,
    config: Config,
    results: Results,
    variant: Variant,
    name: str,
    folder: Path | None,
    found: Evaluation,
) -> list[str]:
    """name: of the model in the results. folder: of the training run that is resumed; None: it has a run of its
    own. Returns names of values of other questions that are replaced."""
    saved, ended = None if folder is None else saved_run(folder), None
    if folder is None or saved is None:
        run = _eval_run(session, config, results, variant, name)
        kept = session.out / f"wandb_eval-{digest_json(run.run)[:10]}.json"
        tracker = WandbTracker(config.track, run, session.out)
    else:
        kept, rows = folder / KEPT, read_metrics(folder / "metrics.csv")
        tracker = WandbTracker(config.track, saved, session.out, goes_on=True, rows=rows)
        if read_status(folder).get("status") == "done":
            track_final(tracker, folder, variant.target.config)
        else:
            ended = CheckpointError(f"{folder.name} is not trained to its end")
    replaced = keep(kept, found)
    everything = merged(read_kept(kept))
    for row in everything.curves:
        tracker.metrics(row)
    tracker.summary(everything.summary)
    tracker.finish(ended)
    return replaced


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
