"""The learning-rate sweep: short trials of every architecture at every rate, so that no model is compared untuned.

Recurrent models learn recall in a narrow window of rates (arXiv 2508.19029). A trial's score is its loss on answers
(on text where there are no episodes) over the last tenth of its budget: every batch is new, so that training loss is
held-out loss.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lcprobe.config import Config, TunedConfig
from lcprobe.data.config import DataConfig, Recipe
from lcprobe.errors import ConfigError, NumericsError
from lcprobe.files import digest_json, read_json, write_json
from lcprobe.models.config import ModelConfig
from lcprobe.schema import plain
from lcprobe.studies.planning.initial_weights import initial_checkpoint_of
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.status import read_status
from lcprobe.studies.tracking import final_loss, read_metrics
from lcprobe.studies.training.study_progress import StudyProgress, piece_of
from lcprobe.studies.training.train_run import train_run
from lcprobe.training.config import TrainConfig
from lcprobe.training.ranks import is_main
from lcprobe.words import distinct_numbers

log = logging.getLogger(__name__)
NEAR_BEST = 1.1
"""A rate is near the best when its score is within this factor of the best score."""
TRAINING = (
    "context_length", "batch_tokens", "warmup", "schedule", "decay", "final_lr", "weight_decay", "betas", "eps",
    "clip", "precision",
)  # fmt: skip
"""Settings of training that the best rate depends on."""


def progress_of(plan: StudyPlan, display: ProgressDisplay) -> StudyProgress:
    """The progress of a plan's trials and runs, those of before included; of a sweep alone, its trials."""
    trials = {trial.name: trial for own in trials_of(plan).values() for trial in own}
    runs = {} if plan.config.study.lr_sweep.only else {run.name: piece_of(run, run.folder) for run in plan.runs}
    return StudyProgress(display, {name: piece_of(t, trial_folder(plan, t)) for name, t in trials.items()}, runs)


Score = Callable[[PlannedRun, Path], float]
"""What a trial in its folder is worth, the less the better; NaN: it diverged."""


def tune(
    plan: StudyPlan, progress: StudyProgress | None = None, score: Score | None = None
) -> tuple[dict[str, PlannedRun], list[dict[str, Any]]]:
    """The runs at their best rates, each with how its rate was chosen (study.tuned), and the rows of the sweep.

    With study.lr_sweep: runs the trials that are missing, with progress, or takes their scores as given. With
    study.tuned_by: uses an earlier sweep's rates, and notes where it was of other models or data. Raises ConfigError
    for a missing sweep file, and for a train.lr that it would override.
    """
    sweep = plan.config.study.lr_sweep
    if sweep.lrs:
        if score is None:
            shown = progress or progress_of(plan, ProgressDisplay(shown=False))
            score = partial(_run_trial, progress=shown)
        rows = _sweep(plan, score)
        results = {"identity": {run.group: _identity(run.config) for run in plan.runs}, "rows": rows}
        if is_main():
            write_json(plan.folder / "lr_sweep.json", results)
    elif plan.config.study.tuned_by is not None:
        results = _earlier_sweep(plan, plan.config.study.tuned_by)
    else:
        return {run.name: _without_stale_tuning(run) for run in plan.runs}, []
    best = {row["group"]: row for row in results["rows"] if row["best"]}
    runs = {}
    for run in plan.runs:
        row = best.get(run.group)
        if row is None:
            runs[run.name] = _without_stale_tuning(run)
            continue
        how = _how(row, run.config.train.trained_tokens)
        if results["identity"].get(run.group) != _identity(run.config):
            how = "swept for another model, other data or other training settings"
        runs[run.name] = _with_lr(run, row["lr"], how)
        if row["at_edge"] and is_main():
            log.warning(
                "%s: the best rate %g is at the edge of the sweep: widen study.lr_sweep.lrs", run.group, row["lr"]
            )
    return runs, results["rows"]


def planned_rates(plan: StudyPlan) -> dict[str, float | str]:
    """The rate that `tune` will use for each group, without training anything. Raises ConfigError as `tune` does."""
    study = plan.config.study
    rates: dict[str, float | str] = {run.group: run.config.train.lr for run in plan.runs}
    if study.lr_sweep.lrs:
        for run in plan.runs:
            _check_start_exists(run)
        return dict.fromkeys(rates, "swept first")
    if study.tuned_by is not None:
        rates |= {row["group"]: row["lr"] for row in _earlier_sweep(plan, study.tuned_by)["rows"] if row["best"]}
    return rates


