"""Mamba: a selective state-space mixer with a diagonal state per channel, S6 (Gu & Dao 2023, arXiv 2312.00752).

    u, z = in_proj(x)            u = silu(conv(u))              r, B, C = x_proj(u)
    dt = softplus(dt_proj(r))    A = -exp(A_log)                per channel c and state n:
    h_t[c, n] = exp(dt_t[c] A[c, n]) h_{t-1}[c, n] + dt_t[c] B_t[n] u_t[c]
    y_t[c] = sum_n C_t[n] h_t[c, n] + D[c] u_t[c]               out = out_proj(y * silu(z))

Projection orders and initial values are those of the published family (state-spaces/mamba, modules/mamba_simple.py);
with the same weights it equals transformers' Mamba. Shapes there: expand 2, d_state 16, dt_rank d_model / 16, a model
of these layers alone, without MLPs.

The recurrence is a scan (`lcprobe_kernels.linear_recurrence`) over chunks of the sequence, where transformers loops
over tokens. Backward repeats a chunk's forward pass, so that memory holds (tokens of a chunk x channels x d_state)
numbers, not all of them. Step sizes, decays and states are float32 under mixed precision.
"""

import math
from dataclasses import dataclass

import torch
from lcprobe_kernels.backends import on_cpu, without_autocast
from lcprobe_kernels.causal_conv1d import causal_conv1d
from lcprobe_kernels.linear_recurrence import linear_recurrence
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lcprobe.errors import ConfigError, require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.parameters import init_convolution, init_step_bias
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

CPU_CHUNK, GPU_CHUNK = 1 << 21, 1 << 26
"""Numbers of h in all rows of a chunk by default: on a CPU 8 MB in float32, since larger chunks leave the cache; on a
GPU 256 MB, so that a sequence takes few launches."""


@dataclass(frozen=True)
class Mamba1Config(MixerConfig):
    """Shape of Mamba's state, and the range of its step sizes."""

    d_state: int = 16
    """State size per channel."""
    d_conv: int = 4
    """Width of the causal convolution, tokens."""
    expand: float = 2.0
    """Ratio of the inner width to d_model."""
    dt_rank: int | None = None
    """Width of the projection that step sizes are computed from; null: d_model / 16, rounded up."""
    chunk_size: int | None = None
    """Tokens per chunk of the scan; null: by memory. Changes speed, memory and rounding only."""
    dt_min: float = 0.001
    """Smallest step size at initialisation (log-uniform)."""
    dt_max: float = 0.1
    """Largest step size at initialisation (log-uniform)."""
    dt_init_floor: float = 1e-4
    """Lower bound of initial step sizes."""
    conv_bias: bool = True
    """Use a bias in the convolution."""
    bias: bool = False
    """Use biases in the input and output projections."""
    input_norm_eps: float | None = None
    """Epsilon of an RMSNorm without weights over each of r, B and C (FalconMamba, arXiv 2410.05355); null: no
    norms."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1 and an empty range."""
        for name in ("dt_rank", "chunk_size"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or value >= 1, ">= 1 or null")
        require(f"{at}.d_state", self.d_state, self.d_state >= 1, ">= 1")
        require(f"{at}.d_conv", self.d_conv, self.d_conv >= 2, ">= 2")
        require(f"{at}.expand", self.expand, self.expand > 0, "> 0")
        require(f"{at}.dt_min", self.dt_min, 0 < self.dt_min <= self.dt_max, f"0 < dt_min <= dt_max ({self.dt_max})")
        eps = self.input_norm_eps
        require(f"{at}.input_norm_eps", eps, eps is None or eps > 0, "> 0 or null")
        require(f"{at}.dt_init_floor", self.dt_init_floor, self.dt_init_floor > 0, "> 0")

    def widths(self, d_model: int) -> tuple[int, int]:
        """(d_inner, rank of the step sizes). Raises ConfigError for an empty d_inner."""
        d_inner = int(self.expand * d_model)
        if not d_inner:
            raise ConfigError("expand", self.expand, f"at least 1 / d_model (1 / {d_model})")
        return d_inner, math.ceil(d_model / 16) if self.dt_rank is None else self.dt_rank


@dataclass(frozen=True)
class Mamba1State(State):
    """ssm: (batch, d_state, d_inner), float32 or wider; conv: (batch, d_conv - 1, d_inner), last inputs of the
    convolution."""

    recurrent = ("ssm",)

    ssm: Tensor
    conv: Tensor


