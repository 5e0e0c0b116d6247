"""No MLP: a block of the layout with +mlp is the mixer alone, without the MLP's norm."""

from dataclasses import dataclass

from torch import Tensor

from lcprobe.models.cost import Cost
from lcprobe.models.mlps.contract import MLP, MLPConfig
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class NoMLPConfig(MLPConfig):
    """There are no settings."""


class NoMLP(MLP[NoMLPConfig]):
    """Blocks are mixers alone, also where the layout has +mlp: for a grid over MLPs. No block builds it."""

    Config = NoMLPConfig

    def __init__(self, config: NoMLPConfig, d_model: int, d_ff: int):
        super().__init__(config, d_model, d_ff)

    def forward(self, x: Tensor, where: TokenContext, state: State | None = None) -> tuple[Tensor, None]:
        """See MLP: nothing is added to the residual stream."""
        return x.new_zeros(x.shape), None

    @staticmethod
    def cost(config: NoMLPConfig, d_model: int, d_ff: int) -> Cost:
        """See MLP."""
        return Cost()
