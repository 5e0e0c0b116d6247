"""The Lightning modules of a run: batches by number, one step, a stateless schedule, and a guard against non-finite
gradients.

There is no random state to save: what is drawn is a function of (seed, step) or (seed, step, row of the whole batch),
each batch is a function of the same, and the learning rate is a function of the step. So a resumed run is
bit-identical, and a step is the same however it is divided over micro-batches and processes.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lcprobe.data.mixture import Batch, Mixture, roll_digest
from lcprobe.errors import NumericsError
from lcprobe.models.language_model import LanguageModel
from lcprobe.tracking import Tracker
from lcprobe.training.build import set_encodings_at
from lcprobe.training.checkpoint import Progress
from lcprobe.training.config import TrainConfig
from lcprobe.training.draws import StepDraws
from lcprobe.training.initial_state import InitialState, initial_state_of
from lcprobe.training.micro_batch import MicroBatch
from lcprobe.training.optim import lr_at, make_optimizer
from lcprobe.training.ranks import gather_digests, summed, world_size

SUMS = ("loss", "text", "n_text", "answer", "n_answer", "steps")
"""Sums over the steps since the last report: the steps' losses, losses of predictions in text and in episodes with
their numbers, and steps. In float64, so that any division of a step gives the same to rounding."""
MAX_IN_A_ROW = 10
"""Skipped steps in a row that training tolerates."""
MAX_OF_1000 = 10
"""Skipped steps among the last 1000 that training tolerates."""
log = logging.getLogger(__name__)


class _Batches(Dataset):
    """Item i of one process is (step, part): parts of a step go to processes round-robin."""

    def __init__(self, mixture: Mixture, first_step: int, rank: int, world: int, initial: InitialState | None):
        self._mixture, self._first, self._rank, self._world = mixture, first_step, rank, world
        self._per_step, self._initial = mixture.parts // world, initial
        self._step, self._parts = -1, dict[int, Batch]()

    def __len__(self) -> int:
        return (self._mixture.steps - self._first) * self._per_step

    def __getitem__(self, index: int) -> MicroBatch:
        step, turn = divmod(index, self._per_step)
        step += self._first
        own = range(self._rank, self._mixture.parts, self._world)
        if step != self._step:
            self._step, self._parts = step, {}
        parts = [self._part(number) for number in own]  # all: the loss of each is divided by the weights of all
        batch, number = parts[turn], own[turn]
        initial = self._initial
        whole = initial is not None and initial.measures_batch and turn == 0
        earlier, earlier_starts = self._earlier(number, 0 if initial is None else initial.earlier)
        return {
            "step": step,
            "part": number,
            "digests": batch.digests,
            "step_weight": sum(part.weight for part in parts),
            "tokens": torch.from_numpy(batch.tokens),
            "weights": torch.from_numpy(batch.weights),
            "starts": _tensor(batch.starts),
            "text_rows": torch.from_numpy(batch.text_rows),
            "before": _tensor(batch.before),
            "before_starts": _tensor(batch.before_starts),
            "earlier": earlier,
            "earlier_starts": earlier_starts,
            "own_parts": [(torch.from_numpy(b.tokens), _tensor(b.starts)) for b in parts] if whole else None,
        }

    def _part(self, number: int) -> Batch:
        """A part of the current step."""
        if number not in self._parts:
            self._parts[number] = self._mixture.batch(self._step, number)
        return self._parts[number]

    def _earlier(self, number: int, n: int) -> tuple[Tensor | None, Tensor | None]:
        """The n rows before a part in the whole batch, cyclically, and where documents start in them."""
        if not n:
            return None, None
        rows = len(self._part(number).tokens)
        places = [divmod((number * rows - back) % (rows * self._mixture.parts), rows) for back in range(n, 0, -1)]
        tokens = np.stack([self._part(part).tokens[row] for part, row in places])
        starts = np.zeros(tokens.shape, dtype=bool)
        for i, (part, row) in enumerate(places):
            found = self._part(part).starts
            if found is not None:
                starts[i] = found[row]
        return torch.from_numpy(tokens), torch.from_numpy(starts) if starts.any() else None

    def __iter__(self) -> Iterator[MicroBatch]:
        return (self[i] for i in range(len(self)))


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


class MixtureData(pl.LightningDataModule):
    """A loader of the mixture's batches from a given step, for any number of processes. initial: says what a batch
    includes besides its rows."""

    def __init__(self, mixture: Mixture, first_step: int, initial: InitialState | None = None):
        super().__init__()
        self._mixture, self._first, self._initial = mixture, first_step, initial

    def train_dataloader(self) -> DataLoader:
        """One item per micro-batch, in order."""
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        batches = _Batches(self._mixture, self._first, rank, world, self._initial)
        return DataLoader(batches, batch_size=None, shuffle=False)


class Training(pl.LightningModule):
    """The LightningModule of one model in training."""

    def __init__(self, config: TrainConfig, model: LanguageModel, seed: int, progress: Progress, tracker: Tracker):
        super().__init__()
        self.config, self.model, self.seed, self.tracker = config, model, seed, tracker
        self.progress = progress
        self._switched = False
        self.initial = None if config.initial_state is None else initial_state_of(config.initial_state, model)
        self._parts: list[list[str]] = []
        self._weight = torch.zeros(())
        self._sums: list[Tensor] = []
        self._window = torch.tensor(progress.window or [0.0] * len(SUMS), dtype=torch.float64)
        self._norm = torch.zeros(())
        self._in_a_row = 0
        self._recent: list[int] = []
        self._clock, self._clock_tokens, self._paused = time.perf_counter(), progress.tokens, 0.0
        self.last: dict[str, float] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its learning rate is set before each step."""
        return make_optimizer(self.config, self.model)

    def training_step(self, batch: MicroBatch, index: int) -> Tensor:
        """Weighted next-token loss of one micro-batch, so that the mean over all parts of the step is the step's
        loss: each is divided by the weights of the whole step, whatever its own rows weigh."""
        step = batch["step"]
        if not self._parts:
            self._weight = summed(torch.tensor(batch["step_weight"], dtype=torch.float64, device=self.device))
        if not self._switched:
            self._switched = set_encodings_at(self.model, self.config, step)
            if self._switched and self.config.switch is not None:
                log.info("step %d: positional encodings are %s from now on", step, self.config.switch.positional)
        rate = lr_at(self.config, step)
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        for group in optimizer.param_groups:
            group["lr"] = rate
        draws = StepDraws(self.seed, step, batch["part"] * len(batch["tokens"]))
        state = None if self.initial is None else self.initial(self.model, batch, draws)
        draws.reseed("step")
        parts = self.config.accumulate * world_size()
        loss, rows, index_of = self.model.loss(
            batch["tokens"],
            batch["weights"],
            starts=batch["starts"],
            state=state,
            total_weight=self._weight / parts,  # Lightning takes the mean of the parts
        )
        self._parts.append(batch["digests"])
        text = batch["text_rows"][index_of // (batch["tokens"].shape[1] - 1)]
        shares = [loss.detach() / parts, rows[text].sum(), text.sum(), rows[~text].sum(), (~text).sum()]
        self._sums.append(torch.stack([share.to(torch.float64) for share in shares]))
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
        of_step = summed(torch.stack(self._sums).sum(0))
        self._window = self._window.to(of_step.device) + torch.cat([of_step, of_step.new_ones(1)])
        self._parts, self._sums = [], []
        if self.progress.step % self.config.log_every == 0 or self.progress.step == self.config.steps:
            self._report()

    def _report(self) -> None:
        now, p = time.perf_counter(), self.progress
        seconds = now - self._clock
        loss, text, n_text, answer, n_answer, steps = self._window.tolist()
        values = {
            "tokens": p.tokens,
            "step": p.step,
            "train/loss": loss / steps,
            "train/lr": lr_at(self.config, p.step - 1),
            "train/grad_norm": float(self._norm),
            "train/tokens_per_second": (p.tokens - self._clock_tokens) / seconds,
            "train/skipped": p.skipped,
        }
        for name, total, n in (("text", text, n_text), ("answer", answer, n_answer)):
            if n > 0:
                values[f"train/{name}_loss"] = total / n
        self.progress = replace(p, seconds=p.seconds + seconds)
        self._clock, self._clock_tokens = now, p.tokens
        self._window = torch.zeros_like(self._window)
        self.last = values
        self.tracker.metrics(values)

    @property
    def resumable(self) -> Progress:
        """Progress with what a checkpoint needs besides."""
        return replace(self.progress, window=self._window.tolist())

    def pause_clock(self) -> None:
        """Exclude the time until `resume_clock` from the throughput."""
        self._paused = time.perf_counter()

    def resume_clock(self) -> None:
        """Count time again."""
        self._clock += time.perf_counter() - self._paused
