"""Train one run of a plan in its folder, from the start or from its newest checkpoint."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lcprobe.config import Config, parse, to_yaml
from lcprobe.data.distributions import training_data_of
from lcprobe.data.mixture import Mixture
from lcprobe.data.prepare import Prepared, manifest_of, prepare
from lcprobe.errors import ConfigError
from lcprobe.files import digest_file, digest_json, write_atomic
from lcprobe.locks import folder_lock
from lcprobe.schema import plain
from lcprobe.seeds import seed_of
from lcprobe.studies.planning.initial_weights import initial_checkpoint
from lcprobe.studies.planning.plan import PlannedRun
from lcprobe.studies.status import read_run_config, read_status, versions, write_status
from lcprobe.studies.tracking.wandb_tracker import JobType
from lcprobe.studies.training.probe_callback import ProbeWhileTraining
from lcprobe.studies.training.tracking import run_tracker, track_final
from lcprobe.training.build import build_model
from lcprobe.training.checkpoint import (
    PLACES,
    check_same_corpus,
    latest,
    load_progress,
    newest_progress,
    set_aside_damaged,
)
from lcprobe.training.fit import fit
from lcprobe.training.initial_state import initial_state_of
from lcprobe.training.progress import ReportSteps, StepObserver, unobserved
from lcprobe.training.ranks import broadcast, is_main, join_processes
from lcprobe.training_data import TRAINING_DATA, write_training_data

log = logging.getLogger(__name__)
CHANGEABLE_ON_RESUME = {
    ("train", k) for k in ("log_every", "keep", "checkpoint_every", "probe_every", "threads", "compile", "recompute")
}
"""Settings that may change when a run is resumed."""
_latest: dict[str, Mixture] = {}
"""The batches of the latest run, by all that they depend on: runs that differ in their model only have the same."""


def train_run(
    run: PlannedRun, folder: Path | None = None, job_type: JobType = "train", observer: StepObserver = unobserved
) -> dict[str, Any]:
    """Train one run to the end of its budget, and return its status. A finished run is left as it is.

    job_type: of its W&B run; observer: is told about every step.

    Raises LockedError when another process trains it, ConfigError when the folder has another configuration,
    DataError when it was trained on other text, and what `fit` raises.
    """
    folder, config = folder or run.folder, run.config
    join_processes(config.train)
    with folder_lock(folder) if is_main() else nullcontext():
        status, start = broadcast(_resume_point(folder, config) if is_main() else ({}, None))
        if is_main():
            if start is not None:  # before another text is prepared
                before = load_progress(start)
                manifest = manifest_of(config.data, before.corpus_digest, anywhere=bool(run.trained_on))
                check_same_corpus(start, before, manifest)
            prepare(config.data, trained_on=run.trained_on)
        broadcast(None)
        data, done = prepare(config.data, trained_on=run.trained_on), None
        if start is not None:
            check_same_corpus(start, load_progress(start), data.manifest)
            done = load_progress(start)
        if status.get("status") == "done" and done is not None and done.step >= config.train.steps:
            log.info("%s: already done (%s tokens)", run.name, f"{done.tokens:,}")
            if is_main() and not (folder / TRAINING_DATA).is_file():  # a run of a version that wrote none
                _record_data(run, folder, make_mixture(run, data))
            return status
        return _train(run, folder, data, 0 if done is None else done.tokens, job_type, observer)


def _train(
    run: PlannedRun, folder: Path, data: Prepared, tokens_done: int, job_type: JobType, observer: StepObserver
) -> dict[str, Any]:
    """Train in a locked folder and return the status, which is written before, after, and when training stops
    early."""
    config, text = run.config, to_yaml(run.config)
    mixture = make_mixture(run, data)
    if is_main():
        write_atomic(folder / "config.yaml", text)
    tracker, facts = run_tracker(run, folder, data, tokens_done, job_type), _facts(run, data)
    if is_main():
        write_status(folder, {"status": "training", **facts})
        _record_data(run, folder, mixture)
    probe: list[ProbeWhileTraining] = []
    try:
        if config.probe.while_training is not None and config.train.probe_every != 0:
            grid = config.probe.while_training
            probe.append(ProbeWhileTraining(config.train, config.probe, grid, data.materials("probe"), tracker))
        model, source = build_model(config.model, config.train), initial_checkpoint(config)
        if source is not None:
            facts |= {"from": str(source), "from_digest": digest_file(source / "model.safetensors")[:16]}
            facts["from_tokens"] = load_progress(source).tokens + read_status(source.parent.parent).get(
                "from_tokens", 0
            )
        module = fit(
            config.train,
            model,
            mixture,
            folder,
            seed=config.seed,
            config_yaml=text,
            source=source,
            tracker=tracker,
            callbacks=[*probe, *([ReportSteps(observer)] if is_main() else [])],
        )
    except BaseException as error:  # whatever ends the run, its folder does not say that it goes on
        if is_main():
            write_status(folder, {"status": "stopped", "why": str(error) or type(error).__name__, **facts})
        tracker.finish(error)
        raise
    failed = [line for one in probe for line in one.failed]
    facts |= {"probes_failed": failed} if failed else {}
    p = module.progress
    facts |= {"step": p.step, "tokens": p.tokens, "data_digest": p.digest, "skipped": p.skipped, "seconds": p.seconds}
    if is_main():
        write_status(folder, {"status": "done", **facts})
        track_final(tracker, folder, config)
    tracker.finish()
    return {"status": "done", **facts}


def _record_data(run: PlannedRun, folder: Path, mixture: Mixture) -> None:
    """Write how far back training asks and how far its tokens can see."""
    initial = run.config.train.initial_state
    write_training_data(folder, training_data_of(mixture, "" if initial is None else initial.name))


def _facts(run: PlannedRun, data: Prepared) -> dict[str, Any]:
    """What status.json has from the start."""
    return {
        "run": run.name,
        "group": run.group,
        "params": run.matched.cost.params,
        "embedding_params": run.matched.cost.embedding,
        "tuned": run.config.study.tuned.how,
        "corpus_digest": data.manifest["corpus_digest"],
        "versions": versions(),
    }


def _resume_point(folder: Path, config: Config) -> tuple[dict[str, Any], Path | None]:
    """A run's status and its newest valid checkpoint; damaged ones are set aside."""
    _check_same_run(folder, plain(config))
    set_aside_damaged(folder / "checkpoints")
    return read_status(folder), latest(folder / "checkpoints")


