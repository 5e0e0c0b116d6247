"""Checkpoints that are compared: each is written by a peer's own code, or from its published names and shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LENGTHS = (1, 5, 64, 150)
"""Tokens, of which the last cross the chunks of all implementations."""
ROWS, VOCAB = 2, 61
"""Documents side by side, and tokens, a number that formats with padding pad."""

Logits = Callable[[Tensor], Tensor]
"""tokens (batch, seqlen) -> logits (batch, seqlen, at least VOCAB)."""


@dataclass(frozen=True)
class Case:
    """One checkpoint. format: that must recognise it; peer: whose code computes its logits, a package or `equations`;
    write: puts the checkpoint into an empty folder and returns the peer's logits, and raises ImportError without the
    peer; settings: of the format, what the checkpoint does not say."""

    format: str
    architecture: str
    peer: str
    write: Callable[[Path], Logits]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`hf_llama: Llama, transformers`."""
        return f"{self.format}: {self.architecture}, {self.peer}"


def tokens_of(length: int) -> Tensor:
    """(ROWS, length) token ids."""
    return torch.randint(0, VOCAB, (ROWS, length), generator=torch.Generator().manual_seed(length))
