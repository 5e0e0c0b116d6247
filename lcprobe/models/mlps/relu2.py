"""out_proj(relu(in_proj(x))^2): squared ReLU without a gate (Primer, So et al. 2021, arXiv 2109.08668)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.models.cost import Cost
from lcprobe.models.mlps.contract import MLP, MLPConfig
from lcprobe.models.state import State
from lcprobe.models.tensor_parallel.split import Split, heads
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class ReLU2Config(MLPConfig):
    """Settings of the squared ReLU."""

    bias: bool = False
    """Use biases in both projections."""


class ReLU2(MLP[ReLU2Config]):
    """Squared ReLU between two projections, as in Nemotron."""

    Config = ReLU2Config

    def __init__(self, config: ReLU2Config, d_model: int, d_ff: int):
        super().__init__(config, d_model, d_ff)
        self.bias, self.d_ff = config.bias, d_ff
        self.in_proj = nn.Linear(d_model, d_ff, bias=config.bias)
        self.out_proj = nn.Linear(d_ff, d_model, bias=config.bias)

    def forward(self, x: Tensor, where: TokenContext, state: State | None = None) -> tuple[Tensor, None]:
        """See MLP."""
        return self.out_proj(F.relu(self.in_proj(x)).square()), None

    def tensor_splits(self, n: int) -> Mapping[str, Split]:
        """See MLP."""
        rows, columns = Split(0, heads(self.d_ff)), Split(1, heads(self.d_ff))
        columns.check(n, "d_ff")
        of_bias = {"in_proj.bias": rows} if self.bias else {}
        return {"in_proj.weight": rows, "out_proj.weight": columns, **of_bias}

    @staticmethod
    def cost(config: ReLU2Config, d_model: int, d_ff: int) -> Cost:
        """See MLP."""
        return Cost(params=2 * d_model * d_ff + config.bias * (d_ff + d_model), flops=4 * d_model * d_ff)