def make_mixture(run: PlannedRun, data: Prepared) -> Mixture:
    """The run's training batches, checked. Raises ConfigError for a vocabulary that is larger than the model's."""
    config = run.config
    if (config.model.vocab_size or 0) < data.tokenizer.vocab_size:
        raise ConfigError(
            "model.vocab_size", config.model.vocab_size, f">= the tokenizer's {data.tokenizer.vocab_size}"
        )
    initial, preceding = config.train.initial_state, 0
    if initial is not None:
        with torch.device("meta"):
            preceding = initial_state_of(initial, build_model(config.model, config.train)).preceding
    settings = {
        "context_length": config.train.context_length,
        "rows": config.train.rows,
        "steps": config.train.steps,
        "parts": config.train.accumulate * config.train.devices,
        "seed": config.seed if config.train.from_ is None else seed_of("after", config.seed) % 2**15,
        "preceding": preceding,
    }
    schedule = config.train.length_schedule
    made_of = digest_json([settings, plain(schedule), plain(config.data), str(data.folder.resolve()), data.manifest])
    if made_of not in _latest:
        mixture = Mixture(config.data, data, schedule=schedule, **settings)
        mixture.check()
        _latest.clear()
        _latest[made_of] = mixture
    return _latest[made_of]


def _determining(config: Mapping[str, Any], digested: bool) -> dict[str, Any]:
    """The settings that determine a run's result: model, data, training, seed. digested: whether the checkpoints know
    their text and tokenizer by digest, wherever these are."""
    kept = {k: dict(config[k]) for k in ("model", "data", "train")}
    for place in PLACES if digested else ("folder",):
        kept["data"].pop(place, None)
    for section, key in CHANGEABLE_ON_RESUME:
        kept[section].pop(key, None)
    return {**kept, "seed": config["seed"]}


def _check_same_run(folder: Path, wanted: dict[str, Any]) -> None:
    if not (folder / "config.yaml").is_file() or not (folder / "checkpoints").is_dir():
        return
    digested = bool(newest_progress(folder / "checkpoints").tokenizer_digest)
    new, old = (_determining(one, digested) for one in (wanted, plain(parse(read_run_config(folder)))))
    for key, given, before in _differences(new, old):
        raise ConfigError(key, given, f"{before!r} as in {folder} (or another study.name)")


def _differences(new: Any, old: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(new, dict) and isinstance(old, dict):
        differences = []
        for name in dict.fromkeys([*new, *old]):
            differences += _differences(new.get(name), old.get(name), f"{key}.{name}" if key else str(name))
        return differences
    return [] if new == old else [(key, new, old)]
