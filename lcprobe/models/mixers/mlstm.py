"""mLSTM: linear attention with exponential input gates, sigmoid forget gates and a normaliser (Beck et al. 2024,
arXiv 2405.04517; the layer of xLSTM 7B, arXiv 2503.13427).

    q, k, v, gate = in_proj(x)                 i, f = cap tanh(gate_proj(x) / cap)              per head
    S_t = sigmoid(f_t) S_{t-1} + exp(i_t) k_t v_t^T                        S: (head_dim, value_dim)
    n_t = sigmoid(f_t) n_{t-1} + exp(i_t) k_t                              m_t = max(log sigmoid(f_t) + m_{t-1}, i_t)
    h_t = S_t^T q_t / (max(|n_t . q_t|, 1) + eps exp(m_t))                 q times head_dim^-0.5
    y = out_proj(layer_norm(h) * sigmoid(gate)), the norm per head         m = 0 before a document's first token

With the same weights it equals transformers' xLSTM, where keys are half as wide as the model and values as wide, in 8
heads (`head_dim: 256` at d_model 4096). There S and n are held divided by exp(m), and the denominator is
max(|n . q|, exp(-m)) + eps: the same h, so that m, the largest weight that a token has in the state, is left in eps
alone. Here nothing is divided: the cap keeps exp(i) within the range of floats, so a cap there must be (the first
paper has none). Gates start as there, i at -10 and f from 3 to 6 over the heads; matrices as in all mixers here.

This is Mamba2's recurrence with A = -1, steps softplus(-f), C = q, B = k exp(i) / step and a group per head, n the
last column of its state: `lcprobe_kernels.ssd`, on a GPU in Triton.
"""

from dataclasses import dataclass

import torch
from lcprobe_kernels.ssd import ssd
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.mixers.gla import Widths, widths_of
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

LARGEST_CAP = 30.0
"""Largest soft cap: exp(i) / step stays below exp(60)."""


@dataclass(frozen=True)
class MLSTMConfig(MixerConfig):
    """Heads and gates of the mLSTM."""

    head_dim: int = 32
    """Width of a head's queries and keys."""
    expand: float = 0.5
    """Ratio of the width of all keys, and of all queries, to d_model."""
    expand_v: float = 1.0
    """Ratio of the width of all values to d_model."""
    gate_soft_cap: float = 15.0
    """Largest size of input and forget gates before exp and sigmoid, approached by tanh; at most 30."""
    input_bias: float = -10.0
    """Input gate at initialisation, before its exponential."""
    forget_bias_range: tuple[float, float] = (3.0, 6.0)
    """Forget gates of the first and of the last head at initialisation, before their sigmoid; the others in even
    steps."""
    eps: float = 1e-6
    """Added to the denominator, in units of the largest weight in the state."""
    chunk_size: int | None = None
    """Tokens per chunk of the matrix form; null: fast on the device. Changes speed and rounding only."""
    norm_eps: float = 1e-6
    """Epsilon of the norm over each head's outputs, added to the variance."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1, caps out of range and an empty range."""
        require(f"{at}.head_dim", self.head_dim, self.head_dim >= 1, ">= 1")
        for name in ("expand", "expand_v", "norm_eps"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) > 0, "> 0")
        cap = self.gate_soft_cap
        require(f"{at}.gate_soft_cap", cap, 0 < cap <= LARGEST_CAP, f"> 0 and <= {LARGEST_CAP:g}")
        require(f"{at}.eps", self.eps, self.eps >= 0, ">= 0")
        first, last = self.forget_bias_range
        require(f"{at}.forget_bias_range", list(self.forget_bias_range), first <= last, "first <= last")
        require(f"{at}.chunk_size", self.chunk_size, self.chunk_size is None or self.chunk_size >= 1, ">= 1 or null")

    def widths(self, d_model: int) -> Widths:
        """Sizes at this width. Raises ConfigError where heads do not divide."""
        return widths_of(self.head_dim, self.expand, self.expand_v, d_model)


@dataclass(frozen=True)
class MLSTMState(State):
    """memory: S^T and, as its last row, n: (batch, n_heads, value_dim + 1, head_dim); largest: m, (batch, n_heads).
    Both float32 or wider."""

    recurrent = ("memory", "largest")

    memory: Tensor
    largest: Tensor


