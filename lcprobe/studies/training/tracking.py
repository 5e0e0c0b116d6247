"""What a training run tracks: its rows in metrics.csv, and itself as a run of W&B."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.config import Config
from lcprobe.data.prepare import Prepared
from lcprobe.locks import Claim, require_kept
from lcprobe.schema import plain
from lcprobe.studies.planning.plan import PlannedRun
from lcprobe.studies.tracking import CsvTracker, Trackers, WandbRun, final_loss, read_metrics
from lcprobe.studies.tracking.chosen import is_tracked, open_run
from lcprobe.studies.tracking.kept_evaluations import KEPT, merged, read_kept
from lcprobe.studies.tracking.lineage import checkpoint_of, dataset_of
from lcprobe.studies.tracking.wandb_tracker import JobType, agent_run_id, saved_run
from lcprobe.tracking import Tracker
from lcprobe.training.checkpoint import checkpoints
from lcprobe.training.ranks import is_main

AXIS = "axis/"
"""Before the name of an axis of the grid, in the config of a run."""


class KeptTracker(Trackers):
    """The trackers of a run while its folder is this process's. Raises ClaimLost instead of a row or an end that
    another process, which trains it now, has not written."""

    def __init__(self, tracker: Tracker, claim: Claim):
        super().__init__([tracker])
        self._claim = claim

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """See Tracker."""
        require_kept(self._claim)
        super().metrics(values)

    def finish(self, error: BaseException | None = None) -> None:
        """See Tracker."""
        require_kept(self._claim)
        super().finish(error)


def run_tracker(run: PlannedRun, folder: Path, data: Prepared, tokens_done: int, job_type: JobType) -> Tracker:
    """The trackers of the main process as one; none in the others."""
    trackers: list[Tracker] = []
    if is_main():
        table, track = CsvTracker(folder / "metrics.csv", tokens_done), run.config.track
        trackers.append(table)
        if not tokens_done:
            (folder / KEPT).unlink(missing_ok=True)  # what was said of the run that this one replaces
        study = Path(run.config.study.folder) / run.config.study.name
        if is_tracked(track, study):
            own = _wandb(run, study, folder, data, job_type)
            own.save(folder)
            evaluated = merged(read_kept(folder / KEPT))
            rows = [*table.rows, *evaluated.curves]
            trackers.append(open_run(track, own, folder, goes_on=tokens_done > 0, rows=rows))
            trackers[-1].summary(evaluated.summary)
            trackers[-1].uses(dataset_of(own))
    return Trackers(trackers)


def track_final(tracker: Tracker, folder: Path, config: Config, facts: Mapping[str, Any]) -> None:
    """Track what a trained run in a folder comes to: digest of its data, its loss, and its checkpoint.
    facts: those of its status.json."""
    rows = read_metrics(folder / "metrics.csv")
    values = {name: facts[name] for name in ("data_digest", "skipped")} | {"train_seconds": facts["seconds"]}
    tracker.summary({**values, "train/final_loss": final_loss(rows)})
    for _, final in checkpoints(folder / "checkpoints")[:1]:
        tracker.artifact(checkpoint_of(config, folder, final))


def _wandb(run: PlannedRun, study: Path, folder: Path, data: Prepared, job_type: JobType) -> WandbRun:
    """The W&B run of a run.

    Its config has the value on each axis of the grid under a key of its own, `axis/lr`, which the table of runs shows
    as it is: nested keys are shown with dots there, and a dot in a key as if it were nested.
    """
    config, cost = run.config, run.matched.cost
    train = config.train
    facts = {
        **plain(config),
        **{f"{AXIS}{name.replace('.', '_')}": value for name, value in run.axes.items()},
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
