"""TAPE: rotations that are updated by content from layer to layer, equivariantly
(Zhu et al. 2025, arXiv 2501.00712, sec. 3.2).

Every token has a tensor e per head and pair of dimensions, [[c, -s], [s, c]] as two numbers (c, s), initially RoPE's
cos and sin.

    scores_ij = sum over pairs of q_i^T e_i^T e_j k_j / sqrt(head_dim)   w_ij = softmax over j   o_i = sum_j w_ij v_j
    a_i = sum_j w_ij e_j                                                    each head's own w and e
    e'_i = e_i + mix_h a_i                                                  mix: one number per head
    e''_i = e'_i + W2 (silu(G x_i) * (W1 e'_i))                             W1: n_heads -> width, W2: width -> n_heads

e'' is the next layer's e. Updates mix heads, which share a pair's frequency, but never the two numbers of a pair:
rotating all e of a pair by one angle rotates everything computed from them and leaves scores unchanged. A shift of
positions is such a rotation. mix and W2 start at zero, which is exactly RoPE. The form of the update and its sizes
are those of the authors' code (VITA-Group/TAPE). Differences:

- A layer updates the carry of the previous layer, and x is its own input. In that code the update ends a layer and x
  is the output of its MLP, and the last layer's update is unused. Here every parameter is used, a layer needs no MLP,
  and blocks without TAPE pass the carry through unchanged. In the first layer a = e, as if each token had attended to
  itself alone.
- mix is one number per head, which is all that the code's einsum uses of its n_heads x n_heads matrix. The code
  initialises W1 with zero instead of W2: the same initial function, but here W2 gets the first gradients.
- With grouped keys, each query head reads its key head through its own e; the code has as many key heads as query
  heads.
- These updates preserve the 2 x 2 form of e; larger blocks are not implemented.

Scores are computed in blocks of queries, with e appended to v: correct on any device, fast on none.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from lcprobe_kernels.attention import attention
from lcprobe_kernels.backends import without_autocast
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding
from lcprobe.models.positional.rope import RoPE, RoPEConfig, apply_rotary
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class TAPEConfig(RoPEConfig):
    """Settings of TAPE: those of RoPE, from which it starts, and the size of its update."""

    width: int | None = None
    """Hidden units of the update; null: 4 per head, as in the paper."""

    def check(self, at: str) -> None:
        """Raises ConfigError as RoPE does, and for a width below 1."""
        super().check(at)
        require(f"{at}.width", self.width, self.width is None or self.width >= 1, ">= 1 or null")


class TAPE(PositionalEncoding[TAPEConfig]):
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
        """Layers with the same base, rotated dimensions and number of heads share a carry."""
        return "tape", self.config.base, self.rope.rotary_dim, self.shape.n_heads

    @staticmethod
    def params(config: TAPEConfig, shape: HeadShape) -> int:
        """Parameters in mix, G, W1 and W2."""
        return shape.n_heads + _width(config, shape) * (shape.d_model + 2 * shape.n_heads)

    @staticmethod
    def flops(config: TAPEConfig, shape: HeadShape, visible: float, length: int) -> float:
        """The products of attention weights and e; the gate, and the update as a map between heads."""
        rotated, width = int(shape.head_dim * config.fraction), _width(config, shape)
        update = 2 * width * shape.d_model + 2 * shape.n_heads**2 * (width + rotated)
        return 2 * visible * shape.n_heads * rotated + update

    @staticmethod
    def term_width(config: TAPEConfig, shape: HeadShape) -> int:
        """e of every head: two numbers per pair."""
        return shape.n_heads * int(shape.head_dim * config.fraction)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """mix and W2 zero, which is RoPE; G and W1 as PyTorch's linear layers."""
        if name in ("mix", "down"):
            value.zero_()
        else:
            value.uniform_(-(value.shape[1] ** -0.5), value.shape[1] ** -0.5, generator=generator)

    def read_carry(self, x: Tensor, where: TokenContext, carry: Tensor | None) -> Tensor:
        """e of every token in this layer: (batch, seqlen, n_heads * rotary_dim), per head all c, then all s."""
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        if carry is None:
            cos_sin = torch.cat(self.rope.angles(where.positions, where.length, acc_dtype), dim=-1)
            e = a = cos_sin.expand(x.shape[0], -1, self.shape.n_heads, -1)
        else:
            e, a = carry.to(acc_dtype).unflatten(-1, (2, self.shape.n_heads, -1)).unbind(2)
        mix, gate, up, down = (p.to(acc_dtype) for p in (self.mix, self.gate, self.up, self.down))
        with without_autocast(x.device):
            e = e + mix[:, None] * a
            gates = F.silu(F.linear(x.to(acc_dtype), gate))
            e = e + torch.einsum("hw,biw,wg,bigr->bihr", down, gates, up, e)
        return e.flatten(2)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend. o: (batch, seqlen, n_heads, d_v + rotary_dim), float32 or wider: o, followed
        by a."""
        assert keys.terms is not None
        heads, acc_dtype = q.shape[2], torch.promote_types(q.dtype, torch.float32)
        e = keys.terms.to(acc_dtype).unflatten(-1, (heads, -1))
        cos, sin = e.chunk(2, dim=-1)
        k, v = (t.to(acc_dtype).repeat_interleave(heads // t.shape[2], 2) for t in (keys.k, keys.v))
        rotated_keys = replace(keys, k=apply_rotary(k, cos, sin), v=torch.cat([v, e], dim=-1))
        of_queries = slice(e.shape[1] - q.shape[1], None)
        rotated_q = apply_rotary(q.to(acc_dtype), cos[:, of_queries], sin[:, of_queries])
        return self.attend_with_scores(rotated_q, rotated_keys, _unchanged, heads)

    def write_carry(self, o: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """o in v's dtype, and the carry (e, a): (batch, seqlen, 2 * n_heads * rotary_dim)."""
        assert keys.terms is not None
        o, a = o.split([keys.v.shape[3], o.shape[3] - keys.v.shape[3]], dim=-1)
        return o.to(keys.v.dtype), torch.cat([keys.terms[:, -o.shape[1] :].to(a.dtype), a.flatten(2)], dim=-1)


def _width(config: TAPEConfig, shape: HeadShape) -> int:
    return 4 * shape.n_heads if config.width is None else config.width


def _unchanged(rows: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
    return scores
