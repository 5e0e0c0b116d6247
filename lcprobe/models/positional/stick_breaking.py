"""Stick-breaking attention: each key takes a share of what nearer keys have left
(Tan et al. 2024, arXiv 2410.17980, eq. 1 to 3).

    beta_ij = sigmoid(q_i . k_j / sqrt(head_dim))        A_ij = beta_ij prod_{t=j+1..i-1} (1 - beta_it),   j < i
    o_i = sum_j A_ij v_j  [+ (1 - sum_j A_ij) v_i with `remainder`, as released models do]

The product encodes order: no positions, no parameters, no softmax. The attention op does not compute log A_ij, a sum
over keys, so scores are computed in blocks of queries. The query's own key takes part only with `attend_current`.
"""

from dataclasses import dataclass

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor
from torch.nn import functional as F

from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding


@dataclass(frozen=True)
class StickBreakingConfig:
    """How stick-breaking treats the query's own key, and the weight that no key takes."""

    attend_current: bool = False
    """The query's own key takes part, before all others."""
    remainder: bool = False
    """The weight that no key takes goes to the query's own value; false: to no value."""


class StickBreaking(PositionalEncoding[StickBreakingConfig]):
    """Stick-breaking weights in place of the softmax."""

    Config = StickBreakingConfig
    family = "path"
    mergeable = False
    reads_positions = False
    softmax = False
    linear = False

    @staticmethod
    def flops(config: StickBreakingConfig, shape: HeadShape, visible: float, length: int) -> float:
        """Two logarithms, a running sum and an addition per query-key pair, in place of the softmax."""
        return 4 * shape.n_heads * visible

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """o: (batch, seqlen, n_heads, d_v), and None: there is no softmax, hence no log-sum-exp."""
        offset, key_index = keys.k.shape[1] - q.shape[1], torch.arange(keys.k.shape[1], device=q.device)

        def change(rows: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
            taking = visible if self.config.attend_current else visible & (key_index != rows[:, None] + offset)
            left = F.logsigmoid(-scores).masked_fill(~taking, 0.0)
            left = F.pad(left.flip(-1).cumsum(-1).flip(-1)[..., 1:], (0, 1))
            return (F.logsigmoid(scores) + left).masked_fill(~taking, float("-inf"))

        o, total = self.attend_with_scores(q, keys, change, q.shape[2], _unnormalised)
        if self.config.remainder:
            own = keys.v[:, offset:].repeat_interleave(q.shape[2] // keys.v.shape[2], 2)
            o = o + (1 - total)[..., None].to(o.dtype) * own
        return o, None


def _unnormalised(scores: Tensor, visible: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention with weights exp(scores), not normalised: o, and each row's total weight."""
    weights = scores.exp()
    return torch.einsum("bhij,bjhd->bihd", weights, v), weights.sum(-1).transpose(1, 2)
