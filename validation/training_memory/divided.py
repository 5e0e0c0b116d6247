"""Processes that divide a run: the peak of each in a step of `lcprobe.training`, with everything that takes memory
there: buckets of ddp, what fsdp2 gathers and reduces, gradients that are completed and clipped, AdamW.

Processes are forked and talk over gloo. Gloo's own buffers are no tensors, and not counted; neither are NCCL's.
"""

import weakref
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_leaves

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.data.prepare import Prepared
from lcprobe.models.config import ModelConfig
from lcprobe.tracking import NoTracker
from lcprobe.training.build import build_to_train
from lcprobe.training.checkpoint import Progress
from lcprobe.training.config import TrainConfig
from lcprobe.training.fit import _trainer
from lcprobe.training.guards.heart import Heart
from lcprobe.training.loading.loader import MixtureData
from lcprobe.training.module import Training
from lcprobe.training.ranks import join_processes
from lcprobe.training.strategies.division import divide_model, fill, own
from validation.training_memory.alone import Step

STEPS = 3
"""The last is measured: moments are made in the first, and ddp makes its buckets anew in the second."""


class SizesNow(Step):
    """As Step, by the size that each storage has at the moment: fsdp2 frees whole parameters, and makes them again,
    in the same storage."""

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, values: Any) -> None:
        """Count these tensors, too."""
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor):
                storage = own(tensor).untyped_storage()
                self._storages[storage._cdata] = weakref.ref(storage)
        there = {place: storage for place, one in self._storages.items() if (storage := one()) is not None}
        self._storages = {place: self._storages[place] for place in there}
        self.now = sum(storage.nbytes() for storage in there.values())
        self.peak = max(self.peak, self.now)


class PeakOfLastStep(pl.Callback):
    """Counts from the first step on."""

    def __init__(self) -> None:
        self.live, self._counting = SizesNow(), ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count weights, and from here on all that is made."""
        self._counting.enter_context(self.live)
        self.live.add(list(pl_module.model.parameters()))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Forget the peak before the last step."""
        if batch_idx == (STEPS - 1) * pl_module.config.accumulate:
            self.live.peak = self.live.now

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count no more."""
        self._counting.close()


def peak_of_process(prepared: Prepared, data: DataConfig, config: ModelConfig, train: TrainConfig) -> float:
    """Bytes at the peak of the last step, in the process that takes most. For each process of the run."""
    model = build_to_train(config, train)
    division = divide_model(train, model, join_processes(train))
    fill(model, division, model.initial_values(0, division.shapes_of(model)))
    model.recompute = train.recompute
    digests: Mapping[str, str] = {name: prepared.manifest[name] for name in ("corpus_digest", "tokenizer_digest")}
    progress, heart, peak = Progress(**digests), Heart(), PeakOfLastStep()
    mixture = Mixture(
        data,
        prepared,
        context_length=train.context_length,
        rows=train.rows,
        steps=train.steps,
        parts=train.parts,
        seed=0,
    )
    module = Training(train, model, 0, progress, NoTracker(), division)
    with closing(MixtureData(train, mixture, 0, None, heart)) as batches:
        _trainer(train, division, progress, [peak]).fit(module, datamodule=batches)
    assert module.progress.step == STEPS
    most = torch.tensor(float(peak.live.peak), dtype=torch.float64)
    if train.devices > 1:
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
    return float(most)
