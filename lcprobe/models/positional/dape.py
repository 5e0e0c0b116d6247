"""DAPE: a bias over distance, adapted to the scores of all heads by an MLP
(Zheng et al. 2024, arXiv 2405.14722, eq. 3).

    S = q k^T / sqrt(head_dim)        scores = S + B + f([S, B]),   f: 2 n_heads -> width -> n_heads with LeakyReLU

B is the bias of ALiBi, KERPLE or Sandwich. f mixes the heads of each query-key pair, which no attention kernel
supports: scores are computed in blocks of queries, correct on any device and fast on none. f reads content scores:
DAPE takes no temperature.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.positional.alibi import ALiBi, ALiBiConfig
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding
from lcprobe.models.positional.kerple import KERPLE, KERPLEConfig
from lcprobe.models.positional.sandwich import Sandwich, SandwichConfig

BASES: dict[str, tuple[type[PositionalEncoding], object]] = {
    "alibi": (ALiBi, ALiBiConfig()),
    "kerple": (KERPLE, KERPLEConfig()),
    "sandwich": (Sandwich, SandwichConfig()),
}


@dataclass(frozen=True)
class DAPEConfig:
    """The bias that DAPE adapts, and the size of its MLP."""

    base: Literal["alibi", "kerple", "sandwich"] = "kerple"
    """The encoding whose bias over distance is adapted, with its default settings."""
    width: int = 32
    """Hidden units of the MLP."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a width below 1."""
        require(f"{at}.width", self.width, self.width >= 1, ">= 1")


class DAPE(PositionalEncoding[DAPEConfig]):
    """Data-adaptive positional encoding."""

    Config = DAPEConfig
    family = "path"
    linear = False

    def __init__(self, config: DAPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        base, settings = BASES[config.base]
        self.base = base(settings, shape)
        self.in_weight = nn.Parameter(torch.empty(config.width, 2 * shape.n_heads))
        self.in_bias = nn.Parameter(torch.empty(config.width))
        self.out_weight = nn.Parameter(torch.empty(shape.n_heads, config.width))
        self.out_bias = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: DAPEConfig, shape: HeadShape) -> int:
        """Parameters of the adapted bias and of the MLP."""
        base, settings = BASES[config.base]
        return base.params(settings, shape) + config.width * (3 * shape.n_heads + 1) + shape.n_heads

    @staticmethod
    def flops(config: DAPEConfig, shape: HeadShape, visible: float, length: int) -> float:
        """The MLP at every query-key pair."""
        return 6 * config.width * shape.n_heads * visible

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """The MLP as PyTorch's linear layers; the adapted bias initialises its own parameters."""
        bound = (2 * self.shape.n_heads if name.startswith("in") else self.config.width) ** -0.5
        value.uniform_(-bound, bound, generator=generator)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend."""
        acc_dtype = torch.promote_types(q.dtype, torch.float32)
        w1, b1, w2, b2 = (w.to(acc_dtype) for w in (self.in_weight, self.in_bias, self.out_weight, self.out_bias))

        def change(rows: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
            bias = self.base.bias(keys.distances(rows, q.shape[1]))
            assert bias is not None
            bias = bias.to(acc_dtype).expand_as(scores)
            both = torch.cat([scores, bias], dim=1).movedim(1, -1)
            return scores + bias + F.linear(F.leaky_relu(F.linear(both, w1, b1)), w2, b2).movedim(-1, 1)

        return self.attend_with_scores(q, keys, change, q.shape[2])