def _check_start_exists(run: PlannedRun) -> None:
    """Raises ConfigError for a run that starts from one of the study that is not trained yet: trials come first."""
    start = run.config.train.from_
    if start is not None and initial_checkpoint_of(Path(start)) is None:
        given = f"trials of {run.name}, which starts from {Path(start).name}"
        allowed = "a sweep of the runs from random weights, then their rates by study.tuned_by (or train.lr)"
        raise ConfigError("study.lr_sweep.lrs", given, allowed)


def _earlier_sweep(plan: StudyPlan, tuned_by: str) -> dict[str, Any]:
    """Read an earlier sweep. Raises ConfigError where the config sets train.lr for a group that the sweep has a rate
    for."""
    sweep = read_sweep(Path(tuned_by))
    known = {row["group"] for row in sweep["rows"]}
    for run in plan.runs:
        if run.sets_lr and run.group in known:
            given = f"{run.config.train.lr:g} for {run.group}, which study.tuned_by sets"
            raise ConfigError("train.lr", given, "one of the two (study.tuned_by=null keeps train.lr)")
    return sweep


def spread_of(rows: list[dict[str, Any]], group: str) -> dict[str, Any]:
    """A group's best rate and score, its worst score, and how many rates are within NEAR_BEST of the best."""
    own = [row for row in rows if row["group"] == group and row["score"] is not None]
    best = min(own, key=lambda row: row["score"])
    tried = sum(row["group"] == group for row in rows)
    near = [row["lr"] for row in own if row["score"] <= NEAR_BEST * best["score"]]
    return {
        "group": group,
        "best lr": best["lr"],
        "best loss": best["score"],
        "worst loss": max(row["score"] for row in own),
        "rates within 10 % of best": f"{len(near)} of {tried} ({min(near):g} to {max(near):g})",
        "rates that diverged": tried - len(own),
        "at edge": next(row["at_edge"] for row in own if row["best"]),
    }


def trials_of(plan: StudyPlan) -> dict[str, list[PlannedRun]]:
    """The trials of a study's sweep by model, rate by rate; none without a sweep."""
    sweep = plan.config.study.lr_sweep
    groups: dict[str, PlannedRun] = {}
    for run in plan.runs:
        groups.setdefault(run.group, run)
    return {
        group: [
            _trial(run, lr, name, seed, min(sweep.tokens, run.config.train.tokens))
            for lr, name in zip(sweep.lrs, distinct_numbers(sweep.lrs), strict=True)
            for seed in sweep.seeds
        ]
        for group, run in groups.items()
        if sweep.lrs
    }


def trial_folder(plan: StudyPlan, trial: PlannedRun) -> Path:
    """Where a trial is trained."""
    return plan.folder / "sweep" / trial.name


def _sweep(plan: StudyPlan, score_of: Score) -> list[dict[str, Any]]:
    sweep = plan.config.study.lr_sweep
    rows = []
    for group, trials in trials_of(plan).items():
        scores: dict[float, list[float]] = {}
        for trial in trials:
            score = score_of(trial, trial_folder(plan, trial))
            scores.setdefault(trial.config.train.lr, []).append(score)
        train = trials[0].config.train
        finite = {lr: sum(s) / len(s) for lr, s in scores.items() if all(map(math.isfinite, s))}
        if not finite:
            raise ConfigError("study.lr_sweep.lrs", sweep.lrs, f"rates at which {group} trains to a finite loss")
        best = min(finite, key=lambda lr: finite[lr])
        for lr in sweep.lrs:
            is_best = lr == best
            edge = is_best and lr in (sweep.lrs[0], sweep.lrs[-1])
            score, worst = finite.get(lr), max(scores[lr]) if lr in finite else None
            diverged = sum(not math.isfinite(s) for s in scores[lr])
            row = {
                "group": group,
                "lr": lr,
                "tokens": train.trained_tokens,
                "score": score,
                "worst_seed": worst,
                "diverged_seeds": diverged,
            }
            rows.append({**row, "best": is_best, "at_edge": edge})
    return rows


