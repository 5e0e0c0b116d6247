"""The learning-rate sweep: short trials of every architecture at every rate, so that nobody is compared untuned.

Recurrent models learn recall in a narrow window of rates (arXiv 2508.19029). The score of a trial is its answer loss (text
loss without episodes) over the last tenth of its budget: every batch is new, so training loss is held-out loss.
"""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.config import Config, TunedConfig
from lcprobe.errors import ConfigError, NumericsError
from lcprobe.files import digest_json, read_json, write_json
from lcprobe.schema import plain
from lcprobe.studies.planning.plan import Run, StudyPlan
from lcprobe.studies.trackers import read_metrics
from lcprobe.studies.training.train_run import train_run
from lcprobe.training.ranks import is_main

log = logging.getLogger(__name__)
NEAR_BEST = 1.1
"""A rate counts as good when its score is within this factor of the best one."""
TRAINING = ("context_length", "batch_tokens", "warmup", "schedule", "decay", "final_lr", "weight_decay", "betas", "eps", "clip",
            "precision")  # fmt: skip
"""Settings of training that move the best rate."""


def tune(plan: StudyPlan) -> tuple[dict[str, Run], list[dict[str, Any]]]:
    """The runs at their best rates, each with how it was tuned (study.tuned), and the rows of the sweep.

    With study.lr_sweep: run the trials that are missing. With study.tuned_by: take an earlier sweep's rates, if it was of
    the same models and data. Raises ConfigError for a sweep file that is not there, and for a train.lr that it overrules.
    """
    sweep = plan.config.study.lr_sweep
    if sweep.lrs:
        rows = _sweep(plan)
        found = {"identity": {run.group: _identity(run.config) for run in plan.runs}, "rows": rows}
        if is_main():
            write_json(plan.folder / "lr_sweep.json", found)
    elif plan.config.study.tuned_by is not None:
        found = _earlier(plan, plan.config.study.tuned_by)
    else:
        return {run.name: _as_tuned(run) for run in plan.runs}, []
    best = {row["group"]: row for row in found["rows"] if row["best"]}
    runs = {}
    for run in plan.runs:
        row = best.get(run.group)
        if row is None:
            runs[run.name] = _as_tuned(run)
            continue
        how = _how(row, run.config.train.tokens)
        if found["identity"].get(run.group) != _identity(run.config):
            how = "swept for another model, other data or another way of training"
        runs[run.name] = _with_lr(run, row["lr"], how)
        if row["at_edge"]:
            log.warning(
                "%s: the best rate %g is at the edge of the sweep: widen study.lr_sweep.lrs", run.group, row["lr"]
            )
    return runs, found["rows"]


def planned_rates(plan: StudyPlan) -> dict[str, float | str]:
    """By group, the rate that `tune` will give it, without training anything. Raises ConfigError as `tune` does."""
    study = plan.config.study
    rates: dict[str, float | str] = {run.group: run.config.train.lr for run in plan.runs}
    if study.lr_sweep.lrs:
        return dict.fromkeys(rates, "swept first")
    if study.tuned_by is not None:
        rates |= {row["group"]: row["lr"] for row in _earlier(plan, study.tuned_by)["rows"] if row["best"]}
    return rates


def _earlier(plan: StudyPlan, tuned_by: str) -> dict[str, Any]:
    """An earlier sweep. Raises ConfigError where the config sets a rate of its own for a group that the sweep knows."""
    found = read_sweep(Path(tuned_by))
    known = {row["group"] for row in found["rows"]}
    for run in plan.runs:
        if run.sets_lr and run.group in known:
            given = f"{run.config.train.lr:g} for {run.group}, which study.tuned_by sets"
            raise ConfigError("train.lr", given, "one of the two (study.tuned_by=null lets train.lr decide)")
    return found


def spread_of(rows: list[dict[str, Any]], group: str) -> dict[str, Any]:
    """Best rate and score of a group, the worst score, and how many rates are within NEAR_BEST of the best."""
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


