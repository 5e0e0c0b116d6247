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

    def slopes(self, device: torch.device) -> Tensor:
        """m_h: (n_heads,), float32 or wider."""
        if self.config.learned:
            acc_dtype = torch.promote_types(self.log_slopes.dtype, torch.float32)
            return self.log_slopes.to(acc_dtype).exp()
        return slopes(self.shape.n_heads, device)

    def bias(self, distance: Tensor) -> Tensor:
        """-m_h d."""
        m = self.slopes(distance.device)
        return -m.view(-1, *[1] * distance.dim()) * distance.to(m.dtype)


def slopes(n_heads: int, device: torch.device | None = None) -> Tensor:
    """The fixed slopes m_h: (n_heads,) float64, made on the device. None: the default one."""
    below = 1 << (n_heads.bit_length() - 1)
    whole = torch.arange(1, below + 1, dtype=torch.float64, device=device)
    odd = 2 * torch.arange(n_heads - below, dtype=torch.float64, device=device) + 1
    return 2.0 ** -torch.cat([8 / below * whole, 4 / below * odd])