def _run_trial(trial: PlannedRun, folder: Path, progress: StudyProgress) -> float:
    """A trial's score; NaN where it diverged, which is a result for its rate and does not stop the sweep."""
    try:
        status = train_run(trial, folder, "sweep", progress.trial(trial.name))
        progress.finished("trial", trial.name, status["seconds"])
    except NumericsError as error:
        progress.finished("trial", trial.name, 0.0)
        if is_main():
            log.warning("sweep: %s diverged (%s)", trial.name, error)
        return math.nan
    return trial_score(trial, folder)


def trial_score(trial: PlannedRun, folder: Path) -> float:
    """The score of a trial that has ended."""
    diverged = read_status(folder).get("status") != "done"
    return math.nan if diverged else final_loss(read_metrics(folder / "metrics.csv"))


def _trial(run: PlannedRun, lr: float, lr_name: str, seed: int, tokens: int) -> PlannedRun:
    """A run's trial. It keeps one checkpoint, to go on from: its weights are not wanted."""
    config = _with_lr(run, lr, "trial").config
    train = replace(config.train, tokens=tokens, probe_every=0, keep=1)
    track = replace(config.track, artifacts="none")
    name, axes = f"{run.group}-lr={lr_name}-s{seed}", {**run.axes, "lr": lr, "seed": seed}
    return replace(run, name=name, config=replace(config, train=train, track=track, seed=seed), axes=axes)


def _with_lr(run: PlannedRun, lr: float, how: str) -> PlannedRun:
    """The run at another rate, with how the rate was chosen."""
    config = replace(run.config, train=replace(run.config.train, lr=lr))
    tuned = TunedConfig(how, _identity_of_tuned(config))
    return replace(run, config=replace(config, study=replace(config.study, tuned=tuned)))


def _without_stale_tuning(run: PlannedRun) -> PlannedRun:
    """The run, without the note on an earlier sweep where its settings are no longer those of the sweep."""
    study = run.config.study
    if study.tuned.identity == _identity_of_tuned(run.config):
        return run
    return replace(run, config=replace(run.config, study=replace(study, tuned=TunedConfig())))


def _how(row: dict[str, Any], tokens: int) -> str:
    budget = "" if row["tokens"] == tokens else f" at {row['tokens']:,} tokens, trained for {tokens:,}"
    edge = ", at the edge of the grid" if row["at_edge"] else ""
    return f"swept{budget}{edge}"


def _identity(config: Config) -> str:
    """Digest of what the best rate depends on: model, data and training settings, without rate and budget."""
    data = {k: v for k, v in _changed(config.data).items() if k != "folder"}
    for recipe in data.get("recipes", {}).values():
        if recipe["distance"] == Recipe().distance:  # as in sweeps of before recipes had this setting
            del recipe["distance"]
    model, train = _changed(config.model), plain(config.train)
    if config.model.context_length == config.train.context_length:
        model.pop("context_length", None)
    changed = _changed(config.train)
    train = {k: train[k] for k in TRAINING} | {k: changed[k] for k in ("extend", "length_schedule") if k in changed}
    return digest_json([model, data, train, changed.get("switch")])[:16]


def _changed(config: DataConfig | ModelConfig | TrainConfig) -> dict[str, Any]:
    """Fields that differ from their defaults, so that a setting added later does not change the digest of configs
    without it."""
    defaults = plain(type(config)())
    return {k: v for k, v in plain(config).items() if v != defaults[k]}


def _identity_of_tuned(config: Config) -> str:
    return digest_json([_identity(config), config.train.lr, config.train.tokens])[:16]


def read_sweep(path: Path) -> dict[str, Any]:
    """The rows and identities of an earlier sweep. Raises ConfigError for a file that is not a sweep's."""
    try:
        sweep = read_json(path) if path.is_file() else {}  # a pipe would be waited for
        columns = {"group", "lr", "tokens", "best", "at_edge"}
        if isinstance(sweep["identity"], dict) and columns <= set(sweep["rows"][0]):
            return sweep
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    raise ConfigError("study.tuned_by", str(path), "a lr_sweep.json written by a study with study.lr_sweep")
