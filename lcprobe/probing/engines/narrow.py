"""A model that computes in bfloat16 while it is probed: autocast, as training with train.precision=bf16.

Weights stay float32, and so do states and decays where the ops keep them so; attention caches keys and values in
bfloat16. Logits are float32 products: rounded to eight bits, logits of a vocabulary would be equal in hundreds, and
exact match would depend on the order of its entries.
"""

from typing import Any

import torch
from torch import Tensor

from lcprobe.probing.config import Precision
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.engines.wrapped import Wrapped


class InBfloat16(Wrapped):
    """The model under autocast; its logits are its own, in float32."""

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """See ProbedModel; hidden vectors are float32 with the values of bfloat16."""
        with torch.autocast(tokens.device.type, torch.bfloat16):
            hidden, state = self.model.hidden(tokens, state=state)
        return hidden.float(), state


def in_precision(model: ProbedModel, precision: Precision) -> ProbedModel:
    """The model as it is (32: in the dtype of its weights), or under autocast (bf16)."""
    return model if precision == "32" else InBfloat16(model)
