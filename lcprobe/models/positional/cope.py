"""CoPE: positions counted by content (Golovneva et al. 2024, arXiv 2405.18719, eq. 4 to 6 and appendix B).

    g_it = sigmoid(q_i . k_t / sqrt(head_dim))        p_ij = min(sum_{t=j..i} g_it, max_position - 1)
    scores_ij += q_i . e[p_ij], linear between the whole positions around p_ij

e is shared by a layer's heads and starts at zero, as in the paper's code. Keys that a window or a document hides count nothing.
Counts are made of content scores, so a temperature on these would count anew: none goes with CoPE.
Sums over keys do not fit the attention op: scores are made in blocks, on any device, with the same numbers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding


@dataclass(frozen=True)
class CoPEConfig:
    """How far positions count."""

    max_position: int = 64
    """Rows of e; counts beyond the last take the last."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 2."""
        require(f"{at}.max_position", self.max_position, self.max_position >= 2, ">= 2")


class CoPE(PositionalEncoding):
    """Contextual position encoding."""

    Config = CoPEConfig
    family = "path"
    reads_positions = False
    linear = False

    def __init__(self, config: CoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.embedding = nn.Parameter(torch.empty(config.max_position, shape.head_dim))

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """One vector a whole position."""
        return config.max_position * shape.head_dim

    @staticmethod
    def flops(config: Any, shape: HeadShape, visible: float, length: int) -> float:
        """Queries meet every whole position; a gate, a running sum and an interpolation for each key."""
        return shape.n_heads * (2 * config.max_position * shape.head_dim + 9 * visible)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Zero."""
        value.zero_()

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend."""
        acc_dtype = torch.promote_types(q.dtype, torch.float32)

        def change(rows: Tensor, scores: Tensor, seen: Tensor) -> Tensor:
            gates = scores.sigmoid().masked_fill(~seen, 0.0)
            counts = gates.flip(-1).cumsum(-1).flip(-1).clamp_max(self.config.max_position - 1)
            whole = torch.einsum("bihd,pd->bhip", q[:, rows].to(acc_dtype), self.embedding.to(acc_dtype))
            below = counts.detach().floor()
            share, low = counts - below, below.to(torch.int64)
            high = (low + 1).clamp_max(self.config.max_position - 1)
            return scores + torch.lerp(whole.gather(-1, low), whole.gather(-1, high), share)

        return self.rescored(q, keys, change, q.shape[2])
