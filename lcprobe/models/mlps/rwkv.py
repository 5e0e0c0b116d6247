"""RWKV's channel mixing: a squared ReLU that also sees the token before.

    x'_t = x_{t-1} - x_t, x_{t-1} = 0 at a document's first token       h = relu(key(x_t + mix_k * x'_t))^2
    RWKV-6 (Peng et al. 2024, arXiv 2404.05892): y = sigmoid(receptance(x_t + mix_r * x'_t)) * out_proj(h)
    RWKV-7 (Peng et al. 2025, arXiv 2503.14456): y = out_proj(h)

Shapes and initial values are those of BlinkDL/RWKV-LM, where out_proj is called value.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.models.cost import Cost
from lcprobe.models.mlps.contract import MLP, MLPConfig
from lcprobe.models.rwkv_parts import channel_ramp, depth_ratios, previous_tokens
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class ChannelMixingConfig(MLPConfig):
    """There are no settings."""


@dataclass(frozen=True)
class ChannelMixingState(State):
    """last: (batch, d_model), the last input."""

    last: Tensor


class RWKV7ChannelMixing(MLP[ChannelMixingConfig]):
    """RWKV-7's channel mixing, out_proj(relu(key(x_t + mix_k (x_{t-1} - x_t)))^2) (arXiv 2503.14456), where x_{t-1}
    is 0 at a document's first token."""

    Config = ChannelMixingConfig
    has_receptance: ClassVar[bool] = False

    def __init__(self, config: ChannelMixingConfig, d_model: int, d_ff: int):
        super().__init__(config, d_model, d_ff)
        self.mix_k = nn.Parameter(torch.empty(d_model))
        self.key = nn.Linear(d_model, d_ff, bias=False)
        self.out_proj = nn.Linear(d_ff, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: as in the release."""
        _, down = depth_ratios(self.depth)
        if name in ("mix_k", "mix_r"):
            value.copy_(channel_ramp(len(value), down if self.has_receptance else down**4))
        elif name == "key.weight":
            nn.init.orthogonal_(value, generator=generator)
        elif name in ("out_proj.weight", "receptance.weight"):
            value.zero_()
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: State | None = None
    ) -> tuple[Tensor, ChannelMixingState | None]:
        """See MLP."""
        assert state is None or isinstance(state, ChannelMixingState)
        difference = previous_tokens(x, where.starts, None if state is None else state.last) - x
        y = self.mixed(x, difference)
        return y, None if state is None else ChannelMixingState(x[:, -1])

    def mixed(self, x: Tensor, difference: Tensor) -> Tensor:
        """The output for the inputs and their difference from the token before, (batch, seqlen, d_model) each."""
        return self.out_proj(F.relu(self.key(torch.addcmul(x, difference, self.mix_k.to(x.dtype)))).square())

    def new_state(self, batch: int) -> ChannelMixingState:
        """See MLP."""
        return ChannelMixingState(self.out_proj.weight.new_zeros(batch, len(self.mix_k)))

    @staticmethod
    def cost(config: ChannelMixingConfig, d_model: int, d_ff: int) -> Cost:
        """See MLP."""
        return Cost(2 * d_model * d_ff + d_model, 4 * d_model * d_ff, 4 * d_model)


class RWKV6ChannelMixing(RWKV7ChannelMixing):
    """RWKV-6's channel mixing: RWKV-7's, times sigmoid(receptance(x_t + mix_r (x_{t-1} - x_t))) (arXiv
    2404.05892)."""

    has_receptance = True
    ff_ratio = 3.5

    def __init__(self, config: ChannelMixingConfig, d_model: int, d_ff: int):
        super().__init__(config, d_model, d_ff)
        self.mix_r = nn.Parameter(torch.empty(d_model))
        self.receptance = nn.Linear(d_model, d_model, bias=False)

    def mixed(self, x: Tensor, difference: Tensor) -> Tensor:
        """See RWKV7ChannelMixing."""
        gate = self.receptance(torch.addcmul(x, difference, self.mix_r.to(x.dtype))).sigmoid()
        return gate * super().mixed(x, difference)

    @staticmethod
    def cost(config: ChannelMixingConfig, d_model: int, d_ff: int) -> Cost:
        """See MLP."""
        gate = Cost(d_model**2 + d_model, 2 * d_model**2)
        return RWKV7ChannelMixing.cost(config, d_model, d_ff) + gate
