"""KDA, Kimi Delta Attention: a delta rule with one decay per channel (Kimi Team 2025, arXiv 2510.26692).

    q, k, v, beta = in_proj(x)                 q, k, v = silu(conv(q, k, v)), q and k of unit length
    S_t = (I - beta_t k_t k_t^T) diag(alpha_t) S_{t-1} + beta_t k_t v_t^T       per head, S: (head_dim, value_dim)
    alpha = exp(-A softplus(F_b F_a x + dt_bias)), beta = sigmoid(beta)         A per head, the rest per channel
    o_t = head_dim^-0.5 q_t^T S_t              y = out_proj(rms_norm(o) * sigmoid(G_b G_a x))

With the same weights it equals transformers' Kimi-Linear, where heads are 128 wide and keys and values 4096 at
d_model 2304 (`head_dim: 128, expand: 1.7778, expand_v: 1.7778`). flash-linear-attention's layer has a bias after G_b,
too. A and dt_bias start as there, and the convolution as in its layer, uniform between +-d_conv^-0.5 (in its models
it starts normal with standard deviation 0.02); matrices start as in all mixers here. One matrix projects to q, k, v,
beta and to both low ranks.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.delta_rule import DeltaRule, DeltaRuleConfig, Projected, Widths, delta_rule_cost


@dataclass(frozen=True)
class KDAConfig(DeltaRuleConfig):
    """Heads, decays and ranks of KDA."""

    rank: int | None = None
    """Rank of the maps to decays and to the gate; null: head_dim."""

    def check(self, at: str) -> None:
        """See DeltaRuleConfig."""
        super().check(at)
        require(f"{at}.rank", self.rank, self.rank is None or self.rank >= 1, ">= 1 or null")


class KDA(DeltaRule):
    """Kimi Delta Attention: a delta rule with one decay per channel of the keys."""

    Config = KDAConfig
    gate_activation = "sigmoid"

    def __init__(self, config: KDAConfig, d_model: int):
        widths, rank = config.widths(d_model), config.rank or config.head_dim
        super().__init__(config, d_model, (widths.n_value_heads, widths.head_dim))
        self.parts = _parts(widths, rank)
        self.in_proj = nn.Linear(d_model, sum(self.parts), bias=False)
        self.decay_proj = nn.Linear(rank, widths.n_value_heads * widths.head_dim, bias=False)
        self.gate_proj = nn.Linear(rank, widths.values, bias=False)

    def project(self, x: Tensor) -> Projected:
        """See DeltaRule."""
        qkv, beta, decay, gate = self.in_proj(x).split(self.parts, dim=-1)
        decay = self.decay_proj(decay).unflatten(-1, (self.widths.n_value_heads, self.widths.head_dim))
        return Projected(qkv, self.gate_proj(gate), beta, decay)

    @staticmethod
    def cost(config: KDAConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        w, rank = config.widths(d_model), config.rank or config.head_dim
        decays = (w.n_value_heads, w.head_dim)
        matrices = d_model * sum(_parts(w, rank)) + rank * (w.n_value_heads * w.head_dim + w.values)
        return delta_rule_cost(config, d_model, matrices, decays)


def _parts(w: Widths, rank: int) -> list[int]:
    """Widths of the parts of in_proj: q, k, v; beta; the ranks of decays and gate."""
    return [w.convolved, w.n_value_heads, rank, rank]
