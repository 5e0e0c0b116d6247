"""CABLE: each token adds its own learned penalty to all distances that span it (Veisi et al. 2025, arXiv 2503.08067, sec. 3).

    p_t = softplus(w_h . x_t + b_h)        scores_ij -= sum_{t=j+1..i} p_t = F_j - F_i,   F_i = -sum_{t<=i} p_t

As released. Since softplus(z) = -log sigmoid(-z), this is FoX with w and b negated: both name one family of models, and from
these initial values (normal with deviation 0.02, bias 0) they differ by the sign of random numbers alone. The release leaves
q . k undivided by sqrt(head_dim); scores keep that factor here, as everywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.models.positional.fox import FoX


@dataclass(frozen=True)
class CABLEConfig:
    """Nothing to set."""


class CABLE(FoX):
    """Context-aware biases."""

    Config = CABLEConfig

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Weights normal with deviation 0.02, the bias 0."""
        if name == "gate_weight":
            value.normal_(0, 0.02, generator=generator)
        else:
            value.zero_()

    def log_gate(self, logits: Tensor) -> Tensor:
        """-softplus."""
        return -F.softplus(logits)
