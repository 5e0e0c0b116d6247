"""FoX: a forget gate on softmax attention (Lin et al. 2025, arXiv 2503.02130, eq. 3 and 4).

    f_t = sigmoid(w_h . x_t + b_h)        scores_ij += sum_{t=j+1..i} log f_t = F_i - F_j,   F_i = sum_{t<=i} log f_t

x is the layer's input. Sums are float64 and run over the whole row, across documents: only their differences are
used. Weights are initialised normal with standard deviation 0.02 and the bias with 0, as in flash-linear-attention:
every token then halves the weight of all earlier ones; a larger `initial_bias` starts with longer memory.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from lcprobe_kernels.backends import without_autocast
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.models.positional.contract import ConfigT, HeadShape, PositionalEncoding
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class FoXConfig:
    """Initial forget gates of FoX."""

    initial_bias: float = 0.0
    """Initial bias of the gates' logits: at 0 each token halves the weight of earlier ones, at 5 it keeps 0.993 of
    it."""


class CumulativeGates(PositionalEncoding[ConfigT], ABC):
    """Base of encodings whose gates add to F, one sum per head: a linear map to a logit, and `log_gate` of it."""

    family = "gate"
    reads_positions = False
    caches_all_terms = True
    term_bytes = 8

    def __init__(self, config: ConfigT, shape: HeadShape):
        super().__init__(config, shape)
        self.gate_weight = nn.Parameter(torch.empty(shape.n_heads, shape.d_model))
        self.gate_bias = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: ConfigT, shape: HeadShape) -> int:
        """A linear map to one logit per head."""
        return shape.n_heads * (shape.d_model + 1)

    @staticmethod
    def flops(config: ConfigT, shape: HeadShape, visible: float, length: int) -> float:
        """The map to the gates' logits."""
        return 2 * shape.n_heads * shape.d_model

    @staticmethod
    def term_width(config: ConfigT, shape: HeadShape) -> int:
        """One sum per head."""
        return shape.n_heads

    @abstractmethod
    def log_gate(self, logits: Tensor) -> Tensor:
        """What one token adds to F, <= 0."""

    def token_terms(self, x: Tensor, where: TokenContext, last: Tensor | None) -> Tensor:
        """F of each token: (batch, seqlen, n_heads) float64."""
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):
            logits = F.linear(x.to(acc_dtype), self.gate_weight.to(acc_dtype), self.gate_bias.to(acc_dtype))
        sums = self.log_gate(logits).double().cumsum(1)
        return sums if last is None else sums + last[:, None]

    def gates(self, terms: Tensor) -> Tensor:
        """F: the token terms themselves."""
        return terms


class FoX(CumulativeGates[FoXConfig]):
    """Cumulative log forget gates, one per head."""

    Config = FoXConfig

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Weights normal with standard deviation 0.02, the bias `initial_bias`."""
        if name == "gate_weight":
            value.normal_(0, 0.02, generator=generator)
        else:
            value.fill_(self.config.initial_bias)

    def log_gate(self, logits: Tensor) -> Tensor:
        """log sigmoid(logits)."""
        return F.logsigmoid(logits)
