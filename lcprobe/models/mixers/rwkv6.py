"""RWKV-6 "Finch": linear attention with a decay per channel that depends on the token (Peng et al. 2024, arXiv
2404.05892).

    x'_t = x_{t-1} - x_t                                       token shift, x_{t-1} = 0 at a document's first token
    m_t = tanh((x_t + mix_x * x'_t) mix_down) mix_up           five low-rank corrections, for w, k, v, r, g
    z^i_t = x_t + (mix^i + m^i_t) * x'_t                       the input of each of the five
    r, k, v = receptance(z^r), key(z^k), value(z^v)            w_t = exp(-exp(decay_base + tanh(z^w down) up))
    S_t = diag(w_t) S_{t-1} + k_t v_t^T                        o_t = r_t^T (S_{t-1} + diag(bonus) k_t v_t^T)
    y = out_proj(group_norm(o) * silu(gate(z^g)))

Shapes, initial values and the norm's epsilon are those of BlinkDL/RWKV-LM (RWKV-v5/src/model.py, x060). Differences:
the five mixing vectors are one parameter, exponents of the decay end at 10, where w is 0 in every float format, and
decay_base, which the release trains at twice the learning rate, is trained at that of all other parameters.
"""

from dataclasses import dataclass
from typing import Self

import torch
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.rwkv_parts import (
    LowRank,
    channel_ramp,
    depth_ratios,
    head_norm,
    init_norm_weight,
    previous_tokens,
    unit_ramp,
)
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

MAX_EXPONENT = 10.0
"""exp(-exp(10)) is 0 even in float64, so a bound there changes neither values nor gradients, and exp never
overflows."""


