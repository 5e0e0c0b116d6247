"""A model that computes in bfloat16 while it is probed: autocast, as training with train.precision=bf16.

Weights stay float32, and so do states and decays where the ops keep them so; attention caches keys and values in
bfloat16. Logits are float32 products: rounded to eight bits, logits of a vocabulary would be equal in hundreds, and
exact match would depend on the order of its entries.
"""

from typing import Any

import torch
from torch import Tensor

from lcprobe.models.language_model import Selection
from lcprobe.probing.config import Precision
from lcprobe.probing.engines.contract import ProbedModel, ProbedState


class InBfloat16(ProbedModel):
    """The model under autocast."""

    def __init__(self, model: ProbedModel):
        self.model = model

    def new_state(self, batch: int, length: int | None = None) -> ProbedState:
        """The model's own."""
        return self.model.new_state(batch, length)

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """See ProbedModel; hidden vectors are float32 with the values of bfloat16."""
        with torch.autocast(tokens.device.type, torch.bfloat16):
            hidden, state = self.model.hidden(tokens, state=state)
        return hidden.float(), state

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's own, in float32."""
        return self.model.logits(hidden)

    def prompt_ended(self, state: Any) -> Any:
        """The model's own."""
        return self.model.prompt_ended(state)

    @property
    def needs_length(self) -> bool:
        """The model's own."""
        return self.model.needs_length

    @property
    def max_length(self) -> int | None:
        """The model's own."""
        return self.model.max_length

    @property
    def rereads(self) -> bool:
        """The model's own."""
        return self.model.rereads

    @property
    def selection(self) -> Selection | None:
        """The model's own."""
        return self.model.selection


def in_precision(model: ProbedModel, precision: Precision) -> ProbedModel:
    """The model as it is (32: in the dtype of its weights), or under autocast (bf16)."""
    return model if precision == "32" else InBfloat16(model)
