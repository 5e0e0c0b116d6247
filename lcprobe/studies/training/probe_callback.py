"""Probing while training: a small fixed subset of the grid, at intervals, on the model in training."""

import logging
from typing import Any

import lightning.pytorch as pl

from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import score_unit
from lcprobe.probing.scoring import ModelScorer
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tracking import Tracker
from lcprobe.training.config import TrainConfig
from lcprobe.training.module import Training

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

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe after a step where it is due."""
        assert isinstance(pl_module, Training)
        step = pl_module.progress.step
        boundary = (batch_idx + 1) % pl_module.config.accumulate == 0
        due = self._every and boundary and (step % self._every == 0 or step == self._last)
        if not due or not trainer.is_global_zero:
            return
        pl_module.pause_clock()
        model = pl_module.model
        model.eval()
        tokenizer, chunk = self._tasks.materials.tokenizer, self._probe.chunk
        scorer = ModelScorer(model, tokenizer, pl_module.device, chunk, batch_tokens=self._probe.batch_tokens)
        values: dict[str, float | int] = {"tokens": pl_module.progress.tokens}
        for unit in list(self._units):
            if not self._tasks.can_make(unit):
                log.warning("left out of the probe while training: %s", self._tasks.not_made[unit])
                self._units.remove(unit)
                continue
            hits: dict[float, list[bool]] = {}
            for one, score in score_unit(unit, self._tasks, scorer, self._probe.batch_tokens):
                hits.setdefault(one.depth, []).append(score.exact)
            every = [hit for depth in hits.values() for hit in depth]
            name = f"probe/{unit.task}@{unit.length}"
            if every:
                values[name] = sum(every) / len(every)
            values |= {f"{name}/depth{depth:.3g}": sum(h) / len(h) for depth, h in hits.items()}
        self._tracker.metrics(values)
        model.train()
        pl_module.resume_clock()
