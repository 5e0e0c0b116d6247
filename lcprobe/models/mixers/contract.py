"""The contract of mixers: what a class behind a name in MIXERS has. What is abstract must be written; the rest has a default.

    forward      (batch, seqlen, d_model) -> the same; a state comes out exactly where one came in
    new_state    the state before a sequence's first token: explicit, forkable, of known size
    cost         parameters, FLOPs per token and bytes in closed form, which matching and `--plan` read

Feeding a sequence in any chunking gives the same outputs as feeding it whole; decoding is the same call with one token. The
contract tests run over every registered mixer (tests/models/test_contracts.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from lcprobe.models.cost import Cost
from lcprobe.models.parameters import Parametrised
from lcprobe.models.positional.contract import PositionalEncoding
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

Scan = Callable[..., tuple[Tensor, Any]]
"""A selective scan with the arguments of `lcprobe_kernels.ssd.ssd`; its state is what a wrapping extension keeps."""


@dataclass(frozen=True)
class MixerConfig:
    """Base of the settings of a mixer; a frozen dataclass with a docstring under each field, which `--help` prints."""

    def check(self, at: str) -> None:
        """Rules between values. Raises ConfigError at the first that does not hold. at: the key of this config."""

    def with_context_length(self, context_length: int | None) -> Self:
        """The same settings for a model trained at this length, where they depend on it."""
        return self

    def with_encoding(self, changes: Mapping[str, Any]) -> Self:
        """The same settings with what `model.positional` changes in a layer; asked of mixers that carry an encoding only."""
        raise NotImplementedError(f"{type(self).__name__}.with_encoding")


class Mixer(Parametrised, ABC):
    """Mixes tokens of a sequence, causally."""

    Config: ClassVar[type[MixerConfig]]
    state_type: ClassVar[type[State]]
    """Class of the states that `new_state` makes."""
    residual_outputs = ("out_proj.weight",)
    carries_encoding: ClassVar[bool] = False
    """Whether `model.positional` gives this mixer an encoding: true of attention."""
    window: int | None = None
    """Tokens that a query sees, itself included; None: all."""
    sinks: int = 0
    """First tokens of a row that a window does not hide."""
    scan: Scan | None = None
    """The selective scan, where extensions may wrap it; None: there is none."""

    @abstractmethod
    def __init__(self, config: Any, d_model: int):
        """config: an instance of `Config`. Raises ConfigError, its key relative to the mixer's, where widths do not divide."""
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, where: TokenContext, state: Any = None) -> tuple[Tensor, Any]:
        """x: (batch, seqlen, d_model) -> y of the same shape and dtype, and the state after the last token if one came in."""

    @abstractmethod
    def new_state(self, batch: int) -> Any:
        """The state before a sequence's first token, for `batch` rows."""

    @staticmethod
    @abstractmethod
    def cost(config: Any, d_model: int, length: int) -> Cost:
        """Parameters, forward FLOPs per token (mean over the positions of a sequence of `length`) and bytes of one layer."""

    @classmethod
    def is_recurrent(cls) -> bool:
        """Whether the state holds a memory of fixed size."""
        return bool(cls.state_type.recurrent)

    @property
    def encoding(self) -> PositionalEncoding | None:
        """The positional encoding that the mixer carries."""
        return None

    def set_encoding(self, encoding: PositionalEncoding) -> None:
        """Put another encoding in the place of `encoding`: what extensions do to a trained model."""
        raise NotImplementedError(f"{type(self).__name__} carries no encoding")

    def reconfigure_encoding(self, config: Any) -> None:
        """Take the encoding, temperature, window and sinks of another config, in place. Raises ConfigError where that adds or
        drops a parameter: a trained model has those that it was trained with."""

    @property
    def carry_name(self) -> Hashable | None:
        """Name of the tensors that layers pass on beside the residual stream; None: the mixer passes none."""
        return None

    def forward_with_carry(
        self, x: Tensor, where: TokenContext, state: Any, carry: Tensor | None
    ) -> tuple[Tensor, Any, Tensor | None]:
        """`forward`, and the carry for the next layer of the same `carry_name`. carry: (batch, seqlen, any width), None in the
        first such layer."""
        return *self.forward(x, where, state), carry
