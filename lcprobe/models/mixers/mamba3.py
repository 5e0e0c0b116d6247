"""Mamba-3 with single inputs and outputs (SISO): a rotated state, integrated by the trapezoidal rule (Lahoti et al.
2026, arXiv 2603.15569, propositions 1 and 4).

    z, x, B, C, dd_dt, dd_A, trap, angles = in_proj(u)
    dt = softplus(dd_dt + dt_bias)         A = -softplus(dd_A) or -heavy_tail(dd_A), at most -A_floor
    l = sigmoid(trap)                      theta_t = theta_{t-1} + pi dt_t tanh(angles_t)
    q, k = norm(C) + C_bias and norm(B) + B_bias, rotated by theta
    S_t = exp(A_t dt_t) (S_{t-1} + (1 - l_t) dt_t k_{t-1} x_{t-1}^T) + l_t dt_t k_t x_t^T
    y_t = q_t^T S_t + D x_t                out = out_proj(y * silu(z))

per head, S: (d_state, head_dim). theta, k_{t-1}, x_{t-1} and S begin anew with every document. heavy_tail(x) is 1 + x
from 0 on and 1 / (1 - x) below.

Parameters, projection order, initial values and rotation (neighbouring channels, of the first rope_fraction) are
those of state-spaces/mamba (modules/mamba3.py) and of flash-linear-attention (layers/mamba3.py), which need a GPU.
Two releases with equal names and shapes compute different functions, so `definition` has no default: softplus in
PyPI's mamba-ssm 2.3.2 and flash-linear-attention 0.6.0, heavy_tail in mamba from June 2026 on. Multiple inputs and
outputs (MIMO) are not implemented.

What token t + 1 adds for token t is written together with token t's own term, with s_t = l_t dt_t + (1 - l_{t+1})
dt_{t+1}, so that every token writes one key and value:

    S'_t = S_t + (1 - l_{t+1}) dt_{t+1} k_t x_t^T = exp(A_t dt_t) S'_{t-1} + s_t k_t x_t^T
    y_t = exp(A_t dt_t) q_t^T S'_{t-1} + (l_t dt_t q_t^T k_t + D) x_t

which `lcprobe_kernels.gated_linear_attention` computes in chunks; y_t reads nothing of later tokens. Differences:
theta is accumulated in float64; decays and states are float32 under mixed precision.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from lcprobe_kernels.backends import without_autocast
from lcprobe_kernels.errors import check_first
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from lcprobe_kernels.rms_norm import rms_norm
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, nearest_name, require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.parameters import init_step_bias
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import Converter


def heavy_tail(x: Tensor) -> Tensor:
    """1 + x from 0 on, 1 / (1 - x) below: positive, with a slope without a jump at 0."""
    return F.relu(x) + 1.0 / (1.0 - x.clamp_max(0.0))


RATES = {"softplus": F.softplus, "heavy_tail": heavy_tail}
"""-A of dd_A, by definition."""


class _Definition(Converter):
    """A name from RATES; errors tell the releases apart."""

    def convert(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or value not in RATES:
            raise ConfigError(key, value, self.allowed(), nearest_name(value, RATES))
        return value

    def allowed(self) -> str:
        return "softplus (mamba-ssm 2.3.2, flash-linear-attention 0.6.0) | heavy_tail (mamba from June 2026)"


@dataclass(frozen=True)
class Mamba3Config(MixerConfig):
    """Definition and shape of Mamba-3's state, and the range of its step sizes."""

    definition: Annotated[str, _Definition()]
    """How decays are computed. Two releases with equal tensors differ in it, so it must be set."""
    d_state: int = 128
    """State size per channel: the width of B and C."""
    expand: float = 2.0
    """Ratio of the inner width to d_model."""
    head_dim: int = 64
    """Channels per head, which share one decay."""
    n_groups: int = 1
    """Number of groups of heads, each with its own B and C."""
    rope_fraction: float = 0.5
    """Fraction of B's and C's channels that rotate."""
    A_floor: float = 1e-4
    """Smallest -A."""
    dt_min: float = 0.001
    """Smallest step size at initialisation (log-uniform)."""
    dt_max: float = 0.1
    """Largest step size at initialisation (log-uniform)."""
    dt_init_floor: float = 1e-4
    """Lower bound of initial step sizes."""
    output_norm: bool = False
    """Norm each head's outputs before the gate, as released hybrids do."""
    chunk_size: int = 64
    """Tokens per chunk of the matrix form, a power of two. Changes speed and rounding only."""
    norm_eps: float = 1e-5
    """Epsilon of the norms, added to the mean square."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1, fractions beyond 1 and empty ranges."""
        for name in ("d_state", "head_dim", "n_groups"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 1, ">= 1")
        for name in ("expand", "A_floor", "dt_init_floor", "norm_eps"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) > 0, "> 0")
        rotates = self.rope_fraction <= 1 and self.n_angles >= 1
        allowed = f"a fraction up to 1 of which two channels or more rotate (d_state {self.d_state})"
        require(f"{at}.rope_fraction", self.rope_fraction, rotates, allowed)
        require(f"{at}.dt_min", self.dt_min, 0 < self.dt_min <= self.dt_max, f"0 < dt_min <= dt_max ({self.dt_max})")
        chunk = self.chunk_size
        require(f"{at}.chunk_size", chunk, chunk >= 1 and chunk & (chunk - 1) == 0, "a power of two")

    @property
    def n_angles(self) -> int:
        """Rotated pairs of channels."""
        return int(self.d_state * self.rope_fraction) // 2

    def widths(self, d_model: int) -> tuple[int, int, list[int]]:
        """(d_inner, n_heads, widths of in_proj's parts). Raises ConfigError where heads or groups do not divide."""
        d_inner = int(self.expand * d_model)
        if d_inner % self.head_dim or not d_inner:
            raise ConfigError("head_dim", self.head_dim, f"a divisor of expand x d_model ({d_inner})")
        n_heads, shared = d_inner // self.head_dim, self.n_groups * self.d_state
        if n_heads % self.n_groups:
            raise ConfigError("n_groups", self.n_groups, f"a divisor of the number of heads ({n_heads})")
        return d_inner, n_heads, [d_inner, d_inner, shared, shared, n_heads, n_heads, n_heads, self.n_angles]


