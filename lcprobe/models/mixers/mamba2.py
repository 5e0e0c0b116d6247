"""Mamba2: a gated state-space mixer with one scalar decay per head (Dao & Gu 2024, arXiv 2405.21060, sec. 7).

    z, xBC, dt = in_proj(u)      x, B, C = silu(conv(xBC))      y = ssd(x, dt, A, B, C, D)
    out = out_proj(rms_norm(y * silu(z)))

Projection order [z, x, B, C, dt], initialisation and norm placement are those of the published family
(state-spaces/mamba, modules/mamba2.py). Difference: the state between chunks is float32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from lcprobe_kernels.causal_conv1d import causal_conv1d
from lcprobe_kernels.rms_norm import rms_norm
from lcprobe_kernels.ssd import ssd
from torch import Tensor, distributed, nn

from lcprobe.errors import ConfigError, require
from lcprobe.models.context_parallel.recurrences import inputs_before, ssd_over
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig, Scan
from lcprobe.models.parameters import init_convolution, init_step_bias
from lcprobe.models.state import State
from lcprobe.models.tensor_parallel.layers import divided_rms_norm
from lcprobe.models.tensor_parallel.split import Section, Share, Split, heads
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class Mamba2Config(MixerConfig):
    """Shape of Mamba2's state, and the range of its step sizes and decays."""

    d_state: int = 128
    """State size per channel."""
    d_conv: int = 4
    """Width of the causal convolution over x, B, C, tokens."""
    expand: float = 2.0
    """Ratio of the inner width to d_model."""
    head_dim: int = 64
    """Channels per head, which share one decay."""
    n_groups: int = 1
    """Number of groups of heads, each with its own B and C."""
    chunk_size: int | None = None
    """Tokens per chunk of the matrix form; null: fast on the device. Changes speed and rounding only."""
    A_init_range: tuple[float, float] = (1.0, 16.0)
    """Range of -A at initialisation (uniform)."""
    dt_min: float = 0.001
    """Smallest step size at initialisation (log-uniform)."""
    dt_max: float = 0.1
    """Largest step size at initialisation (log-uniform)."""
    dt_init_floor: float = 1e-4
    """Lower bound of initial step sizes."""
    dt_limit: tuple[float, float | None] = (0.0, None)
    """Range to which step sizes are clamped after softplus; null: no upper bound."""
    conv_bias: bool = True
    """Use a bias in the convolution."""
    bias: bool = False
    """Use biases in the projections."""
    norm_eps: float = 1e-5
    """Epsilon of the gated norm, added to the mean square."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1 and empty ranges."""
        require(f"{at}.chunk_size", self.chunk_size, self.chunk_size is None or self.chunk_size >= 1, ">= 1 or null")
        for name in ("d_state", "head_dim", "n_groups"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 1, ">= 1")
        require(f"{at}.d_conv", self.d_conv, self.d_conv >= 2, ">= 2")
        for name in ("expand", "dt_init_floor", "norm_eps"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) > 0, "> 0")
        require(f"{at}.dt_min", self.dt_min, 0 < self.dt_min <= self.dt_max, f"0 < dt_min <= dt_max ({self.dt_max})")
        low, high = self.A_init_range
        require(f"{at}.A_init_range", list(self.A_init_range), 0 < low <= high, "0 < low <= high")
        low, high = self.dt_limit
        require(f"{at}.dt_limit", list(self.dt_limit), low >= 0 and (high is None or low <= high), "0 <= low <= high")

    def widths(self, d_model: int) -> tuple[int, int, int]:
        """(d_inner, n_heads, convolved channels). Raises ConfigError where heads or groups do not divide."""
        d_inner = int(self.expand * d_model)
        if d_inner % self.head_dim:
            raise ConfigError("head_dim", self.head_dim, f"a divisor of expand x d_model ({d_inner})")
        n_heads = d_inner // self.head_dim
        if n_heads % self.n_groups:
            raise ConfigError("n_groups", self.n_groups, f"a divisor of the number of heads ({n_heads})")
        return d_inner, n_heads, d_inner + 2 * self.n_groups * self.d_state


@dataclass(frozen=True)
class Mamba2State(State):
    """ssm: (batch, n_heads, head_dim, d_state), float32 or wider, or the state of an extension's scan; conv: (batch,
    d_conv - 1, channels), last inputs of the convolution."""

    recurrent = ("ssm",)

    ssm: Tensor | State
    conv: Tensor


