"""GLA, gated linear attention: a decay per channel of the keys that depends on the token (Yang et al. 2023, arXiv
2312.06635).

    q, k, v, gate, low = in_proj(x)            alpha_t = sigmoid(decay_proj(low))^(1 / tau), tau = 16
    S_t = diag(alpha_t) S_{t-1} + k_t v_t^T                per head, S: (head_dim, value_dim)
    o_t = head_dim^-0.5 q_t^T S_t              y = out_proj(rms_norm(o) * silu(gate)), the norm per head

With the same weights it equals flash-linear-attention's layer. There keys are half as wide as the model and values as
wide, in 4 heads at any width (`head_dim: 128` at d_model 1024). Differences: one matrix projects to q, k, v, gate and
the low rank; matrices start as in all mixers here, and the bias of the decays at zero, which is alpha = 0.958. The
layer's options that are off there by default (convolution, feature map, shared heads of keys) are left out.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from lcprobe_kernels.rms_norm import rms_norm
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.context_parallel.recurrences import gated_linear_attention_over
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext


class Widths(NamedTuple):
    """Sizes at one d_model; value_dim is the width of a head's values."""

    n_heads: int
    head_dim: int
    value_dim: int

    @property
    def keys(self) -> int:
        """Width of all queries, and of all keys."""
        return self.n_heads * self.head_dim

    @property
    def values(self) -> int:
        """Width of all values."""
        return self.n_heads * self.value_dim


@dataclass(frozen=True)
class GLAConfig(MixerConfig):
    """Heads and decays of gated linear attention."""

    head_dim: int = 32
    """Width of a head's queries and keys."""
    expand: float = 0.5
    """Ratio of the width of all keys, and of all queries, to d_model."""
    expand_v: float = 1.0
    """Ratio of the width of all values to d_model."""
    rank: int = 16
    """Rank of the map to decays."""
    tau: float = 16.0
    """Root that is taken of the sigmoid of a decay: larger ones keep more of the state."""
    chunk_size: int = 64
    """Tokens per chunk of the matrix form, a power of two. Changes speed and rounding only."""
    norm_eps: float = 1e-5
    """Epsilon of the norm over each head's outputs, added to the mean square."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1."""
        for name in ("head_dim", "rank"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 1, ">= 1")
        for name in ("expand", "expand_v", "tau", "norm_eps"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) > 0, "> 0")
        chunk = self.chunk_size
        require(f"{at}.chunk_size", chunk, chunk >= 1 and chunk & (chunk - 1) == 0, "a power of two")

    def widths(self, d_model: int) -> Widths:
        """Sizes at this width. Raises ConfigError where heads do not divide."""
        return widths_of(self.head_dim, self.expand, self.expand_v, d_model)


def widths_of(head_dim: int, expand: float, expand_v: float, d_model: int) -> Widths:
    """Sizes of heads at this width. Raises ConfigError where they do not divide."""
    keys, values = round(expand * d_model), round(expand_v * d_model)
    if keys % head_dim or not keys:
        raise ConfigError("head_dim", head_dim, f"a divisor of expand x d_model ({keys})")
    n_heads = keys // head_dim
    if values % n_heads or not values:
        raise ConfigError("expand_v", expand_v, f"a width (now {values}) that {n_heads} heads divide")
    return Widths(n_heads, head_dim, values // n_heads)


@dataclass(frozen=True)
class GLAState(State):
    """memory: (batch, n_heads, head_dim, value_dim), float32 or wider."""

    recurrent = ("memory",)

    memory: Tensor


class GLA(Mixer[GLAConfig, GLAState]):
    """Gated linear attention: a decay per channel of the keys that depends on the token."""

    Config = GLAConfig
    state_type = GLAState

    def __init__(self, config: GLAConfig, d_model: int):
        super().__init__(config, d_model)
        self.config, self.widths = config, config.widths(d_model)
        self.parts = _parts(self.widths, config.rank)
        self.in_proj = nn.Linear(d_model, sum(self.parts), bias=False)
        self.decay_proj = nn.Linear(config.rank, self.widths.keys)
        self.norm_weight = nn.Parameter(torch.empty(self.widths.value_dim))
        self.out_proj = nn.Linear(self.widths.values, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised."""
        if name == "norm_weight":
            value.fill_(1.0)
        else:
            super().init_parameter(name, value, generator)

    @property
    def exchanges(self) -> bool:
        """See Mixer."""
        return True

    def forward(
        self, x: Tensor, where: TokenContext, state: GLAState | None = None
    ) -> tuple[Tensor, GLAState | None]:
        """See Mixer."""
        w, c = self.widths, self.config
        q, k, v, gate, low = self.in_proj(x).split(self.parts, dim=-1)
        decay = self.decay_proj(low).to(torch.promote_types(x.dtype, torch.float32))
        q, k, log_decay = (t.unflatten(-1, (w.n_heads, w.head_dim)) for t in (q, k, F.logsigmoid(decay) / c.tau))
        inputs = (q, k, v.unflatten(-1, (w.n_heads, w.value_dim)), log_decay)
        options = {"starts": where.starts, "boundaries": where.boundaries, "chunk_size": c.chunk_size}
        if state is None and where.ranks is not None:
            o, memory = gated_linear_attention_over(where.ranks, *inputs, **options), None
        else:
            before = None if state is None else state.memory
            o, memory = gated_linear_attention(
                *inputs, initial_state=before, return_state=state is not None, **options
            )
        o = rms_norm(o, self.norm_weight, c.norm_eps).flatten(2) * F.silu(gate)
        return self.out_proj(o), None if memory is None else GLAState(memory)

    def new_state(self, batch: int) -> GLAState:
        """See Mixer."""
        weight, w = self.out_proj.weight, self.widths
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        return GLAState(weight.new_zeros(batch, *w, dtype=acc_dtype))

    @staticmethod
    def cost(config: GLAConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        w, chunk = config.widths(d_model), config.chunk_size
        matrices = d_model * sum(_parts(w, config.rank)) + config.rank * w.keys + w.values * d_model
        # the causal halves of q k^T and of its product with v; then writing and reading states
        core = chunk * (w.keys + w.values) + 4 * w.keys * w.value_dim
        return Cost(matrices + w.keys + w.value_dim, 2 * matrices + core, 4 * w.keys * w.value_dim, 0)


def _parts(w: Widths, rank: int) -> list[int]:
    """Widths of the parts of in_proj: q; k; v; gate; the rank of the decays."""
    return [w.keys, w.keys, w.values, w.values, rank]
