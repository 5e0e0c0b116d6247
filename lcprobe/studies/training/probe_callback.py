"""Probing while training: a small fixed subset of the grid, at intervals, on the model in training.

A probe that fails costs its numbers, not the run: training goes on, and the run's status says so.
"""

import logging
from typing import Any

import lightning.pytorch as pl

from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import score_unit
from lcprobe.probing.scoring import ModelScorer
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tracking import Tracker
from lcprobe.training.compiling import uncompiled
from lcprobe.training.config import TrainConfig
from lcprobe.training.module import Training
from lcprobe.training.strategies.division import reshard

log = logging.getLogger(__name__)


class ProbeWhileTraining(pl.Callback):
    """Logs accuracy by task, length and stratum of depth against tokens. The time that it takes is no training
    time."""

    def __init__(self, train: TrainConfig, probe: ProbeConfig, grid: Grid, materials: Materials, tracker: Tracker):
        self._tasks, self._probe, self._tracker = TaskSet(probe, materials), probe, tracker
        self._units = self._tasks.plan([grid], train.context_length).units
        tokens = train.tokens // 5 if train.probe_every is None else train.probe_every
        self._every = max(1, tokens // train.batch_tokens) if tokens else 0
        self._last = train.steps
        self.failed: list[str] = []
        """One line a probe that failed: the step, and why."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe after a step where it is due."""
        assert isinstance(pl_module, Training)
        step = pl_module.progress.step
        boundary = (batch_idx + 1) % pl_module.config.accumulate == 0
        due = self._every and boundary and (step % self._every == 0 or step == self._last)
        # where processes have parts of the model, all take part in what one of them tracks
        if not due or not (trainer.is_global_zero or pl_module.division.is_divided):
            return
        model = pl_module.model
        model.eval()
        try:
            with uncompiled(), pl_module.paused("probing"):
                values = self._accuracies(pl_module)
        except Exception as error:  # whatever it was, the weights are as they were
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self.failed.append(f"step {step}: {why}")
            log.warning("the probe at step %d failed, training goes on: %s", step, why)
        else:
            self._tracker.metrics({"tokens": pl_module.progress.tokens, **values})
        finally:
            reshard(model)
            model.train()

    def _accuracies(self, module: Training) -> dict[str, float]:
        """Accuracy by task and length, and by stratum of depth."""
        tokenizer, chunk, batch_tokens = self._tasks.materials.tokenizer, self._probe.chunk, self._probe.batch_tokens
        model = in_precision(module.model, self._probe.precision)
        scorer = ModelScorer(model, tokenizer, module.device, chunk, batch_tokens=batch_tokens)
        values: dict[str, float] = {}
        for unit in list(self._units):
            if not self._tasks.can_make(unit):
                log.warning("left out of the probe while training: %s", self._tasks.not_made[unit])
                self._units.remove(unit)
                continue
            hits: dict[float, list[bool]] = {}
            for one, score in score_unit(unit, self._tasks, scorer, batch_tokens):
                hits.setdefault(one.depth, []).append(score.exact)
            every = [hit for depth in hits.values() for hit in depth]
            name = f"probe/{unit.task}@{unit.length}"
            if every:
                values[name] = sum(every) / len(every)
            values |= {f"{name}/depth{depth:.3g}": sum(h) / len(h) for depth, h in hits.items()}
        return values
