"""CoPE: positions are sums of gates that depend on content
(Golovneva et al. 2024, arXiv 2405.18719, eq. 4 to 6 and appendix B).

    g_it = sigmoid(q_i . k_t / sqrt(head_dim))        p_ij = min(sum_{t=j..i} g_it, max_position - 1)
    scores_ij += q_i . e[p_ij], linearly interpolated between the integer positions around p_ij

e is shared by the heads of a layer and starts at zero, as in the paper's code. Keys hidden by a window or a document
boundary add nothing to positions. Positions are computed from content scores, which a temperature would change: CoPE
takes none. The attention op has no sums over keys, so scores are computed in blocks of queries, identically on every
device.
"""

from dataclasses import dataclass

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding


@dataclass(frozen=True)
class CoPEConfig:
    """Range of CoPE's positions."""

    max_position: int = 64
    """Number of position embeddings; larger positions use the last one."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a max_position below 2."""
        require(f"{at}.max_position", self.max_position, self.max_position >= 2, ">= 2")


class CoPE(PositionalEncoding[CoPEConfig]):
    """Contextual position encoding."""

    Config = CoPEConfig
    family = "path"
    mergeable = False
    reads_positions = False
    linear = False

    def __init__(self, config: CoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.embedding = nn.Parameter(torch.empty(config.max_position, shape.head_dim))

    @staticmethod
    def params(config: CoPEConfig, shape: HeadShape) -> int:
        """One vector per integer position."""
        return config.max_position * shape.head_dim

    @staticmethod
    def flops(config: CoPEConfig, shape: HeadShape, visible: float, length: int) -> float:
        """Products of queries and position embeddings; a gate, a running sum and an interpolation per key."""
        return shape.n_heads * (2 * config.max_position * shape.head_dim + 9 * visible)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: the table starts at zero."""
        value.zero_()

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend."""
        acc_dtype = torch.promote_types(q.dtype, torch.float32)

        def change(rows: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
            gates = scores.sigmoid().masked_fill(~visible, 0.0)
            positions = gates.flip(-1).cumsum(-1).flip(-1).clamp_max(self.config.max_position - 1)
            at_integers = torch.einsum("bihd,pd->bhip", q[:, rows].to(acc_dtype), self.embedding.to(acc_dtype))
            below = positions.detach().floor()
            weight, low = positions - below, below.to(torch.int64)
            high = (low + 1).clamp_max(self.config.max_position - 1)
            return scores + torch.lerp(at_integers.gather(-1, low), at_integers.gather(-1, high), weight)

        return self.attend_with_scores(q, keys, change, q.shape[2])
