"""Progress as plain lines, for logs and pipes: the content of a progress bar, every few seconds."""

import sys
import time
from typing import Any

import lightning.pytorch as pl

from lcprobe.training.module import Training

SECONDS = 15.0
"""Time between lines."""


class ProgressLines(pl.Callback):
    """`mamba2: 400/1953 steps  1.6M tokens  loss 3.21  27.1K tokens/s  0:55 left`."""

    def __init__(self, name: str):
        self._name, self._next, self._begin, self._first = name, 0.0, 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the timer."""
        assert isinstance(pl_module, Training)
        self._begin, self._first = time.perf_counter(), pl_module.progress.step
        self._next = self._begin + SECONDS / 3

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line when one is due, and at the end."""
        assert isinstance(pl_module, Training)
        now, p, steps = time.perf_counter(), pl_module.progress, pl_module.config.steps
        if (now < self._next and p.step < steps) or not pl_module.last:
            return
        self._next = now + SECONDS
        done = max(p.step - self._first, 1)
        left = (now - self._begin) / done * (steps - p.step)
        last = pl_module.last
        print(
            f"{self._name}: {p.step}/{steps} steps  {p.tokens / 1e6:.2f}M tokens  loss {last['train/loss']:.3f}  "
            f"{last['train/tokens_per_second'] / 1e3:.1f}K tokens/s  {int(left) // 60}:{int(left) % 60:02d} left",
            file=sys.stderr,
            flush=True,
        )