def _sweep(plan: StudyPlan) -> list[dict[str, Any]]:
    sweep = plan.config.study.lr_sweep
    groups: dict[str, Run] = {}
    for run in plan.runs:
        groups.setdefault(run.group, run)
    rows = []
    for group, run in groups.items():
        scores: dict[float, list[float]] = {}
        tokens = min(sweep.tokens, run.config.train.tokens)
        for lr in sweep.lrs:
            for seed in sweep.seeds:
                trial = _trial(run, lr, seed, tokens)
                folder = plan.folder / "sweep" / trial.name
                log.info("sweep: %s", trial.name)
                scores.setdefault(lr, []).append(_tried(trial, folder))
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
                "tokens": tokens,
                "score": score,
                "worst_seed": worst,
                "diverged_seeds": diverged,
            }
            rows.append({**row, "best": is_best, "at_edge": edge})
    return rows


def _tried(trial: Run, folder: Path) -> float:
    """A trial's score; not finite where it diverged, which is a finding about its rate and no end of the sweep."""
    try:
        train_run(trial, folder)
    except NumericsError as error:
        log.warning("sweep: %s diverged (%s)", trial.name, error)
        return math.nan
    return _score(folder)


def _trial(run: Run, lr: float, seed: int, tokens: int) -> Run:
    config = _with_lr(run, lr, "trial").config
    train = replace(config.train, tokens=tokens, probe_every=0, checkpoint_every=tokens)
    track = replace(config.track, wandb="off")
    name = f"{run.group}-lr{lr:g}-s{seed}"
    return replace(run, name=name, config=replace(config, train=train, track=track, seed=seed))


def _score(folder: Path) -> float:
    rows = [row for row in read_metrics(folder / "metrics.csv") if "train/loss" in row]
    rows = rows[-max(1, len(rows) // 10) :]
    name = "train/answer_loss" if all("train/answer_loss" in row for row in rows) else "train/text_loss"
    values = [row.get(name, float("nan")) for row in rows]
    return sum(values) / len(values)


def _with_lr(run: Run, lr: float, how: str) -> Run:
    """The same run at another rate, with how that was found."""
    config = replace(run.config, train=replace(run.config.train, lr=lr))
    tuned = TunedConfig(how, _identity_of_tuned(config))
    return replace(run, config=replace(config, study=replace(config.study, tuned=tuned)))


def _as_tuned(run: Run) -> Run:
    """The same run; what its config says about an earlier sweep goes where the settings are no longer those."""
    study = run.config.study
    if study.tuned.identity == _identity_of_tuned(run.config):
        return run
    return replace(run, config=replace(run.config, study=replace(study, tuned=TunedConfig())))


def _how(row: dict[str, Any], tokens: int) -> str:
    budget = "" if row["tokens"] == tokens else f" at {row['tokens']:,} tokens, trained for {tokens:,}"
    return f"swept{budget}" + (", at the edge of the grid" if row["at_edge"] else "")


def _identity(config: Config) -> str:
    """Digest of what a tuned rate is good for: model, data, and how training goes, without rate and budget."""
    data = {k: v for k, v in _changed(config.data).items() if k != "folder"}
    model, train = _changed(config.model), plain(config.train)
    if config.model.context_length == config.train.context_length:
        model.pop("context_length", None)
    return digest_json([model, data, {k: train[k] for k in TRAINING}, _changed(config.train).get("switch")])[:16]


def _changed(config: Any) -> dict[str, Any]:
    """Fields that are not at their defaults: a setting that is added later changes nothing for those who do not use it."""
    defaults = plain(type(config)())
    return {k: v for k, v in plain(config).items() if v != defaults[k]}


def _identity_of_tuned(config: Config) -> str:
    return digest_json([_identity(config), config.train.lr, config.train.tokens])[:16]


def read_sweep(path: Path) -> dict[str, Any]:
    """The rows and identities of an earlier sweep. Raises ConfigError for a file that is none."""
    try:
        found = read_json(path)
        if isinstance(found["identity"], dict) and {"group", "lr", "tokens", "best", "at_edge"} <= set(
            found["rows"][0]
        ):
            return found
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    raise ConfigError("study.tuned_by", str(path), "a lr_sweep.json written by a study with study.lr_sweep")
