"""What a training run tracks: its rows in metrics.csv, and itself as a run of W&B."""

from pathlib import Path

from lcprobe.config import Config
from lcprobe.data.prepare import Prepared
from lcprobe.schema import plain
from lcprobe.studies.planning.plan import PlannedRun
from lcprobe.studies.status import read_status
from lcprobe.studies.tracking import (
    CsvTracker,
    Trackers,
    WandbRun,
    WandbTracker,
    final_loss,
    read_metrics,
    wandb_mode,
)
from lcprobe.studies.tracking.kept_evaluations import KEPT, merged, read_kept
from lcprobe.studies.tracking.wandb_tracker import JobType, agent_run_id, saved_run
from lcprobe.tracking import Tracker
from lcprobe.training.checkpoint import latest
from lcprobe.training.ranks import is_main


def run_tracker(run: PlannedRun, folder: Path, data: Prepared, tokens_done: int, job_type: JobType) -> Tracker:
    """The trackers of the main process as one; none in the others."""
    trackers: list[Tracker] = []
    if is_main():
        table, track = CsvTracker(folder / "metrics.csv", tokens_done), run.config.track
        trackers.append(table)
        if not tokens_done:
            (folder / KEPT).unlink(missing_ok=True)  # what was said of the run that this one replaces
        study = Path(run.config.study.folder) / run.config.study.name
        if wandb_mode(track, study) != "off":
            wandb = _wandb(run, study, folder, data, job_type)
            wandb.save(folder)
            evaluated = merged(read_kept(folder / KEPT))
            rows = [*table.rows, *evaluated.curves]
            trackers.append(WandbTracker(track, wandb, folder, goes_on=tokens_done > 0, rows=rows))
            trackers[-1].summary(evaluated.summary)
    return Trackers(trackers)


def track_final(tracker: Tracker, folder: Path, config: Config) -> None:
    """Track what a finished run in a folder comes to: digest of its data, its loss, and its checkpoint where
    track.checkpoints is set."""
    status, rows = read_status(folder), read_metrics(folder / "metrics.csv")
    values = {name: status[name] for name in ("data_digest", "skipped")} | {"train_seconds": status["seconds"]}
    tracker.summary({**values, "train/final_loss": final_loss(rows)})
    final = latest(folder / "checkpoints") if config.track.checkpoints else None
    if final is not None:
        files = [path for path in final.iterdir() if path.name != "optimizer.safetensors"]
        tracker.artifact(f"{config.study.name}-{config.study.run}", "checkpoint", files)


def _wandb(run: PlannedRun, study: Path, folder: Path, data: Prepared, job_type: JobType) -> WandbRun:
    """The W&B run of a run.

    Its config has the value on each axis of the grid under a key of its own, `axis/lr`, which the table of runs shows
    as it is: nested keys are shown with dots there, and a dot in a key as if it were nested.
    """
    config, cost = run.config, run.matched.cost
    train = config.train
    facts = {
        **plain(config),
        **{f"axis/{name.replace('.', '_')}": value for name, value in run.axes.items()},
        "params": cost.params,
        "embedding_params": cost.embedding,
        "tokenizer_digest": data.tokenizer.digest,
        "corpus_digest": data.manifest["corpus_digest"],
    }
    facts = {k: v for k, v in facts.items() if k not in ("grid", "probe")}
    tags = [run.group, f"L{train.context_length}", f"{cost.params / 1e6:.2f}M"]
    place = (
        folder.resolve().relative_to(study.resolve()) if folder.resolve().is_relative_to(study.resolve()) else None
    )
    return WandbRun(
        str(folder.parent if place is None else study),
        folder.name if place is None else place.as_posix(),
        name=f"{config.study.name}/{run.name}",
        group=config.study.name,
        job_type=job_type,
        tags=tags,
        config=facts,
        agent_id=_agent_id(folder) if job_type == "train" else "",
    )


def _agent_id(folder: Path) -> str:
    """The id that an agent of a W&B sweep gives, now or when the run began."""
    before = saved_run(folder)
    return agent_run_id() or ("" if before is None else before.agent_id)
