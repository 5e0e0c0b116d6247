"""Prefill: a program of shared prefixes, executed by a model that continues from copies of its state."""

from collections.abc import Iterator

import numpy as np
import torch
from lcprobe_kernels.transfer import sent
from torch import Tensor

from lcprobe.probing.engines.contract import ProbedModel, ProbedState
from lcprobe.probing.inference.prefix_sharing import Program


def prefill(
    model: ProbedModel,
    program: Program,
    prompts: list[np.ndarray],
    chunk: int,
    device: torch.device,
    length: int | None = None,
) -> Iterator[tuple[list[int], ProbedState, Tensor]]:
    """Execute a program. Yields prompts that are read to their end, the state after them, and their last hidden
    vectors (n, d_model).

    length: declared to the model for the whole sequence, answers included.
    """
    states: dict[int, ProbedState] = {}
    for number, step in enumerate(program.steps):
        if step.before is None:
            state = initial_state(model, len(step.prompts), length)
        else:
            state = states.pop(step.before) if step.last else states[step.before]
            state = state if step.source is None else state.rows(sent(torch.from_numpy(step.source), device))
        ids = np.stack([prompts[i][step.lo : step.hi] for i in step.prompts]).astype(np.int64)
        tokens, hidden = sent(torch.from_numpy(ids), device), None
        for lo in range(0, tokens.shape[1], chunk):
            hidden, state = model.hidden(tokens[:, lo : lo + chunk], state=state)
        assert hidden is not None
        if step.kept:
            states[number] = state
        if step.ends:
            at = np.array([row for row, _ in step.ends])
            last = hidden[sent(torch.from_numpy(at), device), -1]
            yield [prompt for _, prompt in step.ends], picked(state, at, len(step.prompts), device), last


def picked(state: ProbedState, index: np.ndarray, rows: int, device: torch.device) -> ProbedState:
    """The rows at `index` (n,) of a state of so many rows. Where these are all of them in order, the state itself:
    reading leaves it as it is, and a copy may take gigabytes."""
    return state if np.array_equal(index, np.arange(rows)) else state.rows(sent(torch.from_numpy(index), device))


def initial_state(model: ProbedModel, rows: int, length: int | None) -> ProbedState:
    """The state before the first token. length: of the whole sequences, declared to a model that needs it."""
    return model.new_state(rows, length) if model.needs_length else model.new_state(rows)
