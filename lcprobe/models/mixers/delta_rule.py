"""What mixers with a gated delta rule have in common: the path from projections to outputs, settings, state and cost.

    q, k, v = silu(conv(q, k, v))                     q, k divided by their length in each head
    S_t = (I - beta k k^T) diag(alpha) S_{t-1} + beta k v^T           S: (head_dim, value_dim), float32
    o_t = head_dim^-0.5 q_t^T S_t                     y = out_proj(rms_norm(o) * activation(gate))

gated_deltanet and kda define where alpha, beta and the gate come from; delta_product writes several keys per token,
gdn2 erases and writes by channel. `lcprobe_kernels.gated_linear_attention` computes the rule in chunks, by matrix
products and one triangular solve each, or in half precision on a GPU by flash-linear-attention's kernels where they
are installed.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from lcprobe_kernels.causal_conv1d import causal_conv1d
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from lcprobe_kernels.rms_norm import rms_norm
from torch import Tensor, nn

from lcprobe.errors import ConfigError, require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.parameters import init_convolution, init_step_bias
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

LENGTH_EPS = 1e-6
"""Added to the squared lengths by which queries and keys are divided, as in flash-linear-attention."""


class Widths(NamedTuple):
    """Sizes at one d_model. n_heads: of queries and keys; n_value_heads: a multiple of it, one state each; steps:
    keys and values that a token writes, one after the other."""

    n_heads: int
    n_value_heads: int
    head_dim: int
    value_dim: int
    steps: int = 1

    @property
    def keys(self) -> int:
        """Width of all queries, and of all keys of one step."""
        return self.n_heads * self.head_dim

    @property
    def values(self) -> int:
        """Width of all values of one step."""
        return self.n_value_heads * self.value_dim

    @property
    def convolved(self) -> int:
        """Channels of the convolution over q, k, v."""
        return (1 + self.steps) * self.keys + self.steps * self.values

    @property
    def state(self) -> int:
        """Numbers in the recurrent state."""
        return self.n_value_heads * self.head_dim * self.value_dim


@dataclass(frozen=True)
class DeltaRuleConfig(MixerConfig):
    """Heads of a delta rule, and the range of its decays."""

    head_dim: int = 64
    """Width of a head's queries and keys."""
    expand: float = 1.0
    """Ratio of the width of all keys, and of all queries, to d_model."""
    expand_v: float = 1.0
    """Ratio of the width of all values to d_model."""
    value_heads: int = 1
    """Heads of values, each with a state of its own, per head of queries and keys."""
    d_conv: int = 4
    """Width of the causal convolution over q, k, v, tokens."""
    conv_bias: bool = False
    """Use a bias in the convolution."""
    negative_eigenvalues: bool = False
    """Let beta range from 0 to 2 instead of 1, so that a token can change the sign of what a key holds
    (arXiv 2411.12537)."""
    A_init_range: tuple[float, float] = (1.0, 16.0)
    """Range of A, the factor of the decay's exponent, at initialisation (uniform)."""
    dt_min: float = 0.001
    """Smallest softplus(dt_bias), the exponent's other factor, at initialisation (log-uniform)."""
    dt_max: float = 0.1
    """Largest softplus(dt_bias) at initialisation."""
    chunk_size: int = 64
    """Tokens per chunk of the matrix form, a power of two. Changes speed and rounding only."""
    norm_eps: float = 1e-5
    """Epsilon of the norm over each head's outputs, added to the mean square."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1 and empty ranges."""
        for name in ("head_dim", "value_heads"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 1, ">= 1")
        for name in ("expand", "expand_v"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) > 0, "> 0")
        require(f"{at}.d_conv", self.d_conv, self.d_conv >= 2, ">= 2")
        low, high = self.A_init_range
        require(f"{at}.A_init_range", list(self.A_init_range), 0 < low <= high, "0 < low <= high")
        require(f"{at}.dt_min", self.dt_min, 0 < self.dt_min <= self.dt_max, f"0 < dt_min <= dt_max ({self.dt_max})")
        chunk = self.chunk_size
        require(f"{at}.chunk_size", chunk, chunk >= 1 and chunk & (chunk - 1) == 0, "a power of two")
        require(f"{at}.norm_eps", self.norm_eps, self.norm_eps > 0, "> 0")

    def widths(self, d_model: int) -> Widths:
        """Sizes at this width. Raises ConfigError where heads do not divide."""
        keys, values = round(self.expand * d_model), round(self.expand_v * d_model)
        if keys % self.head_dim or not keys:
            raise ConfigError("head_dim", self.head_dim, f"a divisor of expand x d_model ({keys})")
        n_value_heads = keys // self.head_dim * self.value_heads
        if values % n_value_heads or not values:
            allowed = f"a width (now {values}) that {n_value_heads} heads of values divide"
            raise ConfigError("expand_v", self.expand_v, allowed)
        return Widths(keys // self.head_dim, n_value_heads, self.head_dim, values // n_value_heads)


@dataclass(frozen=True)
class DeltaRuleState(State):
    """memory: (batch, n_value_heads, head_dim, value_dim), float32 or wider; conv: (batch, d_conv - 1, channels), the
    last inputs of the convolution."""

    recurrent = ("memory",)

    memory: Tensor
    conv: Tensor


class Projected(NamedTuple):
    """What a mixer with a delta rule projects its input to, (batch, seqlen, .) each.

    qkv: queries, keys and values side by side, before the convolution. gate: (n_value_heads x value_dim). beta:
    (steps x n_value_heads, or what `rule` of a subclass reads), before the sigmoid. decay: (heads with a factor A,
    decays of each), before dt_bias and softplus.
    """

    qkv: Tensor
    gate: Tensor
    beta: Tensor
    decay: Tensor


class DeltaRule(Mixer[DeltaRuleConfig, DeltaRuleState]):
    """Base of mixers with a gated delta rule."""

    state_type = DeltaRuleState
    no_decay = ("conv_weight",)
    gate_activation: ClassVar[str]
    """silu or sigmoid, of the gate on the outputs."""

    def __init__(self, config: DeltaRuleConfig, d_model: int, decays: tuple[int, int]):
        """decays: heads with a factor A, and decays of each."""
        super().__init__(config, d_model)
        self.config, self.widths = config, config.widths(d_model)
        widths = self.widths
        self.conv_weight = nn.Parameter(torch.empty(widths.convolved, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(widths.convolved)) if config.conv_bias else None
        self.A_log = nn.Parameter(torch.empty(decays[0]))
        self.dt_bias = nn.Parameter(torch.empty(math.prod(decays)))
        self.norm_weight = nn.Parameter(torch.empty(widths.value_dim))
        self.out_proj = nn.Linear(widths.values, d_model, bias=False)

    @abstractmethod
    def project(self, x: Tensor) -> Projected:
        """x: (batch, seqlen, d_model) -> its projections."""

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised."""
        c = self.config
        if name == "A_log":
            value.uniform_(*c.A_init_range, generator=generator).log_()
        elif name == "dt_bias":
            init_step_bias(value, c.dt_min, c.dt_max, generator)
        elif name == "norm_weight":
            value.fill_(1.0)
        elif name in ("conv_weight", "conv_bias"):
            init_convolution(value, c.d_conv, generator)
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: DeltaRuleState | None = None
    ) -> tuple[Tensor, DeltaRuleState | None]:
        """See Mixer."""
        w = self.widths
        projected = self.project(x)
        qkv, conv = causal_conv1d(
            projected.qkv,
            self.conv_weight,
            self.conv_bias,
            silu=True,
            initial_state=None if state is None else state.conv,
            starts=where.starts,
            return_state=state is not None,
        )
        qk, v = qkv.split([(1 + w.steps) * w.keys, w.steps * w.values], dim=-1)
        qk = of_unit_length(qk.unflatten(-1, (1 + w.steps, w.n_heads, w.head_dim)))
        q, k = self.for_value_heads(qk[:, :, 0]), self.for_value_heads(qk[:, :, 1:].flatten(1, 2))
        v = v.unflatten(-1, (w.steps, w.n_value_heads, w.value_dim)).flatten(1, 2)
        o, memory = gated_linear_attention(
            **self.rule(q, k, v, projected, where.starts),
            boundaries=where.boundaries,
            initial_state=None if state is None else state.memory,
            chunk_size=self.config.chunk_size,
            return_state=state is not None,
        )
        o = rms_norm(o[:, w.steps - 1 :: w.steps], self.norm_weight, self.config.norm_eps).flatten(2)
        gate = projected.gate
        o = o * (nn.functional.silu(gate) if self.gate_activation == "silu" else gate.sigmoid())
        return self.out_proj(o), None if memory is None or conv is None else DeltaRuleState(memory, conv)

    def rule(self, q: Tensor, k: Tensor, v: Tensor, projected: Projected, starts: Tensor | None) -> dict[str, Any]:
        """Arguments of `gated_linear_attention`, with `steps` places per token. q: (batch, seqlen, n_value_heads,
        head_dim). k, v: (batch, seqlen x steps, n_value_heads, .). starts: of documents, (batch, seqlen)."""
        log_decay, beta = self.log_decay(projected.decay), self.rates(projected.beta)
        return {"q": q, "k": k, "v": v, "log_decay": log_decay, "beta": beta, "starts": starts}

    def rates(self, logits: Tensor) -> Tensor:
        """sigmoid(logits) in float32 or wider, times 2 with `negative_eigenvalues`."""
        rates = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        return rates * 2.0 if self.config.negative_eigenvalues else rates

    def for_value_heads(self, x: Tensor) -> Tensor:
        """Each head of keys of x (batch, seqlen, n_heads, .) for all of its heads of values."""
        return x if self.config.value_heads == 1 else x.repeat_interleave(self.config.value_heads, dim=2)

    def log_decay(self, decay: Tensor) -> Tensor:
        """-A softplus(decay + dt_bias) in float32 or wider, of the shape of decay."""
        acc_dtype = torch.promote_types(self.A_log.dtype, torch.float32)
        dt = nn.functional.softplus(decay.to(acc_dtype) + self.dt_bias.to(acc_dtype).view(decay.shape[2:]))
        return -self.A_log.to(acc_dtype).exp()[:, None] * dt

    def new_state(self, batch: int) -> DeltaRuleState:
        """See Mixer."""
        weight, w = self.out_proj.weight, self.widths
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        memory = torch.zeros(batch, w.n_value_heads, w.head_dim, w.value_dim, dtype=acc_dtype, device=weight.device)
        return DeltaRuleState(memory, weight.new_zeros(batch, self.config.d_conv - 1, w.convolved))


def of_unit_length(x: Tensor) -> Tensor:
    """x / sqrt(|x|^2 + LENGTH_EPS) over the last dimension: an RMS norm with the weight d^-0.5."""
    d = x.shape[-1]
    return rms_norm(x, x.new_full((d,), d**-0.5), LENGTH_EPS / d)


def delta_rule_cost(config: DeltaRuleConfig, d_model: int, matrices: int, decays: tuple[int, int]) -> Cost:
    """The cost of a mixer with a delta rule. matrices: weights of the projections that `project` computes; decays: as
    in DeltaRule."""
    w = config.widths(d_model)
    matrices += w.values * d_model
    vectors = w.convolved * (config.d_conv + int(config.conv_bias)) + decays[0] + math.prod(decays) + w.value_dim
    chunk, d_k, d_v = config.chunk_size, w.head_dim, w.value_dim
    # causal halves: q k^T and k k^T; the triangular solve for values and states; scores times values
    core = chunk * (2 * d_k + (d_k + d_v) + d_v)
    # writing and reading states, passing them through the solved system, and from chunk to chunk
    core += 6 * d_k * d_v + 2 * d_k * d_k + 2 * d_k * d_k * d_v / chunk
    flops = 2 * matrices + w.steps * w.n_value_heads * core + 2 * config.d_conv * w.convolved
    return Cost(matrices + vectors, flops, 4 * w.state + 4 * (config.d_conv - 1) * w.convolved, 0)
