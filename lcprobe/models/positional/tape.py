"""TAPE: rotations that content changes from layer to layer, equivariantly (Zhu et al. 2025, arXiv 2501.00712, sec. 3.2).

Every token has a tensor e a head and pair of dimensions, [[c, -s], [s, c]] as two numbers (c, s): RoPE's cos and sin at first.

    scores_ij = sum over pairs of q_i^T e_i^T e_j k_j / sqrt(head_dim)      w_ij = softmax over j      o_i = sum_j w_ij v_j
    a_i = sum_j w_ij e_j                                                    each head's own w and e
    e'_i = e_i + mix_h a_i                                                  mix: a number a head
    e''_i = e'_i + W2 (silu(G x_i) * (W1 e'_i))                             W1: n_heads -> width, W2: width -> n_heads

e'' is the next layer's e. Updates mix heads, which share a pair's frequency, and never the two numbers of a pair: where all e of
a pair are turned by one angle, all that comes of them is, and scores stay. A shift of positions is such a turn. mix and W2 start
at zero: RoPE, exactly. The form of the update and its sizes are those of the authors' code (VITA-Group/TAPE). What differs:

- A layer updates the carry of the layer before it, and x is its own input. There the update ends a layer and x is what its MLP
  makes; the last layer's is read by nobody. So no parameter here is idle, a layer needs no MLP, and blocks without TAPE hand
  everything on untouched. In the first layer a = e: a token has attended to itself alone.
- mix is a number a head, which is all that the code's einsum keeps of its n_heads x n_heads matrix. The code starts W1 at zero
  and not W2: the same function at first, and W2 gets the first gradients.
- Where query heads share a key head, each reads it through its own e; the code has as many of both.
- e keeps the form in which RoPE starts it, under these updates; blocks of other shapes than 2 x 2 are not built.

Scores are made in blocks, with e beside v: right on any device, fast on none.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from lcprobe_kernels.attention import attention
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding
from lcprobe.models.positional.rope import RoPE, RoPEConfig, apply_rotary
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class TAPEConfig(RoPEConfig):
    """RoPE's settings, where it starts, and how large the update is."""

    width: int | None = None
    """Hidden units of the update; null: 4 a head, as in the paper."""

    def check(self, at: str) -> None:
        """Raises ConfigError as RoPE does, and below width 1."""
        super().check(at)
        require(f"{at}.width", self.width, self.width is None or self.width >= 1, ">= 1 or null")


class TAPE(PositionalEncoding):
    """Contextualized equivariant position encoding."""

    Config = TAPEConfig
    family = "path"
    caches_raw_keys = True
    caches_all_terms = True

    def __init__(self, config: TAPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.rope = RoPE(config, shape)
        width = _width(config, shape)
        self.mix = nn.Parameter(torch.empty(shape.n_heads))
        self.gate = nn.Parameter(torch.empty(width, shape.d_model))
        self.up = nn.Parameter(torch.empty(width, shape.n_heads))
        self.down = nn.Parameter(torch.empty(shape.n_heads, width))

    @property
    def carry_name(self) -> Hashable | None:  # type: ignore[override]
        """Layers share tensors that start alike; another base, share of head_dim or number of heads has tensors of its own."""
        return "tape", self.config.base, self.rope.rotary_dim, self.shape.n_heads

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """mix, G, W1 and W2."""
        return shape.n_heads + _width(config, shape) * (shape.d_model + 2 * shape.n_heads)

    @staticmethod
    def flops(config: Any, shape: HeadShape, visible: float, length: int) -> float:
        """Weights meet e beside v; the gate, and the update as a map between heads."""
        rotated, width = int(shape.head_dim * config.fraction), _width(config, shape)
        update = 2 * width * shape.d_model + 2 * shape.n_heads**2 * (width + rotated)
        return 2 * visible * shape.n_heads * rotated + update

    @staticmethod
    def term_width(config: Any, shape: HeadShape) -> int:
        """e of every head: two numbers a pair."""
        return shape.n_heads * int(shape.head_dim * config.fraction)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """mix and W2 at zero, where this is RoPE; G and W1 as PyTorch's linear layers."""
        if name in ("mix", "down"):
            value.zero_()
        else:
            value.uniform_(-(value.shape[1] ** -0.5), value.shape[1] ** -0.5, generator=generator)

    def read_carry(self, x: Tensor, where: TokenContext, carry: Tensor | None) -> Tensor:
        """e of every token in this layer: (batch, seqlen, n_heads * rotary_dim), each head's c of all pairs, then their s."""
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        if carry is None:
            cos_sin = torch.cat(self.rope.angles(where.positions, where.length, acc_dtype), dim=-1)
            e = a = cos_sin.expand(x.shape[0], -1, self.shape.n_heads, -1)
        else:
            e, a = carry.to(acc_dtype).unflatten(-1, (2, self.shape.n_heads, -1)).unbind(2)
        mix, gate, up, down = (p.to(acc_dtype) for p in (self.mix, self.gate, self.up, self.down))
        with torch.autocast(x.device.type, enabled=False):
            e = e + mix[:, None] * a
            chosen = F.silu(F.linear(x.to(acc_dtype), gate))
            e = e + torch.einsum("hw,biw,wg,bigr->bihr", down, chosen, up, e)
        return e.flatten(2)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend. o: (batch, seqlen, n_heads, d_v + rotary_dim), float32 or wider: a stands behind o."""
        assert keys.terms is not None
        heads, acc_dtype = q.shape[2], torch.promote_types(q.dtype, torch.float32)
        e = keys.terms.to(acc_dtype).unflatten(-1, (heads, -1))
        cos, sin = e.chunk(2, dim=-1)
        k, v = (t.to(acc_dtype).repeat_interleave(heads // t.shape[2], 2) for t in (keys.k, keys.v))
        turned_keys = replace(keys, k=apply_rotary(k, cos, sin), v=torch.cat([v, e], dim=-1))
        mine = slice(e.shape[1] - q.shape[1], None)
        return self.rescored(
            apply_rotary(q.to(acc_dtype), cos[:, mine], sin[:, mine]), turned_keys, _as_they_are, heads
        )

    def write_carry(self, o: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """o in v's dtype, and (e, a): (batch, seqlen, 2 * n_heads * rotary_dim)."""
        assert keys.terms is not None
        o, a = o.split([keys.v.shape[3], o.shape[3] - keys.v.shape[3]], dim=-1)
        return o.to(keys.v.dtype), torch.cat([keys.terms[:, -o.shape[1] :].to(a.dtype), a.flatten(2)], dim=-1)


def _width(config: Any, shape: HeadShape) -> int:
    return 4 * shape.n_heads if config.width is None else config.width


def _as_they_are(rows: Tensor, scores: Tensor, seen: Tensor) -> Tensor:
    return scores