class Mamba2(Mixer[Mamba2Config, Mamba2State]):
    """SSD: a selective state-space model with one scalar decay per head, a matrix of state per head."""

    Config = Mamba2Config
    state_type = Mamba2State
    no_decay = ("conv_weight",)

    def __init__(self, config: Mamba2Config, d_model: int):
        super().__init__(config, d_model)
        self.config = config
        self.scan: Scan = ssd
        self.norm_group: distributed.ProcessGroup | None = None  # the processes that have parts of the norm's width
        self.d_inner, self.n_heads, self.d_xbc = config.widths(d_model)
        self.in_proj = nn.Linear(d_model, self.d_inner + self.d_xbc + self.n_heads, bias=config.bias)
        self.conv_weight = nn.Parameter(torch.empty(self.d_xbc, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(self.d_xbc)) if config.conv_bias else None
        self.dt_bias = nn.Parameter(torch.empty(self.n_heads))
        self.A_log = nn.Parameter(torch.empty(self.n_heads))
        self.D = nn.Parameter(torch.empty(self.n_heads))
        self.norm_weight = nn.Parameter(torch.empty(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=config.bias)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised."""
        c = self.config
        if name == "dt_bias":
            init_step_bias(value, c.dt_min, c.dt_max, generator, c.dt_init_floor)
        elif name == "A_log":
            low, high = c.A_init_range
            value.copy_(
                (torch.rand(value.shape, generator=generator, dtype=torch.float64) * (high - low) + low).log()
            )
        elif name in ("D", "norm_weight"):
            value.fill_(1.0)
        elif name in ("conv_weight", "conv_bias"):
            init_convolution(value, c.d_conv, generator)
        else:
            super().init_parameter(name, value, generator)

    @property
    def exchanges(self) -> bool:
        """See Mixer: unless an extension has wrapped the scan."""
        return self.scan is ssd

    def forward(
        self, x: Tensor, where: TokenContext, state: Mamba2State | None = None
    ) -> tuple[Tensor, Mamba2State | None]:
        """See Mixer."""
        c = self.config
        z, xbc, dt = self.in_proj(x).split([self.d_inner, self.d_xbc, self.n_heads], dim=-1)
        xbc, before = inputs_before(xbc, c.d_conv - 1, where, None if state is None else state.conv)
        xbc, conv = causal_conv1d(
            xbc,
            self.conv_weight,
            self.conv_bias,
            silu=True,
            initial_state=before,
            starts=where.starts,
            return_state=state is not None,
        )
        inner, b, c_out = xbc.split([self.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state], dim=-1)
        inputs = (
            inner.unflatten(-1, (self.n_heads, c.head_dim)),
            dt,
            -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp(),
            b.unflatten(-1, (c.n_groups, c.d_state)),
            c_out.unflatten(-1, (c.n_groups, c.d_state)),
            self.D,
            self.dt_bias,
        )
        limit = (c.dt_limit[0], math.inf if c.dt_limit[1] is None else c.dt_limit[1])
        if state is None and where.ranks is not None:
            y, ssm = (
                ssd_over(where.ranks, *inputs, dt_limit=limit, starts=where.starts, chunk_size=c.chunk_size),
                None,
            )
        else:
            y, ssm = self.scan(
                *inputs,
                dt_limit=limit,
                initial_state=None if state is None else state.ssm,
                starts=where.starts,
                chunk_size=c.chunk_size,
                return_state=state is not None,
            )
        y = self._normed(y.flatten(2), z)
        return self.out_proj(y), None if ssm is None or conv is None else Mamba2State(ssm, conv)

    def _normed(self, y: Tensor, gate: Tensor) -> Tensor:
        """rms_norm(y * silu(gate)) by group."""
        c = self.config
        if self.norm_group is not None:
            return divided_rms_norm(y, self.norm_weight, c.norm_eps, gate, self.norm_group)
        return rms_norm(y, self.norm_weight, c.norm_eps, gate=gate, n_groups=c.n_groups)

    def tensor_splits(self, n: int) -> Mapping[str, Split]:
        """See Mixer: by heads, and by groups where there are several; of one group, all have B and C."""
        Split(0, heads(self.n_heads)).check(n, "n_heads of mamba2")
        groups = self.config.n_groups > 1
        if groups:
            Split(0, heads(self.config.n_groups)).check(n, "n_groups of mamba2, where it is not 1,")
        group = Section(self.config.n_groups * self.config.d_state, divided=groups)
        convolved = Split(0, (Section(self.d_inner), group, group))
        rows = Split(0, (Section(self.d_inner), *convolved.sections, Section(self.n_heads)))
        splits = {"in_proj.weight": rows, "conv_weight": convolved, "out_proj.weight": Split(1, heads(self.d_inner))}
        splits |= {"in_proj.bias": rows} if self.config.bias else {}
        splits |= {"conv_bias": convolved} if self.config.conv_bias else {}
        splits |= dict.fromkeys(("dt_bias", "A_log", "D"), Split(0, heads(self.n_heads)))
        return {**splits, "norm_weight": Split(0, heads(self.d_inner))}

    def take_share(self, share: Share) -> None:
        """See Mixer."""
        self.d_inner, self.n_heads = self.d_inner // share.n, self.n_heads // share.n
        if self.config.n_groups > 1:
            self.config = replace(self.config, n_groups=self.config.n_groups // share.n)
        else:
            self.norm_group = share.group
        self.d_xbc = self.d_inner + 2 * self.config.n_groups * self.config.d_state

    def new_state(self, batch: int) -> Mamba2State:
        """See Mixer."""
        weight, c = self.out_proj.weight, self.config
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        ssm = torch.zeros(batch, self.n_heads, c.head_dim, c.d_state, dtype=acc_dtype, device=weight.device)
        return Mamba2State(ssm, weight.new_zeros(batch, c.d_conv - 1, self.d_xbc))

    @staticmethod
    def cost(config: Mamba2Config, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        d_inner, n_heads, d_xbc = config.widths(d_model)
        matrices = d_model * (d_inner + d_xbc + n_heads) + d_inner * d_model
        params = matrices + d_xbc * (config.d_conv + int(config.conv_bias)) + 3 * n_heads + d_inner
        params += (d_inner + d_xbc + n_heads + d_model) if config.bias else 0
        # the causal halves of C B^T and of its product with x; then writing and reading states
        core = (config.chunk_size or 64) * (config.n_groups * config.d_state + d_inner) + 4 * d_inner * config.d_state
        flops = 2 * matrices + core + 2 * config.d_conv * d_xbc
        return Cost(params, flops, 4 * d_inner * config.d_state + 4 * (config.d_conv - 1) * d_xbc, 0)
