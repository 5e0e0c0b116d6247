"""MicroBatch: what the loader passes to a training step."""

from typing import TypedDict

from torch import Tensor


class MicroBatch(TypedDict):
    """A `data.mixture.Batch` as tensors, with its place in the run: micro-batch `part` of optimizer step `step`.

    digests: of its rows. step_weight: sum of the weights of all parts that this process has of the step. earlier:
    (n, seqlen) the rows before it in the whole batch, cyclically, and earlier_starts, for an initial state that reads
    them. own_parts: tokens and starts of all parts that this process has of the step, with the first of them and for
    an initial state that measures the whole batch.
    """

    step: int
    part: int
    digests: list[str]
    step_weight: float
    tokens: Tensor
    weights: Tensor
    starts: Tensor | None
    text_rows: Tensor
    before: Tensor | None
    before_starts: Tensor | None
    earlier: Tensor | None
    earlier_starts: Tensor | None
    own_parts: list[tuple[Tensor, Tensor | None]] | None
