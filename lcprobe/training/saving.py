"""When checkpoints are saved, and stopping at the end of a step after a signal or train.max_hours, of all processes
at the same one.

A signal may reach one process only, such as the first of a job that is pre-empted. Every process tells the others at
the end of each step whether it was told to stop, and reads their answers a step later: a number that is sent beside
the work, so that neither the device nor a process waits.
"""

import logging
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import distributed

from lcprobe.errors import TOLD_TO_END, StoppedUnsaved, Terminated
from lcprobe.locks import Claim, ClaimLost
from lcprobe.training.checkpoint import checkpoints, load_optimizer, save_checkpoint
from lcprobe.training.config import TrainConfig
from lcprobe.training.guards.deadline import is_over
from lcprobe.training.guards.disk import require_room_to_save
from lcprobe.training.module import Training
from lcprobe.training.processes import known_to_all
from lcprobe.training.ranks import broadcast, host_group, is_main, same_for_all, world_size

STOPPING = (*TOLD_TO_END, signal.SIGINT)
"""Signals that stop a run: of schedulers before they end a job, of a terminal, and of one that closes."""
TIME_UP = 255
"""In place of the number of a signal: train.max_hours are over."""
log = logging.getLogger(__name__)


class Stopping:
    """Signals to any process of a run, and the end of its time, as all processes know them."""

    def __init__(self, max_hours: float | None = None) -> None:
        self._max_hours = max_hours
        self._before: dict[int, Any] = {}
        self._told: int = 0
        self._answer: tuple[torch.Tensor, distributed.Work] | None = None
        self._group: distributed.ProcessGroup | None = None

    def install(self) -> None:
        """Handle signals from now on. All processes call it."""
        if world_size() > 1:
            self._group = host_group()
        for number in STOPPING:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # under nohup
                continue
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread: handlers cannot be installed
                return

    def restore(self) -> None:
        """Handle signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def at_step_end(self) -> int | None:
        """The signal that stops the run after this step, or TIME_UP, in all processes; None: it goes on. All call it
        after every step."""
        told = self._told or (TIME_UP if is_over(self._max_hours) else 0)
        if self._group is None:
            return told or None
        stopped = 0
        if self._answer is not None:
            of_all, work = self._answer
            work.wait()
            stopped = int(of_all)
        own = torch.tensor(told)
        work = distributed.all_reduce(own, distributed.ReduceOp.MAX, self._group, async_op=True)
        assert work is not None
        self._answer = own, work
        return stopped or None

    @property
    def interrupt(self) -> KeyboardInterrupt:
        """What ends the process after a second signal, or after KeyboardInterrupt without one."""
        told = self._told or signal.SIGINT
        return KeyboardInterrupt() if told == signal.SIGINT else Terminated(signal.Signals(told).name)

    def _handle(self, number: int, frame: Any) -> None:
        if self._told:  # a second signal: stop at once; checkpoints are written atomically
            raise KeyboardInterrupt
        self._told = number


class Saver(pl.Callback):
    """Saves checkpoints at intervals, at the end, and at the end of a step after SIGTERM, SIGUSR1, SIGUSR2, SIGHUP,
    Ctrl-C or train.max_hours. parameters: of the model, over all processes; claim: of the folder, in the main
    process."""

    def __init__(
        self, folder: Path, config: TrainConfig, config_yaml: str, start: Path | None, parameters: int, claim: Claim
    ):
        self._parameters, self._claim = parameters, claim
        self._folder, self._config, self._yaml, self._start = folder, config, config_yaml, start
        self._failures = 0
        self._stopping = Stopping(config.max_hours)
        self.stopped_by: int | None = None

    @property
    def reason(self) -> str:
        """The name of what stopped the run."""
        assert self.stopped_by is not None
        return "train.max_hours" if self.stopped_by == TIME_UP else signal.Signals(self.stopped_by).name

    @property
    def interrupt(self) -> KeyboardInterrupt:
        """What ends the process after a second signal, at once."""
        return self._stopping.interrupt

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the optimiser and install the signal handlers."""
        assert isinstance(pl_module, Training)
        if self._start is not None:
            load_optimizer(self._start, pl_module.model, trainer.optimizers[0], pl_module.division)
        self._stopping.install()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At the end of a step: save when due, stop after a signal."""
        if (batch_idx + 1) % self._config.accumulate:
            return
        assert isinstance(pl_module, Training)
        step, last = pl_module.progress.step, self._config.steps
        self.stopped_by = self._stopping.at_step_end()
        if step % self._config.checkpoint_steps == 0 or step == last or self.stopped_by is not None:
            with pl_module.heart.paused("saving a checkpoint"):
                self._save(trainer, pl_module)
        if self.stopped_by is not None:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the signal handlers."""
        self._stopping.restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._stopping.restore()

    def _save(self, trainer: pl.Trainer, module: Training) -> None:
        progress, division = module.settle(), module.division
        module.check_weights()
        if not broadcast(self._claim.is_kept()):  # what is there now is another process's
            raise ClaimLost
        optimizer, guards = trainer.optimizers[0], self._config.guards
        back = guards.leave_out if guards.goes_back else None

        def save() -> Path:
            keep = self._config.keep
            return save_checkpoint(self._folder, progress, module.model, optimizer, self._yaml, keep, division, back)

        try:  # what fails for the main process fails for all, which end or go on together
            same_for_all(lambda: require_room_to_save(self._folder, self._parameters))
            if division.is_divided:
                save()
            else:
                same_for_all(save)
            self._failures = 0
        except OSError as error:
            if self.stopped_by is not None:  # the process ends: no later checkpoint makes up for this one
                before = checkpoints(self._folder)
                resumes = f"from step {before[0][0]}" if before else "from the start"
                raise StoppedUnsaved(
                    f"stopped by {self.reason} at step {progress.step} of {self._config.steps}, and not saved "
                    f"({error}); the same command resumes {resumes}"
                ) from error
            self._failures += 1
            if is_main():
                log.warning("checkpoint not written (%s); %d of 3 failures in a row", error, self._failures)
            if self._failures >= 3 or module.progress.step == self._config.steps:
                with known_to_all(OSError):
                    raise
