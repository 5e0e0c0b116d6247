"""RG-LRU: Griffin's recurrent block, a gated linear recurrence per channel (De et al. 2024, arXiv 2402.19427).

    gate, u = in_proj(x)                                  u = conv(u)
    i = sigmoid(W_i u + b_i)      r = sigmoid(W_r u + b_r)          W_i, W_r block-diagonal
    a = exp(-8 softplus(a_param) r)
    h_t = a_t h_{t-1} + m_t i_t u_t                       m = sqrt(1 - a^2), at a document's first token 1
    y = out_proj(h * gelu(gate))

With the same weights it equals the recurrent block of RecurrentGemma, in Google's release (PyPI recurrentgemma) and
in transformers, and it has the release's initial values. Shapes there: expand 1, blocks of 256 channels (10 at
d_model 2560). The recurrence is a scan (`lcprobe_kernels.linear_recurrence`) where both have a loop over tokens.
Differences: one matrix projects to both branches; 1 - a^2 is formed without cancellation; gates and recurrence are
float32 under mixed precision. As there, the derivative of the square root is at most 1,000.
"""

from dataclasses import dataclass
from typing import Any

import torch
from lcprobe_kernels.backends import without_autocast
from lcprobe_kernels.causal_conv1d import causal_conv1d
from lcprobe_kernels.linear_recurrence import linear_recurrence
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.context_parallel.recurrences import inputs_before, linear_recurrence_over
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

STEEPEST_SQRT = 1000.0
"""Bound of the derivative of sqrt(1 - a^2) by its argument."""


@dataclass(frozen=True)
class RGLRUConfig(MixerConfig):
    """Width, blocks and initial decays of RG-LRU."""

    expand: float = 1.0
    """Ratio of the recurrence's width to d_model."""
    n_blocks: int = 8
    """Number of diagonal blocks of the gates' matrices."""
    d_conv: int = 4
    """Width of the causal convolution, tokens."""
    a_init_range: tuple[float, float] = (0.9, 0.999)
    """Range of exp(-softplus(a_param)) at initialisation; its squares are uniform."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1 and an empty range."""
        require(f"{at}.expand", self.expand, self.expand > 0, "> 0")
        require(f"{at}.n_blocks", self.n_blocks, self.n_blocks >= 1, ">= 1")
        require(f"{at}.d_conv", self.d_conv, self.d_conv >= 2, ">= 2")
        low, high = self.a_init_range
        require(f"{at}.a_init_range", list(self.a_init_range), 0 < low <= high < 1, "0 < low <= high < 1")

    def width(self, d_model: int) -> int:
        """Channels of the recurrence. Raises ConfigError where blocks do not divide."""
        width = round(self.expand * d_model)
        if width % self.n_blocks or not width:
            raise ConfigError("n_blocks", self.n_blocks, f"a divisor of expand x d_model ({width})")
        return width


@dataclass(frozen=True)
class RGLRUState(State):
    """h: (batch, width), float32 or wider; conv: (batch, d_conv - 1, width), last inputs of the convolution."""

    recurrent = ("h",)

    h: Tensor
    conv: Tensor


