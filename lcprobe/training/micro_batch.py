"""MicroBatch: what the loader passes to a training step."""

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor


class MicroBatch(TypedDict):
    """A `data.mixture.Batch` as tensors, with its place in the run: micro-batch `part` of optimizer step `step`.

    digests: of its rows. step_weight: (scalar) float64, sum of the weights of all parts that this process has of
    the step. predicted: (n,) int64, the predictions with non-zero weight, as indices into the flattened
    (rows, seqlen - 1) ones, with context_parallel those after tokens of this process's chunk: the loader counts them,
    since a GPU would have to be waited for. ..._on_host: as arrays, which stay on the host when the rest is moved to
    a device. earlier: (n, seqlen) the rows before it in the whole batch, cyclically, and earlier_starts, for an
    initial state that reads them. own_parts: tokens, starts and starts_on_host of all parts that this process has of
    the step, with the first of them and for an initial state that measures the whole batch.
    """

    step: int
    part: int
    digests: list[str]
    step_weight: Tensor
    tokens: Tensor
    weights: Tensor
    predicted: Tensor
    starts: Tensor | None
    starts_on_host: np.ndarray | None
    text_rows: Tensor
    before: Tensor | None
    before_starts: Tensor | None
    before_starts_on_host: np.ndarray | None
    earlier: Tensor | None
    earlier_starts: Tensor | None
    earlier_starts_on_host: np.ndarray | None
    own_parts: list[tuple[Tensor, Tensor | None, np.ndarray | None]] | None


def on_host(values: np.ndarray | None) -> Tensor | None:
    """The same as a tensor on the CPU."""
    return None if values is None else torch.from_numpy(values)
