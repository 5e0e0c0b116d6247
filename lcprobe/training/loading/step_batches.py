"""All that one process needs of one optimiser step, made at once and sent as few tensors.

A worker process makes whole steps: the loss of each part is divided by the weights of all. What is sent is one tensor
of each kind for all parts, not one a part: each tensor takes an open file while it is on its way.
"""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lcprobe.data.mixture import Batch, Mixture
from lcprobe.errors import LcprobeError
from lcprobe.training.micro_batch import MicroBatch


class StepBatch(TypedDict):
    """The parts that a process has of a step, one after the other: `tokens` is (parts, rows, seqlen), and so on for
    the entries of MicroBatch. with_starts, with_earlier_starts: the parts that have any. predicted: those of all
    parts, joined; predictions: how many each has. measures: whether the first part has `own_parts`."""

    step: int
    parts: list[int]
    digests: list[list[str]]
    step_weight: Tensor
    tokens: Tensor
    weights: Tensor
    predicted: Tensor
    predictions: list[int]
    starts: Tensor
    with_starts: list[bool]
    text_rows: Tensor
    before: Tensor | None
    before_starts: Tensor | None
    earlier: Tensor | None
    earlier_starts: Tensor | None
    with_earlier_starts: list[bool]
    measures: bool


class StepBatches(Dataset):
    """Item i is step first_step + i: a StepBatch, or the line of an error that a user can act on.

    rank, world: parts of a step go round-robin to `world` readers, of which this is number `rank`. earlier, measures:
    what an initial state needs besides a part's own rows. chunk: which of how many equal chunks of every row is
    predicted here; the tokens are those of whole rows.
    """

    def __init__(
        self,
        mixture: Mixture,
        first_step: int,
        rank: int,
        world: int,
        earlier: int = 0,
        measures: bool = False,
        chunk: tuple[int, int] = (0, 1),
    ):
        self._chunk = chunk
        self._mixture, self.first, self._earlier, self._measures = mixture, first_step, earlier, measures
        self._own = list(range(rank, mixture.parts, world))

    def __len__(self) -> int:
        return self._mixture.steps - self.first

    @property
    def parts_of_step(self) -> int:
        """Micro-batches of a step that this process has."""
        return len(self._own)

    def __getitem__(self, index: int) -> StepBatch | str:
        try:
            return self.step_batch(self.first + index)
        except LcprobeError as error:  # not all of them can be sent from process to process
            return str(error)

    def step_batch(self, step: int) -> StepBatch:
        """The parts of one step. Raises EpisodeError where a recipe does not fit its length."""
        made: dict[int, Batch] = {}

        def part(number: int) -> Batch:
            if number not in made:
                made[number] = self._mixture.batch(step, number)
            return made[number]

        parts = [part(number) for number in self._own]
        predicted = [_predicted(batch.weights, *self._chunk) for batch in parts]
        before = [batch.before for batch in parts if batch.before is not None]
        before_starts = [batch.before_starts for batch in parts if batch.before_starts is not None]
        earlier: list[np.ndarray] = []
        earlier_starts: list[np.ndarray] = []
        for number in self._own if self._earlier else []:
            places = self._places_before(number, len(part(number).tokens))
            earlier.append(np.stack([part(other).tokens[row] for other, row in places]))
            earlier_starts.append(np.stack([_starts(part(other))[row] for other, row in places]))
        return {
            "step": step,
            "parts": self._own,
            "digests": [batch.digests for batch in parts],
            "step_weight": torch.tensor(sum(batch.weight for batch in parts), dtype=torch.float64),
            "tokens": _stacked([batch.tokens for batch in parts]),
            "weights": _stacked([batch.weights for batch in parts]),
            "predicted": torch.from_numpy(np.concatenate(predicted)),
            "predictions": [len(one) for one in predicted],
            "starts": _stacked([_starts(batch) for batch in parts]),
            "with_starts": [batch.starts is not None for batch in parts],
            "text_rows": _stacked([batch.text_rows for batch in parts]),
            "before": _stacked(before) if before else None,
            "before_starts": _stacked(before_starts) if before_starts else None,
            "earlier": _stacked(earlier) if earlier else None,
            "earlier_starts": _stacked(earlier_starts) if earlier_starts else None,
            "with_earlier_starts": [bool(starts.any()) for starts in earlier_starts],
            "measures": self._measures,
        }

    def _places_before(self, number: int, rows: int) -> list[tuple[int, int]]:
        """(part, row) of the rows before a part in the whole batch, cyclically."""
        n = rows * self._mixture.parts
        return [divmod((number * rows - back) % n, rows) for back in range(self._earlier, 0, -1)]


def _predicted(weights: np.ndarray, chunk: int, chunks: int) -> np.ndarray:
    """See MicroBatch. weights: (rows, seqlen)."""
    seqlen = weights.shape[1]
    index = np.flatnonzero(weights[:, 1:])
    return index if chunks == 1 else index[index % (seqlen - 1) // (seqlen // chunks) == chunk]


def micro_batches(step: StepBatch) -> Iterator[MicroBatch]:
    """The micro-batches of a step, as views of its tensors."""
    at = 0
    every = [_part(step["starts"], i, has) for i, has in enumerate(step["with_starts"])]
    parts = [(tokens, starts, _array(starts)) for tokens, starts in zip(step["tokens"], every, strict=True)]
    for i, number in enumerate(step["parts"]):
        end = at + step["predictions"][i]
        has_earlier = bool(step["with_earlier_starts"]) and step["with_earlier_starts"][i]
        before_starts = _part(step["before_starts"], i)
        earlier_starts = _part(step["earlier_starts"], i, has_earlier)
        yield {
            "step": step["step"],
            "part": number,
            "digests": step["digests"][i],
            "step_weight": step["step_weight"],
            "tokens": step["tokens"][i],
            "weights": step["weights"][i],
            "predicted": step["predicted"][at:end],
            "starts": every[i],
            "starts_on_host": _array(every[i]),
            "text_rows": step["text_rows"][i],
            "before": _part(step["before"], i),
            "before_starts": before_starts,
            "before_starts_on_host": _array(before_starts),
            "earlier": _part(step["earlier"], i),
            "earlier_starts": earlier_starts,
            "earlier_starts_on_host": _array(earlier_starts),
            "own_parts": parts if step["measures"] and i == 0 else None,
        }
        at = end


def _starts(batch: Batch) -> np.ndarray:
    return np.zeros(batch.tokens.shape, dtype=bool) if batch.starts is None else batch.starts


def _stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _part(values: Tensor | None, i: int, there: bool = True) -> Tensor | None:
    return values[i] if values is not None and there else None


def _array(values: Tensor | None) -> np.ndarray | None:
    return None if values is None else values.numpy()
