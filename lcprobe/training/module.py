"""The Lightning module of a run: one step, a stateless schedule, and a guard against non-finite gradients.

There is no random state to save: what is drawn is a function of (seed, step) or (seed, step, row of the whole batch),
each batch is a function of the same, and the learning rate is a function of the step. So a resumed run is
bit-identical, and a step is the same however it is divided over micro-batches and processes.

A step never waits for the device. What it counts stays there: losses, the gradient's norm, and whether that was
finite, by which the optimiser itself leaves a step out. `settle` reads it, where it is logged or saved.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lcprobe.data.mixture import roll_digest
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.tracking import Tracker
from lcprobe.training.build import set_encodings_at
from lcprobe.training.checkpoint import Progress
from lcprobe.training.config import TrainConfig
from lcprobe.training.draws import StepDraws
from lcprobe.training.guards.finite import weights_are_finite
from lcprobe.training.guards.heart import Heart
from lcprobe.training.guards.judge import Judge
from lcprobe.training.guards.rewinding import LEFT_OUT_ROWS, LeftOut
from lcprobe.training.initial_state import initial_state_of
from lcprobe.training.micro_batch import MicroBatch, on_host
from lcprobe.training.optim import lr_at, make_optimizer
from lcprobe.training.ranks import gather_digests, is_main, layout, summed
from lcprobe.training.strategies.division import Division
from lcprobe.training.strategies.gradients import clip_gradients

SUMS = ("loss", "text", "n_text", "answer", "n_answer", "steps")
"""Sums over the steps since the last report that were not left out: the steps' losses, losses of predictions in text
and in episodes with their numbers, and steps. In float64, so that any division of a step gives the same to
rounding."""
NONE_LEFT_OUT = LeftOut()
log = logging.getLogger(__name__)


class Training(pl.LightningModule):
    """The LightningModule of one model in training."""

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        seed: int,
        progress: Progress,
        tracker: Tracker,
        division: Division,
        left_out: LeftOut = NONE_LEFT_OUT,
        heart: Heart | None = None,
    ):
        super().__init__()
        self.config, self.model, self.seed, self.tracker = config, model, seed, tracker
        self.progress, self.division, self.heart = progress, division, heart or Heart()
        self._left_out_by_rewinds, self._judge = left_out, Judge(config.guards, progress.losses, progress.bad_steps)
        self._switched = False
        self.initial = None if config.initial_state is None else initial_state_of(config.initial_state, model)
        self._parts: list[list[str]] = []
        self._weight = torch.zeros(())
        self._ranks: ContextRanks | None = None
        if config.context_parallel > 1:
            model.check_context_parallel("train.context_parallel", config.context_parallel)
            self._ranks = ContextRanks.of(layout().group("context"))
        self._sums: list[Tensor] = []
        self._window = torch.tensor(progress.window or [0.0] * len(SUMS), dtype=torch.float64)
        self._norm = torch.zeros(())
        self._left_out: list[Tensor] = []
        """Whether each step since the last `settle` was left out, on the device."""
        self._losses: list[Tensor] = []
        """The loss of each step since then, on the device."""
        self._digests: list[list[list[str]]] = []
        """Digests of the rows of each step since then, by part."""
        self._clock, self._clock_tokens = time.perf_counter(), progress.tokens
        self.last: dict[str, float] = {}

    def configure_model(self) -> None:
        """Lightning's place to divide a model; it is divided before its values are set."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its learning rate is set before each step."""
        return make_optimizer(self.config, self.model)

    def training_step(self, batch: MicroBatch, index: int) -> Tensor:
        """Weighted next-token loss of one micro-batch, so that the mean over all parts of the step is the step's
        loss: each is divided by the weights of the whole step, whatever its own rows weigh."""
        step = batch["step"]
        if not self._parts:
            self._weight = summed(batch["step_weight"], "data")
        if not self._switched:
            self._switched = set_encodings_at(self.model, self.config, step)
            if self._switched and self.config.switch is not None and is_main():
                log.info("step %d: positional encodings are %s from now on", step, self.config.switch.positional)
        rate = lr_at(self.config, step)
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        for group in optimizer.param_groups:
            group["lr"] = rate
        draws = StepDraws(self.seed, step, batch["part"] * len(batch["tokens"]))
        state = None if self.initial is None else self.initial(self.model, batch, draws, self._ranks)
        draws.reseed("step")
        parts = self.config.accumulate * layout().replicas
        loss, rows, index_of = self.model.loss(
            batch["tokens"],
            batch["weights"],
            starts=batch["starts"],
            starts_on_host=on_host(batch["starts_on_host"]),
            state=state,
            predicted=batch["predicted"],
            ranks=self._ranks,
            total_weight=self._weight / parts,  # Lightning takes the mean of the parts
        )
        self._parts.append(batch["digests"])
        text = batch["text_rows"].index_select(0, index_of // (batch["tokens"].shape[1] - 1))
        of_text, of_answers = (torch.where(kind, rows, 0.0).sum() for kind in (text, ~text))
        shares = [loss.detach() / parts, of_text, text.sum(), of_answers, (~text).sum()]
        self._sums.append(torch.stack([share.to(torch.float64) for share in shares]))
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip gradients; where their norm is not finite, AdamW changes neither weights nor moments nor its count of
        steps: what gradient scalers tell it by `found_inf`, which it reads on the device."""
        self._norm = clip_gradients(self.model, self.division, self.config.clip)
        left_out = ~torch.isfinite(self._norm)
        if self._left_out_by_rewinds.has(self.progress.step):
            left_out = torch.ones_like(left_out)
        self._left_out.append(left_out)
        for one in self.trainer.optimizers:
            one.found_inf = left_out.to(torch.float32)  # type: ignore[attr-defined]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimiser step: count it, and report at intervals. Callbacks see the new count."""
        super().optimizer_step(*args, **kwargs)
        for optimizer in self.trainer.optimizers:  # Lightning would keep gradients beside the next activations
            optimizer.zero_grad()
        p = self.progress
        self.progress = replace(p, step=p.step + 1, tokens=p.tokens + self.config.batch_tokens)
        of_step = summed(torch.stack(self._sums).sum(0))
        self._losses.append(of_step[0])
        values = torch.cat([of_step, of_step.new_ones(1)])
        self._window = self._window.to(of_step.device) + values.masked_fill(self._left_out[-1], 0.0)
        self._digests.append(self._parts)
        self._parts, self._sums = [], []
        if self.progress.step % self.config.log_every == 0 or self.progress.step == self.config.steps:
            self._report()

    def settle(self) -> Progress:
        """Progress of all steps so far, and what a checkpoint needs besides. Waits for the device and for the other
        processes, which all call it after the same step.

        Raises NumericsError where training is not to go on, and Rewind where it is to go back.
        """
        digest, first = self.progress.digest, self.progress.step - len(self._digests)
        by_rewinds = [self._left_out_by_rewinds.has(first + i) for i in range(len(self._digests))]
        for parts, known in zip(self._digests, by_rewinds, strict=True):
            digest = roll_digest(digest, list(LEFT_OUT_ROWS) if known else gather_digests(parts, self.device))
        left_out = torch.stack(self._left_out).tolist() if self._left_out else []
        losses = torch.stack(self._losses).tolist() if self._losses else []
        self._digests, self._left_out, self._losses = [], [], []
        for i, known in enumerate(by_rewinds):
            if not known:
                self._judge.step(first + i, not left_out[i], losses[i])
        self.progress = replace(
            self.progress,
            digest=digest,
            skipped=self.progress.skipped + sum(left_out),
            window=self._window.tolist(),
            spikes=self.progress.spikes + self._judge.spikes,
            losses=self._judge.losses,
            bad_steps=tuple(self._judge.bad_steps),
        )
        self._judge.spikes = 0
        return self.progress

    def check_weights(self) -> None:
        """As `settle`, of the weights now; called before they are saved."""
        self._judge.weights(self.progress.step - 1, weights_are_finite(self.model, self.division))

    def _report(self) -> None:
        p, now = self.settle(), time.perf_counter()
        seconds = now - self._clock
        loss, text, n_text, answer, n_answer, steps = p.window
        values = {
            "tokens": p.tokens,
            "step": p.step,
            "train/lr": lr_at(self.config, p.step - 1),
            "train/grad_norm": float(self._norm),
            "train/tokens_per_second": (p.tokens - self._clock_tokens) / seconds,
            "train/skipped": p.skipped,
            "train/spikes": p.spikes,
        }
        if steps > 0:
            values["train/loss"] = loss / steps
        for name, total, n in (("text", text, n_text), ("answer", answer, n_answer)):
            if n > 0:
                values[f"train/{name}_loss"] = total / n
        self.progress = replace(p, seconds=p.seconds + seconds, window=())
        self._clock, self._clock_tokens = now, p.tokens
        self._window = torch.zeros_like(self._window)
        self.last = values
        self.tracker.metrics(values)

    @contextmanager
    def paused(self, what: str) -> Iterator[None]:
        """The block is no training: it counts neither for the throughput nor as hanging."""
        begin = time.perf_counter()
        try:
            with self.heart.paused(what):
                yield
        finally:
            self._clock += time.perf_counter() - begin
