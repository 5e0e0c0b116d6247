"""Gated MLPs: out_proj(act(gate(x)) * up(x)), one matrix for up and gate (Shazeer 2020, arXiv 2002.05202)."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.models.cost import Cost
from lcprobe.models.mlps.contract import MLP, MLPConfig
from lcprobe.models.state import State
from lcprobe.models.tensor_parallel.split import Split, heads
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class SwiGLUConfig(MLPConfig):
    """Settings of SwiGLU."""

    bias: bool = False
    """Use biases in all three projections."""


@dataclass(frozen=True)
class GeGLUConfig(SwiGLUConfig):
    """Settings of GeGLU."""

    gelu: Literal["tanh", "erf"] = "tanh"
    """tanh: the approximation of Gemma and Griffin; erf: exact."""


GatedT = TypeVar("GatedT", bound=SwiGLUConfig)


class Gated(MLP[GatedT]):
    """out_proj(up * act(gate))."""

    ff_ratio = 8 / 3

    def __init__(self, config: GatedT, d_model: int, d_ff: int):
        super().__init__(config, d_model, d_ff)
        self.config, self.d_ff = config, d_ff
        self.up_gate = nn.Linear(d_model, 2 * d_ff, bias=config.bias)
        self.out_proj = nn.Linear(d_ff, d_model, bias=config.bias)

    def tensor_splits(self, n: int) -> Mapping[str, Split]:
        """See MLP."""
        rows, columns = Split(0, heads(self.d_ff, self.d_ff)), Split(1, heads(self.d_ff))
        columns.check(n, "d_ff")
        of_bias = {"up_gate.bias": rows} if self.config.bias else {}
        return {"up_gate.weight": rows, "out_proj.weight": columns, **of_bias}

    @abstractmethod
    def activation(self, gate: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""

    def forward(self, x: Tensor, where: TokenContext, state: State | None = None) -> tuple[Tensor, None]:
        """See MLP."""
        up, gate = self.up_gate(x).chunk(2, dim=-1)
        return self.out_proj(up * self.activation(gate)), None

    @staticmethod
    def cost(config: SwiGLUConfig, d_model: int, d_ff: int) -> Cost:
        """See MLP."""
        return Cost(params=3 * d_model * d_ff + config.bias * (2 * d_ff + d_model), flops=6 * d_model * d_ff)


class SwiGLU(Gated[SwiGLUConfig]):
    """out_proj(up(x) * silu(gate(x))), as in LLaMA."""

    Config = SwiGLUConfig

    def activation(self, gate: Tensor) -> Tensor:
        """See Gated."""
        return F.silu(gate)


class GeGLU(Gated[GeGLUConfig]):
    """out_proj(up(x) * gelu(gate(x))), as in Gemma and, with biases, Griffin (arXiv 2402.19427)."""

    Config = GeGLUConfig

    def activation(self, gate: Tensor) -> Tensor:
        """See Gated."""
        return F.gelu(gate, approximate="tanh" if self.config.gelu == "tanh" else "none")
