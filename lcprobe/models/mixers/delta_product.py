"""Gated DeltaProduct: a delta rule with several keys per token (Siems et al. 2025, arXiv 2502.10297).

    q, gate, a = in_proj(x), and for each step i = 1 .. n: k_i, v_i, beta_i = in_proj(x)
    q, k, v = silu(conv(q, k, v)), q and k of unit length                       per head, S: (head_dim, value_dim)
    S <- alpha_t S, then for each step in turn  S <- (I - beta_i k_i k_i^T) S + beta_i k_i v_i^T
    alpha = exp(-A softplus(a + dt_bias)), beta = 2 sigmoid(beta)
    o_t = head_dim^-0.5 q_t^T S_t              y = out_proj(rms_norm(o) * silu(gate))

A token moves the state by a product of n generalised Householder matrices, whose eigenvalues lie in [-1, 1]: n = 2
can rotate it, which one step cannot. With n = 1 it is gated_deltanet. The steps of a token are computed as n tokens
of one delta rule, of which the first decays the state and the last is read; `chunk_size` counts them.

With the same weights it equals flash-linear-attention's GatedDeltaProduct, whose keys are 0.75 d_model wide and
values 1.5 (`head_dim: 256, expand: 0.75, expand_v: 1.5`) and which has up to seven projections in place of one.
Initial values are those of gated_deltanet.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.delta_rule import DeltaRule, DeltaRuleConfig, Projected, Widths, delta_rule_cost


@dataclass(frozen=True)
class DeltaProductConfig(DeltaRuleConfig):
    """Steps, heads and decays of Gated DeltaProduct."""

    n_steps: int = 2
    """Keys and values that a token writes, one after the other."""
    expand_v: float = 2.0
    """Ratio of the width of all values, of one step, to d_model."""
    negative_eigenvalues: bool = True
    """Let beta range from 0 to 2 instead of 1, so that a step can change the sign of what a key holds
    (arXiv 2411.12537)."""
    A_init_range: tuple[float, float] = (0.01, 16.0)
    """Range of A, the factor of the decay's exponent, at initialisation (uniform)."""

    def check(self, at: str) -> None:
        """See DeltaRuleConfig."""
        super().check(at)
        require(f"{at}.n_steps", self.n_steps, self.n_steps >= 1, ">= 1")

    def widths(self, d_model: int) -> Widths:
        """See DeltaRuleConfig."""
        return super().widths(d_model)._replace(steps=self.n_steps)


class DeltaProduct(DeltaRule):
    """A gated delta rule with several keys per token, each of which erases and writes; one decay per head."""

    Config = DeltaProductConfig
    gate_activation = "silu"

    def __init__(self, config: DeltaProductConfig, d_model: int):
        super().__init__(config, d_model, (config.widths(d_model).n_value_heads, 1))
        self.in_proj = nn.Linear(d_model, sum(_parts(self.widths)), bias=False)

    def project(self, x: Tensor) -> Projected:
        """See DeltaRule."""
        qkv, gate, beta, a = self.in_proj(x).split(_parts(self.widths), dim=-1)
        return Projected(qkv, gate, beta, a[..., None])

    def rule(self, q: Tensor, k: Tensor, v: Tensor, projected: Projected, starts: Tensor | None) -> dict[str, Any]:
        """See DeltaRule: a token begins a document and decays the state in its first step, and reads in its last."""
        n, first, last = self.widths.steps, 0, self.widths.steps - 1
        return {
            "q": _spread(q, n, last),
            "k": k,
            "v": v,
            "log_decay": _spread(self.log_decay(projected.decay), n, first),
            "beta": self.rates(projected.beta).unflatten(-1, (n, self.widths.n_value_heads)).flatten(1, 2),
            "starts": None if starts is None else _spread(starts, n, first),
        }

    @staticmethod
    def cost(config: DeltaProductConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        widths = config.widths(d_model)
        return delta_rule_cost(config, d_model, d_model * sum(_parts(widths)), (widths.n_value_heads, 1))


def _spread(x: Tensor, n: int, step: int) -> Tensor:
    """(batch, seqlen, ...) -> (batch, seqlen x n, ...): x at one step of each token, zeros or False at the others."""
    absent = torch.zeros_like(x)
    return torch.stack([x if i == step else absent for i in range(n)], dim=2).flatten(1, 2)


def _parts(w: Widths) -> list[int]:
    """Widths of the parts of in_proj: q, and k and v of all steps; gate; beta; a."""
    return [w.convolved, w.values, w.steps * w.n_value_heads, w.n_value_heads]
