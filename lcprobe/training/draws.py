"""Random numbers of one optimiser step: functions of the run's seed, the step and the row of the whole batch, so that
neither micro-batches nor processes change what a row gets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.seeds import Stream, seed_of


@dataclass(frozen=True)
class StepDraws:
    """The draws of a micro-batch. first_row: number of its first row in the whole batch of the step."""

    seed: int
    step: int
    first_row: int

    def reseed(self, what: str) -> None:
        """Seed torch's own generator, from which a model draws positions: one draw for all rows of the step. what:
        the forward pass that follows."""
        number = seed_of(what, self.seed, self.step)
        # not `torch.manual_seed`: for each kind of device that is not in use it keeps a traceback, a millisecond each
        torch.default_generator.manual_seed(number)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(number)

    def generators(self, rows: int, device: torch.device) -> list[torch.Generator]:
        """One generator for each row of the micro-batch, for `normal_like`."""
        numbers = range(self.first_row, self.first_row + rows)
        return [torch.Generator(device).manual_seed(seed_of("row", self.seed, self.step, n)) for n in numbers]

    def chosen(self, rows: int, share: float) -> Tensor:
        """(rows,) bool: whether a row is among a random share of all rows."""
        numbers = range(self.first_row, self.first_row + rows)
        drawn = [float(Stream("share", self.seed, self.step, n).uniform(1)[0]) for n in numbers]
        return torch.tensor(drawn, dtype=torch.float64) < share


def normal_like(values: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """(rows, ...) standard normal numbers of the shape, dtype and device of `values`, each row from its generator."""
    rows = [torch.randn(values.shape[1:], generator=g, dtype=values.dtype, device=values.device) for g in generators]
    return torch.stack(rows)
