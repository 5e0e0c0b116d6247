"""CABLE: every token adds a penalty, a function of its content, to all distances that span it
(Veisi et al. 2025, arXiv 2503.08067, sec. 3).

    p_t = softplus(w_h . x_t + b_h)        scores_ij -= sum_{t=j+1..i} p_t = F_j - F_i,   F_i = -sum_{t<=i} p_t

This follows the released code. Since softplus(z) = -log sigmoid(-z), it is FoX with w and b negated: both describe
one family of models, and with these initial values (weights normal with standard deviation 0.02, bias 0) they differ
only in the sign of random numbers. The release does not divide q . k by sqrt(head_dim); here scores are divided by
it, as with every encoding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.models.positional.fox import CumulativeGates


@dataclass(frozen=True)
class CABLEConfig:
    """CABLE has no settings."""


class CABLE(CumulativeGates[CABLEConfig]):
    """Context-aware biases."""

    Config = CABLEConfig

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Weights normal with standard deviation 0.02, the bias 0."""
        if name == "gate_weight":
            value.normal_(0, 0.02, generator=generator)
        else:
            value.zero_()

    def log_gate(self, logits: Tensor) -> Tensor:
        """-softplus(logits)."""
        return -F.softplus(logits)
