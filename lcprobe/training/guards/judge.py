"""What follows from a step whose gradient is not finite, and from one whose loss stands out.

Steps are judged in order, whenever they are read: what follows does not depend on when that is.
"""

import logging
from collections.abc import Iterable

from lcprobe.errors import NumericsError
from lcprobe.training.config import GuardsConfig
from lcprobe.training.guards.spikes import RecentLosses
from lcprobe.training.ranks import is_main

MAX_OF_1000 = 10
"""Skipped steps among the last 1000, in a row or not, that training tolerates."""
REMEDY = "a lower train.lr or train.clip; the last checkpoint is finite"
log = logging.getLogger(__name__)


class Rewind(NumericsError):
    """Training is to go back to the newest checkpoint. step: the bad one; why: what was wrong with it."""

    def __init__(self, step: int, why: str):
        self.step, self.why = step, why
        super().__init__(f"step {step}: {why}; allowed: finite steps ({REMEDY})")


class Judge:
    """Judges the steps of a run. losses: of the last steps before; bad_steps: those of the last 1000 before that
    were not finite."""

    def __init__(self, config: GuardsConfig, losses: Iterable[float] = (), bad_steps: Iterable[int] = ()):
        self._config, self._losses = config, RecentLosses(losses)
        self.bad_steps = list(bad_steps)
        """Those of the last 1000 that were not finite, so that a resumed run decides as the uninterrupted one."""
        self.spikes = 0
        """Losses so far that stood out."""

    @property
    def losses(self) -> list[float]:
        """What the next losses are compared with."""
        return self._losses.values

    def step(self, step: int, is_finite: bool, loss: float) -> None:
        """Raises NumericsError where training is not to go on, and Rewind where it is to go back."""
        if is_finite:
            self._loss(step, loss)
            return
        why = "the gradient's norm is not finite"
        if self._config.non_finite == "rewind":
            raise Rewind(step, why)
        if self._config.non_finite == "stop":
            raise NumericsError(f"step {step}: {why}; allowed: finite, with train.guards.non_finite=stop ({REMEDY})")
        self.bad_steps = [s for s in self.bad_steps if s > step - 1000] + [step]
        if is_main():
            log.warning("step %d: %s; the step is skipped", step, why)
        if len(self.bad_steps) > MAX_OF_1000:
            in_a_row = sum(bad + i == step for i, bad in enumerate(reversed(self.bad_steps)))
            skipped = f"{len(self.bad_steps)} of the last 1000 steps were not finite ({in_a_row} in a row)"
            raise NumericsError(f"step {step}: {skipped}; allowed: {MAX_OF_1000} ({REMEDY})")

    def weights(self, step: int, are_finite: bool) -> None:
        """As `step`, of the weights after this step, before they are saved."""
        if are_finite:
            return
        why = "weights are not finite"
        if self._config.non_finite == "rewind":
            raise Rewind(step, why)
        raise NumericsError(f"step {step}: {why} and were not saved; allowed: finite ({REMEDY})")

    def _loss(self, step: int, loss: float) -> None:
        sigmas = self._losses.sigmas(loss)
        if sigmas <= self._config.spike_size:
            return
        why = f"the loss {loss:.4g} is {sigmas:.0f} standard deviations above the median of the steps before"
        if self._config.spikes == "rewind":
            raise Rewind(step, why)
        self.spikes += 1
        if is_main():
            log.warning("step %d: %s", step, why)
