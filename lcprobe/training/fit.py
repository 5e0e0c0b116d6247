"""Train one run to the end of its budget, from the start or its newest checkpoint, resumable at any moment."""

import logging
import math
import signal
import warnings
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import lightning.pytorch as pl
import torch

from lcprobe.data.mixture import Mixture
from lcprobe.errors import StoppedEarly
from lcprobe.locks import Alone, Claim
from lcprobe.models.language_model import LanguageModel
from lcprobe.tracking import NoTracker, Tracker
from lcprobe.training.build import repeated_gradients
from lcprobe.training.checkpoint import Progress, latest, load_model, load_progress, set_aside_damaged
from lcprobe.training.compiling import compile_blocks
from lcprobe.training.config import TrainConfig
from lcprobe.training.guards.deadline import is_over
from lcprobe.training.guards.disk import require_room
from lcprobe.training.guards.heart import Heart
from lcprobe.training.guards.peers import Peers, peer_errors
from lcprobe.training.guards.rewinding import LeftOut, read_left_out
from lcprobe.training.guards.watchdog import Ended, Limit, watched
from lcprobe.training.loading.loader import MixtureData, worker_errors
from lcprobe.training.module import Training
from lcprobe.training.processes import known_to_all, processes
from lcprobe.training.ranks import broadcast, decided_by_main, is_main, join_processes, rank
from lcprobe.training.saving import Saver
from lcprobe.training.strategies.division import Division, divide_model, fill
from lcprobe.training.strategies.environment import Started
from lcprobe.training.strategies.lightning import lightning_strategy

ALONE = Alone()
log = logging.getLogger(__name__)


def fit(
    config: TrainConfig,
    model: LanguageModel,
    mixture: Mixture,
    folder: Path,
    *,
    seed: int,
    config_yaml: str,
    source: Path | None = None,
    tracker: Tracker | None = None,
    callbacks: Iterable[pl.Callback] = (),
    ended: Ended = lambda reason: None,
    claim: Claim = ALONE,
) -> Training:
    """Train `model` in place, with checkpoints in `folder`/checkpoints. Resumes from the newest valid one; where
    there is none, starts from the checkpoint `source`, or from random weights by `seed`. ended: is told why before
    the process ends, where nothing moves for train.hang_minutes, or as another process has failed. claim: of the
    folder.

    Raises StoppedEarly after a signal or train.max_hours (everything saved), ClaimLost before a checkpoint in a
    folder that another process has taken over, NumericsError when gradients stay
    non-finite, Rewind where training is to go back first (`guards.rewinding`), CheckpointError when there are
    checkpoints and none is valid, LoaderError when a process that makes batches is gone or hangs, PeerError when
    another process of the run does not answer, FailedElsewhere when that has said why, OSError when there is no room
    for checkpoints, or one cannot be written three times in a row, StoppedUnsaved (an OSError) when it is the one of
    a stop.
    """
    division = divide_model(config, model, join_processes(config))
    start = decided_by_main(lambda: _newest_whole(folder / "checkpoints"))
    digests = {name: mixture.data.manifest[name] for name in ("corpus_digest", "tokenizer_digest")}
    progress = Progress(**digests) if start is None else load_progress(start)
    if start is None and source is not None:
        load_model(source, model, division)
    elif start is None:
        fill(model, division, model.initial_values(seed, division.shapes_of(model)))
    else:
        load_model(start, model, division)
        if is_main():
            log.info("resuming %s at step %d of %d", folder.name, progress.step, config.steps)
    left_out = broadcast(read_left_out(folder) if is_main() else LeftOut())
    heart = Heart(compiles=config.compile)
    module = Training(config, model, seed, progress, tracker or NoTracker(), division, left_out, heart)
    if progress.step >= config.steps:
        return module
    if broadcast(is_over(config.max_hours)):
        raise StoppedEarly(f"{folder.name}: train.max_hours ({config.max_hours:g}) are over at step {progress.step}")
    parameters = sum(math.prod(division.shape(name, p)) for name, p in model.named_parameters())
    decided_by_main(lambda: require_room(folder / "checkpoints", parameters, config.most_kept))
    model.recompute = config.recompute
    if config.compile:
        compile_blocks(model)
    saver = Saver(folder / "checkpoints", config, config_yaml, start, parameters, claim)
    trainer, peers = _trainer(config, division, progress, [*callbacks, saver]), Peers(heart)
    with (
        repeated_gradients(config),
        worker_errors(),
        closing(MixtureData(config, mixture, progress.step, module.initial, heart)) as data,
        watched(heart, peers, _limit(config), folder / f"hang-{rank()}.txt", ended, peers.waits_in_vain),
        peer_errors(peers),
    ):
        try:
            trainer.fit(module, datamodule=data)
        except SystemExit:  # Lightning's answer to the interrupt of a second signal
            raise saver.interrupt from None
    if saver.stopped_by is not None:
        broadcast(None)  # the checkpoint is written before any process ends, which a launcher takes as a failure
        if saver.stopped_by == signal.SIGINT:
            with known_to_all(KeyboardInterrupt):
                raise KeyboardInterrupt
        step = module.progress.step
        raise StoppedEarly(f"{folder.name}: stopped by {saver.reason} at step {step} of {config.steps}, saved")
    return module


def _newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from; damaged ones are set aside."""
    set_aside_damaged(folder)
    return latest(folder)


def _limit(config: TrainConfig) -> Limit:
    return Limit("train.hang_minutes", config.hang_minutes, "the same command resumes from the last checkpoint")


def _trainer(config: TrainConfig, division: Division, progress: Progress, callbacks: list[pl.Callback]) -> pl.Trainer:
    silence_lightning()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    here = processes()
    return pl.Trainer(
        plugins=[Started(here)],
        accelerator=config.accelerator,
        devices=here.local_size,
        num_nodes=here.nodes,
        strategy=lightning_strategy(division),
        precision="32-true" if config.precision == "32" else "bf16-mixed",
        accumulate_grad_batches=config.accumulate,
        max_steps=config.steps - progress.step,
        max_epochs=1,
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every,
    )


def silence_lightning() -> None:
    """Keep Lightning's own messages (hardware, tips, advice on workers) out of the output."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.rank_zero",
        "lightning.pytorch",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    # what it warns of, changing a block's output in place, nothing does
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    torch.set_float32_matmul_precision("high")