class Mamba1(Mixer[Mamba1Config, Mamba1State]):
    """S6: a selective diagonal state-space model, d_state numbers per channel."""

    Config = Mamba1Config
    state_type = Mamba1State
    no_decay = ("conv_weight", "A_log")

    def __init__(self, config: Mamba1Config, d_model: int):
        super().__init__(config, d_model)
        self.config = config
        self.d_inner, self.dt_rank = config.widths(d_model)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=config.bias)
        self.conv_weight = nn.Parameter(torch.empty(self.d_inner, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(self.d_inner)) if config.conv_bias else None
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, config.d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=config.bias)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised; the released values."""
        c = self.config
        if name == "dt_proj.bias":
            init_step_bias(value, c.dt_min, c.dt_max, generator, c.dt_init_floor)
        elif name == "A_log":
            value.copy_(torch.arange(1, c.d_state + 1, dtype=value.dtype).log().expand_as(value))
        elif name == "D":
            value.fill_(1.0)
        elif name in ("conv_weight", "conv_bias"):
            init_convolution(value, c.d_conv, generator)
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: Mamba1State | None = None
    ) -> tuple[Tensor, Mamba1State | None]:
        """See Mixer."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u, conv = causal_conv1d(
            u,
            self.conv_weight,
            self.conv_bias,
            silu=True,
            initial_state=None if state is None else state.conv,
            starts=where.starts,
            return_state=state is not None,
        )
        y, ssm = self.scanned(u, where.starts, None if state is None else state.ssm)
        y = self.out_proj(y.to(x.dtype) * F.silu(z))
        return y, None if state is None or conv is None else Mamba1State(ssm, conv)

    @torch.compiler.disable(reason="loops over chunks, whose number depends on the length")
    def scanned(self, u: Tensor, starts: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """u: (batch, seqlen, d_inner), after the convolution; h: (batch, d_state, d_inner), None: zero -> y like u in
        float32 or wider, and the next h."""
        acc_dtype = torch.promote_types(u.dtype, torch.float32)
        r, b, c = self.x_proj(u).split([self.dt_rank, self.config.d_state, self.config.d_state], dim=-1)
        if self.config.input_norm_eps is not None:
            r, b, c = (_normed(t, self.config.input_norm_eps) for t in (r, b, c))
        dt = F.linear(r, self.dt_proj.weight)
        with without_autocast(u.device):
            dt = F.softplus(dt.to(acc_dtype) + self.dt_proj.bias.to(acc_dtype))
            u, b, c = u.to(acc_dtype), b.to(acc_dtype), c.to(acc_dtype)
            a = -self.A_log.to(acc_dtype).exp().T.contiguous()
            h = u.new_zeros(u.shape[0], self.config.d_state, self.d_inner) if h is None else h
            y, h = _by_chunks(u, dt, a, b, c, h, starts, self._tokens_per_chunk(u))
            return torch.addcmul(y, u, self.D.to(acc_dtype)), h

    def _tokens_per_chunk(self, u: Tensor) -> int:
        if self.config.chunk_size is not None:
            return self.config.chunk_size
        numbers = CPU_CHUNK if on_cpu(u.device) else GPU_CHUNK
        return max(1, numbers // (max(1, u.shape[0]) * self.d_inner * self.config.d_state))

    def new_state(self, batch: int) -> Mamba1State:
        """See Mixer."""
        weight, c = self.out_proj.weight, self.config
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        ssm = torch.zeros(batch, c.d_state, self.d_inner, dtype=acc_dtype, device=weight.device)
        return Mamba1State(ssm, weight.new_zeros(batch, c.d_conv - 1, self.d_inner))

    @staticmethod
    def cost(config: Mamba1Config, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        d_inner, rank = config.widths(d_model)
        matrices = 3 * d_model * d_inner + d_inner * (rank + 2 * config.d_state) + rank * d_inner
        params = matrices + d_inner * (config.d_conv + int(config.conv_bias) + config.d_state + 2)
        params += (2 * d_inner + d_model) if config.bias else 0
        # per number of the state: dt A, exp, dt u B, and two multiply-adds, with the decay and with C
        flops = 2 * matrices + 7 * d_inner * config.d_state + 2 * config.d_conv * d_inner
        return Cost(params, flops, 4 * d_inner * config.d_state + 4 * (config.d_conv - 1) * d_inner, 0)


@torch.compiler.disable(reason="loops over chunks, whose number depends on the length")
def _normed(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without a weight, in float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.rms_norm(wide, x.shape[-1:], eps=eps).to(x.dtype)


def _by_chunks(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor, starts: Tensor | None, size: int
) -> tuple[Tensor, Tensor]:
    """`_chunk` over all chunks of `size` tokens, each done again in the backward pass."""
    parts = []
    for lo in range(0, u.shape[1], size):
        at = slice(lo, lo + size)
        inputs = (u[:, at], dt[:, at], a, b[:, at], c[:, at], h, None if starts is None else starts[:, at])
        if torch.is_grad_enabled():
            y, h = checkpoint(_chunk, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _chunk(*inputs)
        parts.append(y)
    return torch.cat(parts, dim=1), h


def _chunk(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """u, dt: (batch, q, d_inner); a: (d_state, d_inner); b, c: (batch, q, d_state); h: (batch, d_state, d_inner) ->
    y without D u, like u, and h after the chunk."""
    log_a, written = dt[:, :, None] * a, b[..., None] * (dt * u)[:, :, None]
    states, last = linear_recurrence(
        log_a.flatten(2), written.flatten(2), initial_state=h.flatten(1), starts=starts, return_state=True
    )
    assert last is not None
    return (c[:, :, None] @ states.view_as(log_a)).squeeze(2), last.view_as(h)
