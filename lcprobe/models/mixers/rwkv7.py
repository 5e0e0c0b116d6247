"""RWKV-7 "Goose": a generalised delta rule with a decay per channel (Peng et al. 2025, arXiv 2503.14456).

    z^i_t = x_t + mix^i * (x_{t-1} - x_t)                      token shift for r, w, k, v, a, g, 0 before a document
    r, k, v = receptance(z^r), key(z^k), value(z^v)            w_t = exp(-exp(-1/2) sigmoid(w_0 + tanh(z^w W_1) W_2))
    a = sigmoid(a_0 + z^a A_1 A_2)                             the in-context learning rate of each channel
    kappa = normalise(k * removal_key) per head                k <- k * (1 + (a - 1) * key_rate)
    v <- v + (v_first - v) * sigmoid(v_0 + z^v V_1 V_2)        v_first: v of the first such layer, where there is one
    S_t = S_{t-1} (diag(w_t) - kappa_t^T (a_t * kappa_t)) + v_t^T k_t        o_t = S_t r_t^T
    y = out_proj((group_norm(o) + sum(r * bonus * k) v) * (sigmoid(z^g G_1) G_2))

Shapes, initial values and the norm's epsilon are those of BlinkDL/RWKV-LM (RWKV-v7/train_temp/src/model.py, x070),
ranks by default those of the released World models (96, 96, 64 and 320 at d_model 2560). Differences: the six mixing
vectors are one parameter, and w_0 (`decay_base`), which the release trains at twice the learning rate, is trained at
that of all other parameters.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Self

import torch
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.mixers.rwkv6 import RWKVState
from lcprobe.models.rwkv_parts import (
    LowRank,
    channel_ramp,
    depth_ratios,
    head_norm,
    init_norm_weight,
    previous_tokens,
    unit_ramp,
)
from lcprobe.models.token_context import TokenContext

SLOWEST = math.exp(-0.5)
"""Largest -log of a decay: no channel keeps less than exp(-exp(-1/2)) = 0.545 of its state per token."""
POWERS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
"""Exponents of the initial mixing vectors, in the order of `mix`."""


@dataclass(frozen=True)
class RWKV7Config(MixerConfig):
    """Heads, ranks and value residual of RWKV-7."""

    head_dim: int = 64
    """Channels per head, a divisor of d_model."""
    d_decay: int | None = None
    """Rank of the decay; null: 1.8 sqrt(d_model), to a multiple of 32."""
    d_rate: int | None = None
    """Rank of the in-context learning rate; null: 1.8 sqrt(d_model), to a multiple of 32."""
    d_value: int | None = None
    """Rank of the value residual; null: 1.3 sqrt(d_model), to a multiple of 32."""
    d_gate: int | None = None
    """Rank of the gate; null: 0.6 d_model^0.8, to a multiple of 32."""
    v_first: bool | None = None
    """Mix the values of every layer with those of the first rwkv7 layer; null: where there are at least two such
    layers."""
    chunk_size: int = 64
    """Tokens per chunk of the matrix form, a power of two. Changes speed and rounding only."""
    norm_eps: float = 64e-5
    """Epsilon of the norm per head, added to the variance."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1."""
        require(f"{at}.head_dim", self.head_dim, self.head_dim >= 1, ">= 1")
        for name in ("d_decay", "d_rate", "d_value", "d_gate"):
            rank = getattr(self, name)
            require(f"{at}.{name}", rank, rank is None or rank >= 1, ">= 1 or null")
        chunk = self.chunk_size
        require(f"{at}.chunk_size", chunk, chunk >= 1 and chunk & (chunk - 1) == 0, "a power of two")
        require(f"{at}.norm_eps", self.norm_eps, self.norm_eps > 0, "> 0")

    @property
    def carry_group(self) -> Hashable | None:
        """See MixerConfig."""
        return None if self.v_first is False else "v_first"

    def in_group(self, index: int, n_layers: int) -> Self:
        """See MixerConfig: values are mixed with the first layer's in all others. Raises ConfigError for a value
        residual that is asked for in a single layer."""
        if n_layers == 1 and self.v_first:
            raise ConfigError("v_first", True, "null or false with one rwkv7 layer, whose values are the first")
        return replace(self, v_first=True if index else None)

    def n_heads(self, d_model: int) -> int:
        """Number of heads. Raises ConfigError where they do not divide."""
        if d_model % self.head_dim:
            raise ConfigError("head_dim", self.head_dim, f"a divisor of d_model ({d_model})")
        return d_model // self.head_dim

    def ranks(self, d_model: int) -> dict[str, int]:
        """Ranks of the low-rank maps by name; without `value` where there is no value residual."""
        root = d_model**0.5
        wanted = {
            "decay": (self.d_decay, 1.8 * root),
            "rate": (self.d_rate, 1.8 * root),
            "value": (self.d_value, 1.3 * root),
            "gate": (self.d_gate, 0.6 * d_model**0.8),
        }
        if not self.v_first:
            del wanted["value"]
        return {name: max(32, round(usual / 32) * 32) if r is None else r for name, (r, usual) in wanted.items()}


