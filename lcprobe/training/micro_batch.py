"""MicroBatch: what the loader passes to a training step."""

from typing import TypedDict

from torch import Tensor


class MicroBatch(TypedDict):
    """A `data.mixture.Batch` as tensors, with its place in the run: micro-batch `part` of optimizer step `step`.

    digests: of its rows. step_weight: sum of the weights of all parts that this process has of the step.
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