class MLSTM(Mixer[MLSTMConfig, MLSTMState]):
    """Linear attention with exponential input gates, sigmoid forget gates and a normaliser; xLSTM's layer."""

    Config = MLSTMConfig
    state_type = MLSTMState

    def __init__(self, config: MLSTMConfig, d_model: int):
        super().__init__(config, d_model)
        self.config, self.widths = config, config.widths(d_model)
        self.in_proj = nn.Linear(d_model, sum(_parts(self.widths)), bias=False)
        self.gate_proj = nn.Linear(d_model, 2 * self.widths.n_heads)
        self.norm_weight = nn.Parameter(torch.empty(self.widths.values))
        self.out_proj = nn.Linear(self.widths.values, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: gates as in the release."""
        if name == "norm_weight":
            value.fill_(1.0)
        elif name == "gate_proj.weight":
            value.zero_()
        elif name == "gate_proj.bias":
            n_heads = self.widths.n_heads
            value[:n_heads] = self.config.input_bias
            value[n_heads:] = torch.linspace(*self.config.forget_bias_range, n_heads, dtype=value.dtype)
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: MLSTMState | None = None
    ) -> tuple[Tensor, MLSTMState | None]:
        """See Mixer."""
        w, c = self.widths, self.config
        q, k, v, gate = self.in_proj(x).split(_parts(w), dim=-1)
        q, k = (t.unflatten(-1, (w.n_heads, w.head_dim)) for t in (q, k))
        v = v.unflatten(-1, (w.n_heads, w.value_dim))
        gates = self.gate_proj(x).to(torch.promote_types(x.dtype, torch.float32))
        i, f = (c.gate_soft_cap * torch.tanh(gates / c.gate_soft_cap)).chunk(2, dim=-1)
        step = F.softplus(-f)  # -log sigmoid(f)
        largest = running_largest(i, -step, where.starts, None if state is None else state.largest)
        y, memory = ssd(
            torch.cat([v, v.new_ones(*v.shape[:3], 1)], dim=-1),
            -f,
            -i.new_ones(w.n_heads),
            (k * (i - step.log()).exp()[..., None]).to(v.dtype),  # a quotient's gradient would overflow
            q * w.head_dim**-0.5,
            initial_state=None if state is None else state.memory,
            starts=where.starts,
            chunk_size=c.chunk_size,
            return_state=state is not None,
        )
        numerator, weight = y.to(largest.dtype).split([w.value_dim, 1], dim=-1)
        h = numerator / (weight.abs().clamp_min(1.0) + c.eps * largest.exp()[..., None])
        h = F.layer_norm(h, (w.value_dim,), eps=c.norm_eps).flatten(2) * self.norm_weight
        y = self.out_proj((h * gate.sigmoid()).to(x.dtype))
        return y, None if memory is None else MLSTMState(memory, largest[:, -1])

    def new_state(self, batch: int) -> MLSTMState:
        """See Mixer."""
        weight, w = self.out_proj.weight, self.widths
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        memory = weight.new_zeros(batch, w.n_heads, w.value_dim + 1, w.head_dim, dtype=acc_dtype)
        return MLSTMState(memory, weight.new_zeros(batch, w.n_heads, dtype=acc_dtype))

    @staticmethod
    def cost(config: MLSTMConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        w = config.widths(d_model)
        matrices = d_model * (sum(_parts(w)) + 2 * w.n_heads) + w.values * d_model
        columns = w.values + w.n_heads
        # the causal halves of q k^T and of its product with v and 1; then writing and reading states
        core = (config.chunk_size or 64) * (w.keys + columns) + 4 * columns * w.head_dim
        state = columns * w.head_dim + w.n_heads
        return Cost(matrices + 2 * w.n_heads + w.values, 2 * matrices + core, 4 * state, 0)


@torch.compiler.disable(reason="doubles its reach, as often as the length asks for")
def running_largest(i: Tensor, log_f: Tensor, starts: Tensor | None, before: Tensor | None) -> Tensor:
    """m_t = max(log_f_t + m_{t-1}, i_t), in as many steps as the length has bits. i, log_f: (batch, seqlen, n_heads).
    starts: (batch, seqlen) bool or None. before: m before the first token, (batch, n_heads); None: 0."""
    first = 0.0 if before is None else before.to(i.dtype)[:, None]
    m = torch.cat([torch.maximum(i[:, :1], log_f[:, :1] + first), i[:, 1:]], dim=1)
    if starts is not None:
        m = torch.where(starts[..., None], torch.maximum(i, log_f), m)
        log_f = log_f.masked_fill(starts[..., None], float("-inf"))
    reach = 1  # m_t is the largest over the last `reach` tokens, log_f_t the decay over them
    while reach < i.shape[1]:
        m = torch.cat([m[:, :reach], torch.maximum(m[:, reach:], m[:, :-reach] + log_f[:, reach:])], dim=1)
        log_f = torch.cat([log_f[:, :reach], log_f[:, reach:] + log_f[:, :-reach]], dim=1)
        reach *= 2
    return m


def _parts(w: Widths) -> list[int]:
    """Widths of the parts of in_proj: q; k; v; gate."""
    return [w.keys, w.keys, w.values, w.values]
