"""RMSNorm: y = weight * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019, arXiv 1910.07467), one pass with the
residual sum. Zero-centred: 1 + weight in place of weight, weights starting at 0 (Gemma, arXiv 2403.08295), so that
weight decay draws the scale to 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from lcprobe_kernels.rms_norm import add_rms_norm, rms_norm
from torch import Tensor, nn

from lcprobe.models.norms.contract import Norm, NormConfig


@dataclass(frozen=True)
class RMSNormConfig(NormConfig):
    """RMSNorm has no settings of its own."""


class RMSNorm(Norm[RMSNormConfig]):
    """RMSNorm with a learned weight that starts at 1."""

    Config = RMSNormConfig
    zero_centred: ClassVar[bool] = False

    def __init__(self, config: RMSNormConfig, d_model: int, eps: float):
        super().__init__(config, d_model, eps)
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: the scale starts at 1."""
        value.fill_(0.0 if self.zero_centred else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """See Norm."""
        return rms_norm(x, self.weight, self.eps, zero_centred=self.zero_centred)

    def added(self, update: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """See Norm; sum and norm are one op."""
        if residual is None:
            return self(update), update
        y, total = add_rms_norm(update, residual, self.weight, self.eps, zero_centred=self.zero_centred)
        return y, total.to(residual.dtype)

    @staticmethod
    def params(config: RMSNormConfig, d_model: int) -> int:
        """See Norm."""
        return d_model


class ZeroCentredRMSNorm(RMSNorm):
    """RMSNorm with scale 1 + weight, whose weights start at 0."""

    zero_centred = True
