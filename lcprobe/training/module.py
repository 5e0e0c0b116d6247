"""The Lightning modules of a run: batches by number, one step, a stateless schedule, and a guard against non-finite
gradients.

There is no random state to save: each micro-batch reseeds torch from (seed, step, part), each batch is a function of
the same, and the learning rate is a function of the step. So a resumed run is bit-identical.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lcprobe.data.mixture import Mixture, roll_digest
from lcprobe.errors import NumericsError
from lcprobe.models.language_model import LanguageModel
from lcprobe.seeds import seed_of
from lcprobe.tracking import Tracker
from lcprobe.training.build import set_encodings_at
from lcprobe.training.checkpoint import Progress
from lcprobe.training.config import TrainConfig
from lcprobe.training.initial_state import initial_state_of
from lcprobe.training.micro_batch import MicroBatch
from lcprobe.training.optim import lr_at, make_optimizer
from lcprobe.training.ranks import gather_digests

MAX_IN_A_ROW = 10
"""Skipped steps in a row that training tolerates."""
MAX_OF_1000 = 10
"""Skipped steps among the last 1000 that training tolerates."""
log = logging.getLogger(__name__)


class _Batches(Dataset):
    """Item i of one process is (step, part): parts of a step go to processes round-robin."""

    def __init__(self, mixture: Mixture, first_step: int, rank: int, world: int):
        self._mixture, self._first, self._rank, self._world = mixture, first_step, rank, world
        self._per_step = mixture.parts // world

    def __len__(self) -> int:
        return (self._mixture.steps - self._first) * self._per_step

    def __getitem__(self, index: int) -> MicroBatch:
        step, turn = divmod(index, self._per_step)
        step, part = step + self._first, turn * self._world + self._rank
        batch = self._mixture.batch(step, part)
        return {
            "step": step,
            "part": part,
            "digest": batch.digest,
            "tokens": torch.from_numpy(batch.tokens),
            "weights": torch.from_numpy(batch.weights),
            "starts": None if batch.starts is None else torch.from_numpy(batch.starts),
            "text_rows": torch.from_numpy(batch.text_rows),
            "before": None if batch.before is None else torch.from_numpy(batch.before),
            "before_starts": None if batch.before_starts is None else torch.from_numpy(batch.before_starts),
        }

    def __iter__(self) -> Iterator[MicroBatch]:
        return (self[i] for i in range(len(self)))


class MixtureData(pl.LightningDataModule):
    """A loader of the mixture's batches from a given step, for any number of processes."""

    def __init__(self, mixture: Mixture, first_step: int):
        super().__init__()
        self._mixture, self._first = mixture, first_step

    def train_dataloader(self) -> DataLoader:
        """One item per micro-batch, in order."""
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(_Batches(self._mixture, self._first, rank, world), batch_size=None, shuffle=False)


class Training(pl.LightningModule):
    """The LightningModule of one model in training."""

    def __init__(self, config: TrainConfig, model: LanguageModel, seed: int, progress: Progress, tracker: Tracker):
        super().__init__()
        self.config, self.model, self.seed, self.tracker = config, model, seed, tracker
        self.progress = progress
        self._switched = False
        self._initial = None if config.initial_state is None else initial_state_of(config.initial_state, model)
        self._parts: list[str] = []
        self._window: dict[str, list[Tensor]] = {"loss": [], "text": [], "answer": []}
        self._norm = torch.zeros(())
        self._in_a_row = 0
        self._recent: list[int] = []
        self._clock, self._clock_tokens, self._paused = time.perf_counter(), progress.tokens, 0.0
        self.last: dict[str, float] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its learning rate is set before each step."""
        return make_optimizer(self.config, self.model)

    def training_step(self, batch: MicroBatch, index: int) -> Tensor:
        """Weighted next-token loss of one micro-batch."""
        step = batch["step"]
        if not self._switched:
            self._switched = set_encodings_at(self.model, self.config, step)
            if self._switched and self.config.switch is not None:
                log.info("step %d: positional encodings are %s from now on", step, self.config.switch.positional)
        torch.manual_seed(seed_of("step", self.seed, step, batch["part"]))
        rate = lr_at(self.config, step)
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        for group in optimizer.param_groups:
            group["lr"] = rate
        state = None if self._initial is None else self._initial(self.model, batch)
        loss, rows, index_of = self.model.loss(batch["tokens"], batch["weights"], starts=batch["starts"], state=state)
        self._parts.append(batch["digest"])
        text = batch["text_rows"][index_of // (batch["tokens"].shape[1] - 1)]
        self._window["loss"].append(loss.detach())
        self._window["text"].append(torch.stack([rows[text].sum(), text.sum().to(rows.dtype)]))
        self._window["answer"].append(torch.stack([rows[~text].sum(), (~text).sum().to(rows.dtype)]))
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip gradients; where their norm is not finite, drop them, so that neither weights nor moments change."""
        self._norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if torch.isfinite(self._norm):
            self._in_a_row = 0
            return
        for parameter in self.model.parameters():
            parameter.grad = None
        step = self.progress.step
        self._in_a_row += 1
        self._recent = [s for s in self._recent if s > step - 1000] + [step]
        self.progress = replace(self.progress, skipped=self.progress.skipped + 1)
        log.warning("step %d: gradient norm is %s; the step is skipped", step, float(self._norm))
        if self._in_a_row > MAX_IN_A_ROW or len(self._recent) > MAX_OF_1000:
            skipped = f"{len(self._recent)} of the last 1000 steps were not finite ({self._in_a_row} in a row)"
            remedy = "a lower train.lr or train.clip; the last checkpoint is finite"
            raise NumericsError(f"step {step}: {skipped}; allowed: {MAX_OF_1000} ({remedy})")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimiser step: count it, update the digest, and report at intervals. Callbacks see the new count."""
        super().optimizer_step(*args, **kwargs)
        p = self.progress
        digest = roll_digest(p.digest, gather_digests(self._parts, self.device))
        self.progress = replace(p, step=p.step + 1, tokens=p.tokens + self.config.batch_tokens, digest=digest)
        self._parts = []
        if self.progress.step % self.config.log_every == 0 or self.progress.step == self.config.steps:
            self._report()

    def _report(self) -> None:
        now, p = time.perf_counter(), self.progress
        seconds = now - self._clock
        text, answer = (torch.stack(self._window[k]).sum(0) for k in ("text", "answer"))
        values = {
            "tokens": p.tokens,
            "step": p.step,
            "train/loss": float(torch.stack(self._window["loss"]).mean()),
            "train/lr": lr_at(self.config, p.step - 1),
            "train/grad_norm": float(self._norm),
            "train/tokens_per_second": (p.tokens - self._clock_tokens) / seconds,
            "train/skipped": p.skipped,
        }
        for name, pair in (("text", text), ("answer", answer)):
            if pair[1] > 0:
                values[f"train/{name}_loss"] = float(pair[0] / pair[1])
        self.progress = replace(p, seconds=p.seconds + seconds)
        self._clock, self._clock_tokens = now, p.tokens
        self._window = {k: [] for k in self._window}
        self.last = values
        self.tracker.metrics(values)
        shown = {"loss": values["train/loss"], "tok/s": values["train/tokens_per_second"]}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=1)

    def pause_clock(self) -> None:
        """Exclude the time until `resume_clock` from the throughput."""
        self._paused = time.perf_counter()

    def resume_clock(self) -> None:
        """Count time again."""
        self._clock += time.perf_counter() - self._paused