@dataclass(frozen=True)
class Mamba3State(State):
    """memory: (batch, n_heads, d_state, head_dim), float32 or wider; angles: (batch, n_heads, n_angles), theta modulo
    2 pi in float64; key: (batch, n_heads, d_state), rotated, and value: (batch, n_heads, head_dim): those of the last
    token, of memory's dtype."""

    recurrent = ("memory",)

    memory: Tensor
    angles: Tensor
    key: Tensor
    value: Tensor


class Mamba3(Mixer[Mamba3Config, Mamba3State]):
    """A state-space model whose state rotates, integrated by the trapezoidal rule; one decay per head."""

    Config = Mamba3Config
    state_type = Mamba3State
    no_decay = ("B_bias", "C_bias")

    def __init__(self, config: Mamba3Config, d_model: int):
        super().__init__(config, d_model)
        self.config = config
        self.d_inner, self.n_heads, self.parts = config.widths(d_model)
        self.in_proj = nn.Linear(d_model, sum(self.parts), bias=False)
        self.dt_bias = nn.Parameter(torch.empty(self.n_heads))
        self.B_bias = nn.Parameter(torch.empty(self.n_heads, config.d_state))
        self.C_bias = nn.Parameter(torch.empty(self.n_heads, config.d_state))
        self.B_norm_weight = nn.Parameter(torch.empty(config.d_state))
        self.C_norm_weight = nn.Parameter(torch.empty(config.d_state))
        self.D = nn.Parameter(torch.empty(self.n_heads))
        self.norm_weight = nn.Parameter(torch.empty(self.d_inner)) if config.output_norm else None
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised; the released values."""
        c = self.config
        if name == "dt_bias":
            init_step_bias(value, c.dt_min, c.dt_max, generator, c.dt_init_floor)
        elif name in ("B_bias", "C_bias", "B_norm_weight", "C_norm_weight", "D", "norm_weight"):
            value.fill_(1.0)
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: Mamba3State | None = None
    ) -> tuple[Tensor, Mamba3State | None]:
        """See Mixer. Raises ArgumentError for no tokens."""
        check_first("mamba3", "x", x, ("batch", "seqlen", "d_model"))
        z, v, b, c, dd_dt, dd_a, trap, angles = self.in_proj(x).split(self.parts, dim=-1)
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):
            v = v.unflatten(-1, (self.n_heads, self.config.head_dim)).to(acc_dtype)
            dt = F.softplus(dd_dt.to(acc_dtype) + self.dt_bias.to(acc_dtype))  # (batch, seqlen, n_heads)
            rate = RATES[self.config.definition](dd_a.to(acc_dtype)).clamp_min(self.config.A_floor)
            here = (
                trap.to(acc_dtype).sigmoid() * dt
            )  # the token's own share of its step; the rest is its predecessor's
            theta = self.theta(angles, dt, where, None if state is None else state.angles)
            q = self.of_heads(c, self.C_norm_weight, self.C_bias)
            k = self.of_heads(b, self.B_norm_weight, self.B_bias)
            own = here * (q * k).sum(-1)  # rotation leaves it
            cos, sin = (turn(theta.to(acc_dtype)) for turn in (torch.cos, torch.sin))
            q, k = rotated(q, cos, sin), rotated(k, cos, sin)
            before = dt - here  # the share of the token before
            memory = None
            if state is not None:
                earlier = before[:, 0, :, None, None] * state.key[..., None] * state.value[:, :, None]
                memory = state.memory + earlier
            scale = here + F.pad(before[:, 1:], (0, 0, 0, 1))
            y, memory = gated_linear_attention(
                q * (-rate * dt).exp()[..., None],
                k * scale[..., None],
                v,
                (-rate * dt)[..., None],
                bonus=torch.zeros_like(self.B_bias),  # reads the state before the token
                scale=1.0,
                initial_state=memory,
                starts=where.starts,
                boundaries=where.boundaries,
                chunk_size=self.config.chunk_size,
                return_state=state is not None,
            )
            y = torch.addcmul(y, (own + self.D.to(acc_dtype))[..., None], v)
        y = y.flatten(2).to(x.dtype)
        if self.norm_weight is not None:
            y = rms_norm(y, self.norm_weight, self.config.norm_eps, n_groups=self.n_heads)
        after = None if memory is None else Mamba3State(memory, theta[:, -1], k[:, -1], v[:, -1])
        return self.out_proj(y * F.silu(z)), after

    def of_heads(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """B or C of every head, (batch, seqlen, n_heads, d_state) in float32 or wider, before rotation. x: (batch,
        seqlen, n_groups x d_state)."""
        normed = rms_norm(x.unflatten(-1, (self.config.n_groups, -1)), weight, self.config.norm_eps)
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        biases = bias.to(acc_dtype).unflatten(0, (self.config.n_groups, -1))
        return (normed.to(acc_dtype)[:, :, :, None] + biases).flatten(2, 3)

    def theta(self, angles: Tensor, dt: Tensor, where: TokenContext, before: Tensor | None) -> Tensor:
        """theta modulo 2 pi in float64, (batch, seqlen, n_heads, n_angles), counted from each document's first token.

        angles: (batch, seqlen, n_angles); dt: (batch, seqlen, n_heads); before: theta of the previous token.
        """
        turns = (math.pi * dt.double())[..., None] * angles.double().tanh()[:, :, None]
        total = turns.cumsum(1) if before is None else turns.cumsum(1) + before[:, None]
        if where.starts is not None:
            index = where.once("first token of the document, -1 before the chunk", lambda: _first(where))
            first = index.clamp_min(0)[..., None, None].expand_as(total)
            total = total - (total - turns).gather(1, first).where(index[..., None, None] >= 0, 0.0)
        return total.remainder(2 * math.pi)

    def new_state(self, batch: int) -> Mamba3State:
        """See Mixer."""
        weight, c = self.out_proj.weight, self.config
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        zeros = lambda *size, dtype=acc_dtype: torch.zeros(  # noqa: E731
            batch, self.n_heads, *size, dtype=dtype, device=weight.device
        )
        return Mamba3State(
            zeros(c.d_state, c.head_dim), zeros(c.n_angles, dtype=torch.float64), zeros(c.d_state), zeros(c.head_dim)
        )

    @staticmethod
    def cost(config: Mamba3Config, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        d_inner, n_heads, parts = config.widths(d_model)
        d_k, d_v = config.d_state, config.head_dim
        matrices = d_model * (sum(parts) + d_inner)
        params = matrices + 2 * n_heads * (1 + d_k) + 2 * d_k + (d_inner if config.output_norm else 0)
        # per head: the causal halves of scores and of their product with values; writing and reading states
        core = config.chunk_size * (d_k + d_v) + 4 * d_k * d_v
        state_bytes = 4 * n_heads * (d_k * d_v + d_k + d_v) + 8 * n_heads * config.n_angles
        return Cost(params, 2 * matrices + n_heads * core, state_bytes, 0)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: (..., d_state), whose first channels are rotated in neighbouring pairs by angles (..., n_angles)."""
    pairs, rest = x[..., : 2 * cos.shape[-1]].unflatten(-1, (-1, 2)), x[..., 2 * cos.shape[-1] :]
    one, other = pairs.unbind(-1)
    turned = torch.stack([one * cos - other * sin, one * sin + other * cos], dim=-1).flatten(-2)
    return torch.cat([turned, rest], dim=-1)


def _first(where: TokenContext) -> Tensor:
    """Index in the chunk of the first token of each token's document, -1 where that is in an earlier chunk, (batch,
    seqlen)."""
    assert where.starts is not None
    index = torch.arange(where.starts.shape[1], device=where.starts.device)
    return torch.where(where.starts, index, -1).cummax(1).values
