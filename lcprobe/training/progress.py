"""How far the training of a run is, for whoever shows it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from lcprobe.training.module import Training


@dataclass(frozen=True)
class StepReport:
    """After a step. first: steps that were done when this process began; seconds: since then, probes included; loss,
    tokens_per_second: at the last report of metrics, None before the first."""

    step: int
    steps: int
    first: int
    seconds: float
    loss: float | None = None
    tokens_per_second: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Of this run, at the pace of this process; None before its first step."""
        done = self.step - self.first
        return None if done < 1 else self.seconds / done * (self.steps - self.step)


StepObserver = Callable[[StepReport], None]
"""Called after every step."""


def unobserved(report: StepReport) -> None:
    """Shows nothing."""


class ReportSteps(pl.Callback):
    """Tells an observer about every step."""

    def __init__(self, observer: StepObserver):
        self._observer, self._begin, self._first, self._told = observer, 0.0, 0, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        assert isinstance(pl_module, Training)
        self._begin, self._first = time.perf_counter(), pl_module.progress.step
        self._tell(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report where a step, and not only a part of its batch, is done."""
        assert isinstance(pl_module, Training)
        if pl_module.progress.step != self._told:
            self._tell(pl_module)

    def _tell(self, module: Training) -> None:
        self._told, last = module.progress.step, module.last
        seconds = time.perf_counter() - self._begin
        report = StepReport(self._told, module.config.steps, self._first, seconds)
        if last:
            report = StepReport(
                self._told, module.config.steps, self._first, seconds, last.get("train/loss"),
                last["train/tokens_per_second"],
            )  # fmt: skip
        self._observer(report)
