"""LayerNorm: y = weight * (x - mean(x)) / sqrt(var(x) + eps) + bias (Ba et al. 2016, arXiv 1607.06450): RWKV."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.models.norms.contract import Norm, NormConfig


@dataclass(frozen=True)
class LayerNormConfig(NormConfig):
    """Settings of layer norms."""

    bias: bool = True
    """Add a learned bias."""


class LayerNorm(Norm[LayerNormConfig]):
    """LayerNorm with a learned weight and bias."""

    Config = LayerNormConfig

    def __init__(self, config: LayerNormConfig, d_model: int, eps: float):
        super().__init__(config, d_model, eps)
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps
        self.bias = nn.Parameter(torch.zeros(d_model)) if config.bias else None

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: weights start at 1, biases at 0."""
        value.fill_(1.0 if name == "weight" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """See Norm."""
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(acc_dtype)
        return F.layer_norm(x.to(acc_dtype), x.shape[-1:], self.weight.to(acc_dtype), bias, self.eps).to(x.dtype)

    @staticmethod
    def params(config: LayerNormConfig, d_model: int) -> int:
        """See Norm."""
        return (2 if config.bias else 1) * d_model
