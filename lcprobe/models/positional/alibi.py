"""ALiBi: a penalty linear in distance (Press et al. 2021, arXiv 2108.12409).

    T[h, d] = -m_h d        m_h = 2^(-8 (h + 1) / n_heads), h = 0 .. n_heads - 1, for powers of two

Other numbers of heads use the slopes of the power of two below, then every other slope of the power of two above.
Learned slopes (x-transformers' variant) start at these values; their logarithms are the parameters, so that they stay
positive.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcprobe.models.positional.contract import HeadShape, PositionalEncoding


@dataclass(frozen=True)
class ALiBiConfig:
    """Whether ALiBi's slopes are learned."""

    learned: bool = False
    """Learn the slopes, one per head."""


class ALiBi(PositionalEncoding[ALiBiConfig]):
    """Attention with linear biases."""

    Config = ALiBiConfig
    family = "bias"

    def __init__(self, config: ALiBiConfig, shape: HeadShape):
        super().__init__(config, shape)
        if config.learned:
            self.log_slopes = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: ALiBiConfig, shape: HeadShape) -> int:
        """One slope per head where they are learned, else 0."""
        return shape.n_heads if config.learned else 0

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """The logarithms of the fixed slopes."""
        value.copy_(slopes(self.shape.n_heads).log())

    def bias(self, distance: Tensor) -> Tensor:
        """-m_h d."""
        if self.config.learned:
            acc_dtype = torch.promote_types(self.log_slopes.dtype, torch.float32)
            m = self.log_slopes.to(acc_dtype).exp()
        else:
            m = slopes(self.shape.n_heads).to(distance.device)
        return -m.view(-1, *[1] * distance.dim()) * distance.to(m.dtype)


def slopes(n_heads: int) -> Tensor:
    """The fixed slopes m_h: (n_heads,) float64."""
    below = 1 << (n_heads.bit_length() - 1)
    steps = [8 * (h + 1) / below for h in range(below)]
    steps += [4 * (h + 1) / below for h in range(0, 2 * (n_heads - below), 2)]
    return 2.0 ** -torch.tensor(steps, dtype=torch.float64)
