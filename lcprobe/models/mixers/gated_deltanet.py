"""Gated DeltaNet: a delta rule with one decay per head (Yang, Kautz & Hatamizadeh 2024, arXiv 2412.06464).

    q, k, v, gate, beta, a = in_proj(x)        q, k, v = silu(conv(q, k, v)), q and k of unit length
    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T             per head, S: (head_dim, value_dim)
    alpha = exp(-A softplus(a + dt_bias)), beta = sigmoid(beta)
    o_t = head_dim^-0.5 q_t^T S_t              y = out_proj(rms_norm(o) * silu(gate))

With the same weights it equals transformers' Qwen3-Next. Shapes: in the paper and in flash-linear-attention keys are
0.75 d_model wide and values 1.5 (`expand: 0.75, expand_v: 1.5`); in Qwen3-Next 1 and 2, in heads of 128, with two
heads of values per head of keys (`head_dim: 128, value_heads: 2`). A and dt_bias start as in flash-linear-attention,
A no lower than 0.01, so that log A is finite. The convolution starts uniform between +-d_conv^-0.5, as in its layer;
its models start it normal with standard deviation 0.02. Matrices start as in all mixers here. One matrix projects to
all inputs, where the releases have two to seven.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from lcprobe.models.cost import Cost
from lcprobe.models.mixers.delta_rule import DeltaRule, DeltaRuleConfig, Projected, Widths, delta_rule_cost


@dataclass(frozen=True)
class GatedDeltaNetConfig(DeltaRuleConfig):
    """Heads and decays of Gated DeltaNet."""

    expand_v: float = 2.0
    """Ratio of the width of all values to d_model."""
    A_init_range: tuple[float, float] = (0.01, 16.0)
    """Range of A, the factor of the decay's exponent, at initialisation (uniform)."""


class GatedDeltaNet(DeltaRule):
    """A delta rule, which overwrites what a key holds, with one decay per head."""

    Config = GatedDeltaNetConfig
    gate_activation = "silu"

    def __init__(self, config: GatedDeltaNetConfig, d_model: int):
        super().__init__(config, d_model, (config.widths(d_model).n_value_heads, 1))
        self.in_proj = nn.Linear(d_model, sum(_parts(self.widths)), bias=False)

    def project(self, x: Tensor) -> Projected:
        """See DeltaRule."""
        qkv, gate, beta, a = self.in_proj(x).split(_parts(self.widths), dim=-1)
        return Projected(qkv, gate, beta, a[..., None])

    @staticmethod
    def cost(config: GatedDeltaNetConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        widths = config.widths(d_model)
        return delta_rule_cost(config, d_model, d_model * sum(_parts(widths)), (widths.n_value_heads, 1))


def _parts(w: Widths) -> list[int]:
    """Widths of the parts of in_proj: q, k, v; gate; beta; a."""
    return [w.convolved, w.values, w.n_value_heads, w.n_value_heads]
