"""Train one run of a plan in its folder, from the start or from its newest checkpoint."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from lcprobe.config import to_yaml
from lcprobe.data.distributions import training_data_of
from lcprobe.data.mixture import Mixture
from lcprobe.data.prepare import Prepared, manifest_of, prepare
from lcprobe.data.preparing.progress import PrepareObserver
from lcprobe.data.preparing.progress import unobserved as not_told
from lcprobe.errors import ConfigError, NumericsError, StoppedEarly, StoppedUnsaved, exit_code_of
from lcprobe.files import digest_json, write_atomic
from lcprobe.locks import Alone, Claim, ClaimLost, folder_lock, require_kept
from lcprobe.schema import plain
from lcprobe.seeds import seed_of
from lcprobe.studies.planning.initial_weights import initial_checkpoint
from lcprobe.studies.planning.plan import PlannedRun
from lcprobe.studies.status import read_status, versions, write_status
from lcprobe.studies.tracking.alerts import alert_once
from lcprobe.studies.tracking.wandb_tracker import JobType
from lcprobe.studies.training.out_of_memory import memory_advice
from lcprobe.studies.training.probe_callback import ProbeWhileTraining
from lcprobe.studies.training.same_settings import check_same_run
from lcprobe.studies.training.tracking import KeptTracker, run_tracker, track_final
from lcprobe.training.build import build_model, build_to_train
from lcprobe.training.checkpoint import (
    check_same_corpus,
    latest,
    load_progress,
    newest_progress,
    set_aside_damaged,
)
from lcprobe.training.fit import fit
from lcprobe.training.guards.peers import told_to_others
from lcprobe.training.guards.rewinding import read_left_out, with_rewinds
from lcprobe.training.initial_state import initial_state_of
from lcprobe.training.processes import known_to_all
from lcprobe.training.progress import ReportSteps, StepObserver, unobserved
from lcprobe.training.ranks import broadcast, decided_by_main, is_main, join_processes
from lcprobe.training.tensors.consolidate import weights_digest
from lcprobe.training_data import TRAINING_DATA, write_training_data

log = logging.getLogger(__name__)
_latest: dict[str, Mixture] = {}
"""The batches of the latest run, by all that they depend on: runs that differ in their model only have the same."""


def train_run(
    run: PlannedRun,
    folder: Path | None = None,
    job_type: JobType = "train",
    observer: StepObserver = unobserved,
    claim: Claim | None = None,
    prepares: PrepareObserver = not_told,
) -> dict[str, Any]:
    """Train one run to the end of its budget, and return its status. A finished run is left as it is.

    job_type: of its W&B run; observer: is told about every step, before its checkpoint is saved; claim: the
    folder's lock where the caller holds it; prepares: is told about preparing its text.

    Raises LockedError when another process trains it, ConfigError when the folder has another configuration,
    DataError when it was trained on other text, ClaimLost when another process has taken it over, after which
    nothing is written, and what `fit` raises.
    """
    folder, config = folder or run.folder, run.config
    join_processes(config.train)
    with ExitStack() as locks:
        held: Claim = claim or Alone()

        def begin() -> tuple[dict[str, Any], Path | None]:
            nonlocal held
            if claim is None:
                held = locks.enter_context(folder_lock(folder))
            return _begin(run, folder, prepares)

        status, start = decided_by_main(begin)
        data, done = prepare(config.data, trained_on=run.trained_on), None
        if start is not None:
            check_same_corpus(start, load_progress(start), data.manifest)
            done = load_progress(start)

        def tokens_done() -> int:  # less after a rewind than before
            return newest_progress(folder / "checkpoints").tokens

        if status.get("status") == "done" and done is not None and done.step >= config.train.steps:
            if is_main():
                log.info("%s: already done (%s tokens)", run.name, f"{done.tokens:,}")
            if is_main() and not (folder / TRAINING_DATA).is_file():  # a run of a version that wrote none
                _record_data(run, folder, make_mixture(run, data))
            return status
        with known_to_all(StoppedEarly, StoppedUnsaved, NumericsError, ClaimLost):
            return with_rewinds(
                config.train.guards,
                config.train.checkpoint_steps,
                folder,
                lambda: _train(run, folder, held, data, tokens_done(), job_type, observer),
            )


def _train(
    run: PlannedRun,
    folder: Path,
    claim: Claim,
    data: Prepared,
    tokens_done: int,
    job_type: JobType,
    observer: StepObserver,
) -> dict[str, Any]:
    """Train in a locked folder and return the status, which is written before, after, and when training stops
    early. Whatever is written, the claim is asked for before."""
    require_kept(claim)
    config, text = run.config, to_yaml(run.config)
    mixture = make_mixture(run, data)
    if is_main():
        write_atomic(folder / "config.yaml", text)
    tracker, facts = KeptTracker(run_tracker(run, folder, data, tokens_done, job_type), claim), _facts(run, data)
    if is_main():
        write_status(folder, {"status": "training", **facts})
        _record_data(run, folder, mixture)

    def stopped(why: str, exit_code: int) -> None:
        if is_main() and claim.is_kept():
            write_status(folder, {"status": "stopped", "why": why, "exit_code": exit_code, **facts})

    probe: list[ProbeWhileTraining] = []
    try:
        if config.probe.while_training is not None and config.train.probe_every != 0:
            grid = config.probe.while_training
            probe.append(ProbeWhileTraining(config.train, config.probe, grid, data.materials("probe"), tracker))
        model, source = build_to_train(config.model, config.train), initial_checkpoint(config)
        if source is not None:
            facts |= {"from": str(source), "from_digest": weights_digest(source)[:16]}
            facts["from_tokens"] = load_progress(source).tokens + read_status(source.parent.parent).get(
                "from_tokens", 0
            )
        with told_to_others(), memory_advice(run):
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
                ended=lambda reason: stopped(str(reason), exit_code_of(reason)),
                claim=claim,
            )
    except ClaimLost:  # status, metrics and the run in W&B are the other process's now
        raise
    except BaseException as error:  # whatever ends the run, its folder does not say that it goes on
        require_kept(claim)
        stopped(str(error) or type(error).__name__, exit_code_of(error))
        if isinstance(error, NumericsError) and is_main():
            study = Path(config.study.folder) / config.study.name
            alert_once(tracker, study, f"{study.name}/{run.name}: stopped by its numerics", str(error))
        tracker.finish(error)
        if isinstance(error, StoppedEarly):
            broadcast(None)  # all is written before any process ends, which a launcher takes as a failure
        raise
    failed = [line for one in probe for line in one.failed]
    facts |= {"probes_failed": failed} if failed else {}
    p = module.progress
    facts |= {"step": p.step, "tokens": p.tokens, "data_digest": p.digest, "skipped": p.skipped, "seconds": p.seconds}
    facts |= {"spikes": p.spikes, **read_left_out(folder).facts}
    require_kept(claim)
    if is_main():
        track_final(tracker, folder, config, facts)
    tracker.finish()
    if is_main():  # last: what is done is not opened again, so that nothing of it would reach W&B any more
        require_kept(claim)
        write_status(folder, {"status": "done", **facts})
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


def _begin(run: PlannedRun, folder: Path, prepares: PrepareObserver) -> tuple[dict[str, Any], Path | None]:
    """A run's status and its newest valid checkpoint; damaged ones are set aside. Prepares its text."""
    config = run.config
    check_same_run(folder, config)
    set_aside_damaged(folder / "checkpoints")
    status, start = read_status(folder), latest(folder / "checkpoints")
    if start is not None:  # before another text is prepared
        before = load_progress(start)
        manifest = manifest_of(config.data, before.corpus_digest, anywhere=bool(run.trained_on))
        check_same_corpus(start, before, manifest)
    prepare(config.data, trained_on=run.trained_on, observe=prepares)
    return status, start


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
        "parts": config.train.parts,
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
