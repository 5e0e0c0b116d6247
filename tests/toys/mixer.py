"""A toy mixer: a moving average over the past with one learned decay per channel.

h_t = a h_{t-1} + (1 - a) u_t,  u = in_proj(x),  y = out_proj(h)
"""

from dataclasses import dataclass

import torch
from lcprobe_kernels.linear_recurrence import linear_recurrence
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class MovingAverageConfig(MixerConfig):
    """Settings of the toy mixer."""

    expand: int = 1
    """Ratio of the inner width to d_model."""

    def check(self, at: str) -> None:
        """Raises ConfigError for an expand below 1."""
        require(f"{at}.expand", self.expand, self.expand >= 1, ">= 1")


@dataclass(frozen=True)
class MovingAverageState(State):
    """h: (batch, d_inner), float32 or wider."""

    recurrent = ("h",)

    h: Tensor


class MovingAverage(Mixer[MovingAverageConfig, MovingAverageState]):
    """An exponential moving average."""

    Config = MovingAverageConfig
    state_type = MovingAverageState

    def __init__(self, config: MovingAverageConfig, d_model: int):
        super().__init__(config, d_model)
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, d_inner, bias=False)
        self.decay = nn.Parameter(torch.empty(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: initial decays are between 0.5 and 0.99."""
        if name == "decay":
            value.uniform_(0, 4.6, generator=generator)
        else:
            super().init_parameter(name, value, generator)

    def forward(
        self, x: Tensor, where: TokenContext, state: MovingAverageState | None = None
    ) -> tuple[Tensor, MovingAverageState | None]:
        """See Mixer."""
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        log_a = F.logsigmoid(self.decay.to(acc_dtype))
        u = self.in_proj(x).to(acc_dtype) * -torch.expm1(log_a)
        h, last = linear_recurrence(
            log_a.expand(u.shape),
            u,
            initial_state=None if state is None else state.h,
            starts=where.starts,
            return_state=state is not None,
        )
        return self.out_proj(h.to(x.dtype)), None if last is None else MovingAverageState(last)

    def new_state(self, batch: int) -> MovingAverageState:
        """See Mixer."""
        weight = self.out_proj.weight
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        return MovingAverageState(torch.zeros(batch, weight.shape[1], dtype=acc_dtype, device=weight.device))

    @staticmethod
    def cost(config: MovingAverageConfig, d_model: int, length: int) -> Cost:
        """See Mixer."""
        d_inner = config.expand * d_model
        return Cost(2 * d_model * d_inner + d_inner, 4 * d_model * d_inner + 3 * d_inner, 4 * d_inner, 0)