class RWKV7(Mixer[RWKV7Config, RWKVState]):
    """RWKV-7's time mixing: a generalised delta rule with a decay per channel."""

    Config = RWKV7Config
    state_type = RWKVState
    no_decay = ("mix", "bonus")

    def __init__(self, config: RWKV7Config, d_model: int):
        super().__init__(config, d_model)
        self.config, self.n_heads = config, config.n_heads(d_model)
        ranks = config.ranks(d_model)
        self.mix = nn.Parameter(torch.empty(6, d_model))  # r, w, k, v, a, g
        self.decay_base = nn.Parameter(torch.empty(d_model))
        self.decay = LowRank(d_model, ranks["decay"], d_model, "tanh", orthogonal=True)
        self.rate_base = nn.Parameter(torch.empty(d_model))
        self.rate = LowRank(d_model, ranks["rate"], d_model, None, orthogonal=True)
        if config.v_first:
            self.first_base = nn.Parameter(torch.empty(d_model))
            self.first = LowRank(d_model, ranks["value"], d_model, None, orthogonal=True)
        self.gate = LowRank(d_model, ranks["gate"], d_model, "sigmoid", orthogonal=True)
        self.removal_key = nn.Parameter(torch.empty(d_model))
        self.key_rate = nn.Parameter(torch.empty(d_model))
        self.bonus = nn.Parameter(torch.empty(self.n_heads, config.head_dim))
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.norm_weight = nn.Parameter(torch.empty(d_model))
        self.norm_bias = nn.Parameter(torch.empty(d_model))
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: as in the release."""
        up, down = depth_ratios(self.depth)
        d, unit = value.shape[-1], unit_ramp(value.shape[-1])
        if name == "mix":
            for row, power in zip(value, POWERS.values(), strict=True):
                row.copy_(channel_ramp(d, power * down))
        elif name == "decay_base":
            value.copy_(-5.5 + 6 * unit ** (1 + up**0.3) + 2.5 * self._zigzag(d))
        elif name == "rate_base":
            value.copy_(-0.19 + 0.3 * self._zigzag(d) + 0.4 * (unit - 0.5))
        elif name == "first_base":
            value.copy_(0.73 - 0.4 * (unit - 0.5))
        elif name == "removal_key":
            value.copy_(0.71 - 0.1 * (unit - 0.5))
        elif name == "key_rate":
            value.fill_(1.02)
        elif name == "bonus":
            value.fill_(-0.04)
        elif name == "norm_weight":
            init_norm_weight(value, self.depth)
        elif name in ("receptance.weight", "value.weight"):
            nn.init.orthogonal_(value, generator=generator)
        elif name == "key.weight":
            nn.init.orthogonal_(value, 0.1, generator=generator)
        elif name in ("norm_bias", "out_proj.weight"):
            value.zero_()
        else:
            super().init_parameter(name, value, generator)

    def _zigzag(self, d: int) -> Tensor:
        """From -1 to 1 over the channels of every head, flat in the middle: (d,) float64."""
        ramp = (2 * unit_ramp(self.config.head_dim) - 1).repeat(d // self.config.head_dim)
        return ramp * ramp.abs()

    @property
    def carry_name(self) -> Hashable | None:
        """See Mixer: values of the first layer."""
        return self.config.carry_group

    def forward(
        self, x: Tensor, where: TokenContext, state: RWKVState | None = None
    ) -> tuple[Tensor, RWKVState | None]:
        """See Mixer."""
        return self.forward_with_carry(x, where, state, None)[:2]

    def forward_with_carry(
        self, x: Tensor, where: TokenContext, state: RWKVState | None, carry: Tensor | None
    ) -> tuple[Tensor, RWKVState | None, Tensor | None]:
        """See Mixer; the carry is v of the first layer, (batch, seqlen, d_model)."""
        difference = previous_tokens(x, where.starts, None if state is None else state.last) - x
        mixed = torch.addcmul(x, difference, self.mix.to(x.dtype)[:, None, None])  # (6, batch, seqlen, d_model)
        to_r, to_w, to_k, to_v, to_a, to_g = mixed.unbind()
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        heads = (self.n_heads, self.config.head_dim)

        log_decay = -SLOWEST * (self.decay_base + self.decay(to_w)).to(acc_dtype).sigmoid()
        rate = (self.rate_base + self.rate(to_a)).sigmoid()
        k, v = self.key(to_k), self.value(to_v)
        kappa = F.normalize((k * self.removal_key).unflatten(-1, heads), dim=-1)
        k = (k * (1 + (rate - 1) * self.key_rate)).to(k.dtype).unflatten(-1, heads)
        if self.config.v_first:
            assert carry is not None, "the first rwkv7 layer passes its values on"
            v = torch.lerp(v, carry.to(v.dtype), (self.first_base + self.first(to_v)).sigmoid().to(v.dtype))
        else:
            carry = v
        r, v = self.receptance(to_r).unflatten(-1, heads), v.unflatten(-1, heads)
        y, wkv = gated_linear_attention(
            r,
            k,
            v,
            log_decay.unflatten(-1, heads),
            a=-kappa,
            b=kappa * rate.unflatten(-1, heads),
            scale=1.0,
            initial_state=None if state is None else state.wkv,
            starts=where.starts,
            boundaries=where.boundaries,
            chunk_size=self.config.chunk_size,
            return_state=state is not None,
        )
        y = head_norm(y, self.norm_weight, self.norm_bias, self.config.norm_eps)
        y = y + ((r * k * self.bonus).sum(-1, keepdim=True) * v).flatten(2)
        y = self.out_proj((y * self.gate(to_g)).to(x.dtype))
        return y, None if wkv is None else RWKVState(wkv, x[:, -1]), carry

    def new_state(self, batch: int) -> RWKVState:
        """See Mixer."""
        return RWKVState.empty(batch, self.n_heads, self.config.head_dim, self.out_proj.weight)

    @staticmethod
    def cost(config: RWKV7Config, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        config.n_heads(d_model)
        hd, chunk, ranks = config.head_dim, config.chunk_size, config.ranks(d_model)
        matrices = 4 * d_model**2 + 2 * d_model * sum(ranks.values())
        # per channel: four causal score matrices, three of their products, the triangular solve; then states: k and
        # its correction written, read by r and by the correction, and the matrix that moves them across a chunk
        core = d_model * (9 * chunk + 10 * hd + 2 * hd**2 / chunk)
        params = matrices + (13 + int("value" in ranks)) * d_model  # mix, w_0, a_0, v_0, removal_key, ..., norm
        return Cost(params, 2 * matrices + core, 4 * d_model * (hd + 1), 0)