class RGLRU(Mixer[RGLRUConfig, RGLRUState]):
    """A gated linear recurrence, one number of state per channel: Griffin's and RecurrentGemma's recurrent block."""

    Config = RGLRUConfig
    state_type = RGLRUState
    no_decay = ("conv_weight",)

    def __init__(self, config: RGLRUConfig, d_model: int):
        super().__init__(config, d_model)
        self.config, self.width = config, config.width(d_model)
        block = self.width // config.n_blocks
        self.in_proj = nn.Linear(d_model, 2 * self.width)
        self.conv_weight = nn.Parameter(torch.empty(self.width, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(self.width))
        self.gate_weight = nn.Parameter(torch.empty(config.n_blocks, block, 2 * block))  # input gate, recurrence gate
        self.gate_bias = nn.Parameter(torch.empty(2 * self.width))  # as its columns, block by block
        self.a_param = nn.Parameter(torch.empty(self.width))
        self.out_proj = nn.Linear(self.width, d_model)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised; the released variances."""
        if name == "a_param":
            low, high = self.config.a_init_range
            value.uniform_(low**2, high**2, generator=generator)
            value.log_().mul_(-0.5).expm1_().log_()  # the inverse of softplus, at -log a
        elif name.endswith("bias"):
            value.zero_()
        else:
            variances = {
                "in_proj.weight": 1 / value.shape[-1],
                "conv_weight": 0.01 / self.config.d_conv,
                "gate_weight": self.config.n_blocks / self.width,
                "out_proj.weight": 2 / self.width,  # by the number of layers, as every output
            }
            value.normal_(0.0, variances[name] ** 0.5, generator=generator)

    @property
    def exchanges(self) -> bool:
        """See Mixer."""
        return True

    def forward(
        self, x: Tensor, where: TokenContext, state: RGLRUState | None = None
    ) -> tuple[Tensor, RGLRUState | None]:
        """See Mixer."""
        gate, u = self.in_proj(x).chunk(2, dim=-1)
        u, before = inputs_before(u, self.config.d_conv - 1, where, None if state is None else state.conv)
        u, conv = causal_conv1d(
            u,
            self.conv_weight,
            self.conv_bias,
            initial_state=before,
            starts=where.starts,
            return_state=state is not None,
        )
        log_a, b = self.decays_and_inputs(u, where.once("first tokens of documents", lambda: _first(where)))
        if state is None and where.ranks is not None:
            h, last = linear_recurrence_over(where.ranks, log_a, b, starts=where.starts), None
        else:
            h, last = linear_recurrence(
                log_a,
                b,
                initial_state=None if state is None else state.h,
                starts=where.starts,
                return_state=state is not None,
            )
        y = self.out_proj(h.to(x.dtype) * F.gelu(gate, approximate="tanh"))
        return y, None if last is None or conv is None else RGLRUState(last, conv)

    def decays_and_inputs(self, u: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """log a and m i u, (batch, seqlen, width) in float32 or wider. u: like them; first: (1 or batch, seqlen)
        bool."""
        acc_dtype = torch.promote_types(u.dtype, torch.float32)
        blocks = self.config.n_blocks
        gates = torch.einsum("bthi,hij->bthj", u.unflatten(-1, (blocks, -1)), self.gate_weight.to(u.dtype))
        rate = 8.0 * F.softplus(self.a_param.to(acc_dtype))
        with without_autocast(u.device):
            gates = gates.to(acc_dtype) + self.gate_bias.to(acc_dtype).view(blocks, -1)
            return _Gated.apply(u.to(acc_dtype), gates, rate, first[..., None])

    def new_state(self, batch: int) -> RGLRUState:
        """See Mixer."""
        weight = self.out_proj.weight
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        h = torch.zeros(batch, self.width, dtype=acc_dtype, device=weight.device)
        return RGLRUState(h, weight.new_zeros(batch, self.config.d_conv - 1, self.width))

    @staticmethod
    def cost(config: RGLRUConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        width = config.width(d_model)
        matrices = 3 * d_model * width + 2 * width * (width // config.n_blocks)
        biases = 2 * width + 2 * width + width + d_model
        params = matrices + biases + width * config.d_conv + width
        flops = 2 * matrices + 2 * config.d_conv * width + 2 * width
        return Cost(params, flops, 4 * width + 4 * (config.d_conv - 1) * width, 0)


def _first(where: TokenContext) -> Tensor:
    """Where a token is the first of its row or of a document, (1 or batch, seqlen) bool."""
    row = (where.row_index == 0)[None]
    return row if where.starts is None else row | where.starts


class _Gated(torch.autograd.Function):
    """(u, gates before the sigmoid, 8 softplus(a_param), first tokens) -> (log a, m i u), in one pass backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, gates: Tensor, rate: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        i, r = (t.flatten(2) for t in gates.sigmoid().chunk(2, dim=-1))
        log_a = -rate * r
        m = torch.expm1(2 * log_a).neg_().sqrt_().masked_fill_(first, 1.0)
        ctx.save_for_backward(u, i, r, m, rate, first)
        ctx.blocks = gates.shape[2]
        return log_a, m * i * u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlog_a: Tensor, db: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        u, i, r, m, rate, first = ctx.saved_tensors
        through = (db * i * u).masked_fill_(first, 0.0)  # to m, whose square is 1 - a^2
        slope = (m * m - 1.0).div_(m.clamp_min(0.5 / STEEPEST_SQRT))
        dlog_a = torch.addcmul(dlog_a, through, slope)
        dm = db * m
        di, dr = dm * u * i * (1.0 - i), -rate * dlog_a * r * (1.0 - r)
        dgates = torch.cat([t.unflatten(-1, (ctx.blocks, -1)) for t in (di, dr)], dim=-1)
        return dm * i, dgates, -(dlog_a * r).flatten(0, -2).sum(0), None