@dataclass(frozen=True)
class RWKV6Config(MixerConfig):
    """Heads and ranks of RWKV-6."""

    head_dim: int = 64
    """Channels per head, a divisor of d_model."""
    d_mix: int | None = None
    """Rank of each of the five corrections to the token shift; null: 32 as released, at most d_model / 8."""
    d_decay: int | None = None
    """Rank of the correction to the decay; null: 64 as released, at most d_model / 4."""
    chunk_size: int = 64
    """Tokens per chunk of the matrix form, a power of two. Changes speed and rounding only."""
    norm_eps: float = 64e-5
    """Epsilon of the norm per head, added to the variance."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1."""
        require(f"{at}.head_dim", self.head_dim, self.head_dim >= 1, ">= 1")
        for name in ("d_mix", "d_decay"):
            rank = getattr(self, name)
            require(f"{at}.{name}", rank, rank is None or rank >= 1, ">= 1 or null")
        chunk = self.chunk_size
        require(f"{at}.chunk_size", chunk, chunk >= 1 and chunk & (chunk - 1) == 0, "a power of two")
        require(f"{at}.norm_eps", self.norm_eps, self.norm_eps > 0, "> 0")

    def n_heads(self, d_model: int) -> int:
        """Number of heads. Raises ConfigError where they do not divide."""
        if d_model % self.head_dim:
            raise ConfigError("head_dim", self.head_dim, f"a divisor of d_model ({d_model})")
        return d_model // self.head_dim

    def ranks(self, d_model: int) -> tuple[int, int]:
        """(d_mix, d_decay) at this width."""
        d_mix = max(1, min(32, d_model // 8)) if self.d_mix is None else self.d_mix
        return d_mix, max(1, min(64, d_model // 4)) if self.d_decay is None else self.d_decay


@dataclass(frozen=True)
class RWKVState(State):
    """wkv: (batch, n_heads, head_dim of keys, head_dim of values), float32 or wider; last: (batch, d_model), the last
    input."""

    recurrent = ("wkv",)

    wkv: Tensor
    last: Tensor

    @classmethod
    def empty(cls, batch: int, n_heads: int, head_dim: int, weight: Tensor) -> Self:
        """The state before a sequence's first token. weight: (d_model, ...), for device and dtype."""
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        wkv = torch.zeros(batch, n_heads, head_dim, head_dim, dtype=acc_dtype, device=weight.device)
        return cls(wkv, weight.new_zeros(batch, weight.shape[0]))


class RWKV6(Mixer[RWKV6Config, RWKVState]):
    """RWKV-6's time mixing: linear attention with a decay per channel that depends on the token."""

    Config = RWKV6Config
    state_type = RWKVState
    no_decay = ("mix", "mix_down", "mix_up", "bonus")

    def __init__(self, config: RWKV6Config, d_model: int):
        super().__init__(config, d_model)
        self.config, self.n_heads = config, config.n_heads(d_model)
        d_mix, d_decay = config.ranks(d_model)
        self.mix_x = nn.Parameter(torch.empty(d_model))
        self.mix = nn.Parameter(torch.empty(5, d_model))  # w, k, v, r, g
        self.mix_down = nn.Parameter(torch.empty(d_model, 5 * d_mix))
        self.mix_up = nn.Parameter(torch.empty(5, d_mix, d_model))
        self.decay_base = nn.Parameter(torch.empty(d_model))
        self.decay = LowRank(d_model, d_decay, d_model, "tanh", orthogonal=False)
        self.bonus = nn.Parameter(torch.empty(self.n_heads, config.head_dim))
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.norm_weight = nn.Parameter(torch.empty(d_model))
        self.norm_bias = nn.Parameter(torch.empty(d_model))
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: as in the release."""
        down, up = depth_ratios(self.depth)[::-1]  # 1 to almost 0, 0 to 1
        d = value.shape[-1]
        if name == "mix_x":
            value.copy_(channel_ramp(d, down))
        elif name == "mix":
            for row, power in zip(value, (down, down, down, down / 2, down / 2), strict=True):
                row.copy_(channel_ramp(d, power))
            value[2] -= 0.3 * up
        elif name == "mix_up":
            value.uniform_(-0.01, 0.01, generator=generator)
        elif name == "decay_base":
            value.copy_(-6 + 5 * unit_ramp(d) ** (0.7 + 1.3 * up))
        elif name == "bonus":
            zigzag = (torch.arange(1, value.numel() + 1) % 3 - 1) * 0.1
            value.copy_((up * (1 - unit_ramp(value.numel())) + zigzag).view(value.shape))
        elif name == "norm_weight":
            init_norm_weight(value, self.depth)
        elif name in ("receptance.weight", "value.weight"):
            nn.init.orthogonal_(value, generator=generator)
        elif name in ("key.weight", "gate.weight"):
            nn.init.orthogonal_(value, 0.1, generator=generator)
        elif name in ("mix_down", "norm_bias", "out_proj.weight"):
            value.zero_()
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: RWKVState | None = None
    ) -> tuple[Tensor, RWKVState | None]:
        """See Mixer."""
        to_w, to_k, to_v, to_r, to_g = self._shifted(x, where, state)
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        exponent = (self.decay(to_w).to(acc_dtype) + self.decay_base.to(acc_dtype)).clamp_max(MAX_EXPONENT)
        heads = (self.n_heads, self.config.head_dim)
        y, wkv = gated_linear_attention(
            self.receptance(to_r).unflatten(-1, heads),
            self.key(to_k).unflatten(-1, heads),
            self.value(to_v).unflatten(-1, heads),
            -exponent.exp().unflatten(-1, heads),
            bonus=self.bonus,
            scale=1.0,
            initial_state=None if state is None else state.wkv,
            starts=where.starts,
            boundaries=where.boundaries,
            chunk_size=self.config.chunk_size,
            return_state=state is not None,
        )
        y = head_norm(y, self.norm_weight, self.norm_bias, self.config.norm_eps)
        y = self.out_proj((y * F.silu(self.gate(to_g))).to(x.dtype))
        return y, None if wkv is None else RWKVState(wkv, x[:, -1])

    def _shifted(self, x: Tensor, where: TokenContext, state: RWKVState | None) -> tuple[Tensor, ...]:
        """The inputs of decay, key, value, receptance and gate: five interpolations between a token and the one
        before it."""
        difference = previous_tokens(x, where.starts, None if state is None else state.last) - x
        low = torch.addcmul(x, difference, self.mix_x.to(x.dtype)) @ self.mix_down
        low = low.tanh().flatten(0, 1).unflatten(-1, (5, -1)).transpose(0, 1)  # (5, batch x seqlen, d_mix)
        weights = torch.baddbmm(self.mix[:, None].to(low.dtype), low, self.mix_up.to(low.dtype))
        return torch.addcmul(x, difference, weights.to(x.dtype).view(5, *x.shape)).unbind()

    def new_state(self, batch: int) -> RWKVState:
        """See Mixer."""
        return RWKVState.empty(batch, self.n_heads, self.config.head_dim, self.out_proj.weight)

    @staticmethod
    def cost(config: RWKV6Config, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        config.n_heads(d_model)
        d_mix, d_decay = config.ranks(d_model)
        matrices = 5 * d_model**2 + 2 * d_model * (5 * d_mix + d_decay)
        # the causal halves of r k^T and of its product with v; then writing and reading states
        core = 2 * config.chunk_size * d_model + 4 * d_model * config.head_dim
        params = matrices + 10 * d_model  # mix_x, mix, decay_base, bonus, norm
        return Cost(params, 2 * matrices + core, 4 * d_model * (config.head_dim + 1), 0)
