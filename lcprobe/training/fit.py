"""Train one run to the end of its budget, from the start or its newest checkpoint, resumable at any moment."""

import logging
import signal
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lcprobe.data.mixture import Mixture
from lcprobe.errors import StoppedEarly
from lcprobe.models.language_model import LanguageModel
from lcprobe.tracking import NoTracker, Tracker
from lcprobe.training.checkpoint import (
    Progress,
    latest,
    load_model,
    load_optimizer,
    load_progress,
    save_checkpoint,
    set_aside_damaged,
)
from lcprobe.training.compiling import compile_blocks
from lcprobe.training.config import TrainConfig
from lcprobe.training.module import MixtureData, Training
from lcprobe.training.ranks import broadcast, is_main, join_processes, rank, world_size

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
) -> Training:
    """Train `model` in place, with checkpoints in `folder`/checkpoints. Resumes from the newest valid one; where
    there is none, starts from the checkpoint `source`, or from random weights by `seed`.

    Raises StoppedEarly after a signal (everything saved), NumericsError when gradients stay non-finite,
    CheckpointError when there are checkpoints and none is valid, OSError when a checkpoint cannot be written three
    times in a row.
    """
    join_processes(config)
    if is_main():
        set_aside_damaged(folder / "checkpoints")
    start = broadcast(latest(folder / "checkpoints") if is_main() else None)
    digests = {name: mixture.data.manifest[name] for name in ("corpus_digest", "tokenizer_digest")}
    progress = Progress(**digests) if start is None else load_progress(start)
    if start is None and source is not None:
        load_model(source, model)
    elif start is None:
        model.initialise(seed)
    else:
        load_model(start, model)
        log.info("resuming %s at step %d of %d", folder.name, progress.step, config.steps)
    module = Training(config, model, seed, progress, tracker or NoTracker())
    if progress.step >= config.steps:
        return module
    model.recompute = config.recompute
    if config.compile:
        compile_blocks(model)
    saver = Saver(folder / "checkpoints", config, config_yaml, start)
    trainer = _trainer(config, progress, [*callbacks, saver])
    trainer.fit(module, datamodule=MixtureData(mixture, progress.step, module.initial))
    if saver.stopped_by is not None:
        name = signal.Signals(saver.stopped_by).name
        if saver.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        raise StoppedEarly(
            f"{folder.name}: stopped by {name} at step {module.progress.step} of {config.steps}, saved"
        )
    return module


class Saver(pl.Callback):
    """Saves checkpoints at intervals, at the end, and at the end of the step after SIGTERM, SIGUSR1, SIGHUP
    or Ctrl-C."""

    def __init__(self, folder: Path, config: TrainConfig, config_yaml: str, start: Path | None):
        self._folder, self._config, self._yaml, self._start = folder, config, config_yaml, start
        tokens = config.checkpoint_every or max(config.batch_tokens, config.tokens // 10)
        self._every = max(1, tokens // config.batch_tokens)
        self._failures = 0
        self._before: dict[int, Any] = {}
        self.stopped_by: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the optimiser and install the signal handlers."""
        if self._start is not None:
            load_optimizer(self._start, _model(pl_module), trainer.optimizers[0])
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # under nohup
                continue
            try:
                self._before[number] = signal.signal(number, self._stop)
            except ValueError:  # not in the main thread: handlers cannot be installed
                return

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At the end of a step: save when due, stop after a signal."""
        step, last = _training(pl_module).progress.step, self._config.steps
        boundary = (batch_idx + 1) % self._config.accumulate == 0
        if boundary and (step % self._every == 0 or step == last or self.stopped_by is not None):
            self._save(trainer, pl_module)
        if boundary and self.stopped_by is not None:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def _stop(self, number: int, frame: Any) -> None:
        if self.stopped_by is not None:  # a second signal: stop at once; checkpoints are written atomically
            raise KeyboardInterrupt
        self.stopped_by = number

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module = _training(pl_module)
        try:
            save_checkpoint(
                self._folder,
                module.resumable,
                _model(pl_module),
                trainer.optimizers[0],
                self._yaml,
                self._config.keep,
            )
            self._failures = 0
        except OSError as error:
            self._failures += 1
            log.warning("checkpoint not written (%s); %d of 3 failures in a row", error, self._failures)
            if self._failures >= 3 or module.progress.step == self._config.steps:
                raise


def _training(module: pl.LightningModule) -> Training:
    assert isinstance(module, Training)
    return module


def _model(module: pl.LightningModule) -> LanguageModel:
    return _training(module).model


def _trainer(config: TrainConfig, progress: Progress, callbacks: list[pl.Callback]) -> pl.Trainer:
    silence_lightning()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # said, not guessed: an allocation's SLURM_* or LSB_* variables do not say how this process was started
    environment = TorchElasticEnvironment() if world_size() > 1 else LightningEnvironment()
    environment.set_global_rank(rank())
    return pl.Trainer(
        plugins=[environment],
        accelerator=config.accelerator,
        devices=config.devices,
        strategy="auto" if config.devices == 1 else "ddp",
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
    torch.set_float32_matmul_precision("high")
