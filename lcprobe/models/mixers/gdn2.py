"""Gated DeltaNet-2: a delta rule that erases and writes by channel (Hatamizadeh et al. 2026, arXiv 2605.22791).

    q, k, v, erase, write = in_proj(x)         q, k, v = silu(conv(q, k, v)), q and k of unit length
    S_t = (I - k_t (b_t * k_t)^T) diag(alpha_t) S_{t-1} + k_t (w_t * v_t)^T     per head, S: (head_dim, value_dim)
    alpha = exp(-A softplus(F_b F_a x + dt_bias))         A per head of keys, the rest per channel of keys
    b = sigmoid(erase) per channel of keys, w = sigmoid(write) per channel of values
    o_t = head_dim^-0.5 q_t^T S_t              y = out_proj(rms_norm(o) * sigmoid(G_b G_a x + bias))

With b and w equal to one beta per head it is kda. With the same weights it equals flash-linear-attention's
GatedDeltaNet2 (its defaults: `head_dim: 128, expand: 1, expand_v: 1` at d_model 2048), whose initial values of A and
dt_bias it has; the convolution starts uniform between +-d_conv^-0.5, as there, and matrices as in all mixers here.
One matrix projects to q, k, v, to both gates of the state and to both low ranks.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.delta_rule import DeltaRule, DeltaRuleConfig, Projected, Widths, delta_rule_cost


@dataclass(frozen=True)
class GDN2Config(DeltaRuleConfig):
    """Heads, decays and ranks of Gated DeltaNet-2."""

    negative_eigenvalues: bool = False
    """Let b range from 0 to 2 instead of 1, so that a token can change the sign of what a key holds
    (arXiv 2411.12537)."""
    rank: int | None = None
    """Rank of the maps to decays and to the gate; null: the width of a head's values."""

    def check(self, at: str) -> None:
        """See DeltaRuleConfig."""
        super().check(at)
        require(f"{at}.rank", self.rank, self.rank is None or self.rank >= 1, ">= 1 or null")


class GDN2(DeltaRule):
    """A delta rule with separate gates of what is erased and written by channel; a decay per channel of keys."""

    Config = GDN2Config
    gate_activation = "sigmoid"

    def __init__(self, config: GDN2Config, d_model: int):
        widths = config.widths(d_model)
        rank = config.rank or widths.value_dim
        super().__init__(config, d_model, (widths.n_heads, widths.head_dim))
        self.parts = _parts(widths, rank)
        self.in_proj = nn.Linear(d_model, sum(self.parts), bias=False)
        self.decay_proj = nn.Linear(rank, widths.keys, bias=False)
        self.gate_proj = nn.Linear(rank, widths.values)

    def project(self, x: Tensor) -> Projected:
        """See DeltaRule; `beta` has the gates of erasing and of writing side by side."""
        qkv, beta, decay, gate = self.in_proj(x).split(self.parts, dim=-1)
        decay = self.decay_proj(decay).unflatten(-1, (self.widths.n_heads, self.widths.head_dim))
        return Projected(qkv, self.gate_proj(gate), beta, decay)

    def rule(self, q: Tensor, k: Tensor, v: Tensor, projected: Projected, starts: Tensor | None) -> dict[str, Any]:
        """See DeltaRule."""
        w = self.widths
        erase, write = projected.beta.split([w.keys, w.values], dim=-1)
        write = write.to(torch.promote_types(write.dtype, torch.float32)).sigmoid()
        return {
            "q": q,
            "k": k,
            "v": (v * write.unflatten(-1, (w.n_value_heads, w.value_dim))).to(v.dtype),
            "log_decay": self.for_value_heads(self.log_decay(projected.decay)),
            "erase": self.for_value_heads(self.rates(erase).unflatten(-1, (w.n_heads, w.head_dim))),
            "starts": starts,
        }

    @staticmethod
    def cost(config: GDN2Config, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        w = config.widths(d_model)
        rank = config.rank or w.value_dim
        matrices = d_model * sum(_parts(w, rank)) + rank * (w.keys + w.values)
        cost = delta_rule_cost(config, d_model, matrices, (w.n_heads, w.head_dim))
        return replace(cost, params=cost.params + w.values)  # the gate's bias


def _parts(w: Widths, rank: int) -> list[int]:
    """Widths of the parts of in_proj: q, k, v; both gates of the state; the ranks of decays and gate."""
    return [w.convolved, w.keys + w.values, rank, rank]
