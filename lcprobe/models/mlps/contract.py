"""The contract of MLPs, the classes behind the names in MLPS.

    forward      (batch, seqlen, d_model) -> the same shape, and the next state
    new_state    the state before a sequence's first token; None for an MLP that sees one token at a time
    cost         parameters, FLOPs per token and bytes in closed form, affine in d_ff, which matching solves

As for mixers, processing a sequence in any chunks gives the same outputs as processing it whole, and packed documents
do not see each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from lcprobe.models.cost import Cost
from lcprobe.models.parameters import Parametrised
from lcprobe.models.state import State
from lcprobe.models.tensor_parallel.split import Split
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class MLPConfig:
    """Base of the settings of an MLP: a frozen dataclass with a docstring under each field, which `--help` prints."""

    def check(self, at: str) -> None:
        """Raises ConfigError for values out of range. at: the key of this config."""


ConfigT = TypeVar("ConfigT", bound=MLPConfig)


class MLP(Parametrised, ABC, Generic[ConfigT]):
    """The second half of a block, with its config and, if it looks at earlier tokens, its state."""

    Config: ClassVar[type[MLPConfig]]
    residual_outputs = ("out_proj.weight",)
    ff_ratio: ClassVar[float] = 4.0
    """Preferred d_ff / d_model, where both are solved."""

    @abstractmethod
    def __init__(self, config: ConfigT, d_model: int, d_ff: int):
        """config: an instance of `Config`."""
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, where: TokenContext, state: State | None = None) -> tuple[Tensor, State | None]:
        """x: (batch, seqlen, d_model) -> y of the same shape and dtype, and the next state if one was passed in."""

    def tensor_splits(self, n: int) -> Mapping[str, Split]:
        """How n processes that share the MLP divide its parameters, by name; empty: each has all of it. Nothing else
        of an MLP knows its widths. Raises ConfigError where d_ff does not divide."""
        return {}

    def new_state(self, batch: int) -> State | None:
        """The state before a sequence's first token, for `batch` rows; None: the MLP has none."""
        return None

    @staticmethod
    @abstractmethod
    def cost(config: ConfigT, d_model: int, d_ff: int) -> Cost:
        """Parameters, forward FLOPs per token and state bytes of one layer, affine in d_ff."""
