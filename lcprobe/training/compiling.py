"""torch.compile of a model's blocks, such that they stay compiled over a whole run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from lcprobe.models.language_model import LanguageModel

MOST_GRAPHS = 128
"""Graphs of one function that may be compiled, before PyTorch gives up and runs it uncompiled for the rest of the
process. All blocks are one function: each kind of block (mixer, MLP or none, first or not) needs graphs for one
length, for any length, and with and without documents, which passes PyTorch's default of 8."""


def compile_blocks(model: LanguageModel, backend: str | Callable[..., Any] = "inductor") -> None:
    """Apply torch.compile to every block; what they compute follows in the first forward pass."""
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_GRAPHS)
    for block in model.blocks:
        block.compile(backend=backend)


def uncompiled() -> AbstractContextManager[Any]:
    """Inside, blocks run as they are written: for passes unlike those of training (states, no gradients, many
    lengths), each of which would be compiled anew."""
    return torch.compiler.set_stance("force_eager")
