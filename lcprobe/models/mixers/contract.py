"""The contract of mixers, the classes behind the names in MIXERS. Abstract methods must be implemented; the rest has
defaults.

    forward      (batch, seqlen, d_model) -> the same shape; a state is returned exactly where one is passed in
    new_state    the state before a sequence's first token: explicit, forkable, of known size
    cost         parameters, FLOPs per token and bytes in closed form, which matching and `--plan` read

Processing a sequence in any chunks gives the same outputs as processing it whole; decoding is the same call with one
token. The contract tests run over every registered mixer (tests/models/test_contracts.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

from torch import Tensor, nn

from lcprobe.models.cost import Cost
from lcprobe.models.parameters import Parametrised
from lcprobe.models.positional.contract import PositionalEncoding
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import State, StateT
from lcprobe.models.tensor_parallel.split import Share, Split
from lcprobe.models.token_context import TokenContext

Scan = Callable[..., tuple[Tensor, Tensor | State | None]]
"""A selective scan with the arguments of `lcprobe_kernels.ssd.ssd`; extensions that wrap it may return another
state."""


@dataclass(frozen=True)
class MixerConfig:
    """Base of the settings of a mixer: a frozen dataclass with a docstring under each field, which `--help`
    prints."""

    def check(self, at: str) -> None:
        """Raises ConfigError for values out of range or that do not fit together. at: the key of this config."""

    def with_context_length(self, context_length: int | None) -> Self:
        """The same settings for a model trained at this length, where they depend on it."""
        return self

    def with_encoding(self, changes: Mapping[str, object]) -> Self:
        """The same settings with a layer's part of `model.positional`; called for mixers that carry an encoding
        only."""
        raise NotImplementedError(f"{type(self).__name__}.with_encoding")

    @property
    def carry_group(self) -> Hashable | None:
        """Name of the layers among which this one's settings depend on whether it is the first; None: they do
        not."""
        return None

    def in_group(self, index: int, n_layers: int) -> Self:
        """The same settings for layer `index` of the n_layers of its `carry_group`; they differ in layer 0 only.
        Raises ConfigError, with a key relative to the mixer's, for settings that need more layers."""
        return self


ConfigT = TypeVar("ConfigT", bound=MixerConfig)


class SharedOutput(nn.Module):
    """The identity in place of an output projection that is applied elsewhere."""

    def __init__(self, shared: nn.Linear):
        super().__init__()
        self._shared = (shared,)  # in a tuple: it is another module's

    @property
    def weight(self) -> Tensor:
        """Weight of the shared projection, for dtype, device and width."""
        return self._shared[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        return x


class Mixer(Parametrised, ABC, Generic[ConfigT, StateT]):
    """A causal token mixer with its config and its state."""

    Config: ClassVar[type[MixerConfig]]
    state_type: ClassVar[type[State]]
    """Class of the states that `new_state` returns."""
    residual_outputs = ("out_proj.weight",)
    """Of mixers, one matrix: that of the output projection, an nn.Linear and the last operation of `forward`."""
    carries_encoding: ClassVar[bool] = False
    """Whether `model.positional` sets an encoding of this mixer: true of attention."""
    window: int | None = None
    """Number of tokens that a query sees, itself included; None: all earlier ones."""
    divides_context: ClassVar[bool] = True
    """Whether sequences can be divided over ranks: its state before a sequence's first token has the shapes of every
    later one, or it `exchanges`."""
    divides_passes: ClassVar[bool] = False
    """Whether `forward` with a state gets what a part of a pass needs from the other ranks of `where.ranks`, as
    attention does; otherwise the state after a part is passed to the next rank."""
    sinks: int = 0
    """Number of first tokens of a row that stay visible in addition to the window."""
    scan: Scan | None = None
    """The selective scan, which extensions may wrap; None: the mixer has none."""

    @abstractmethod
    def __init__(self, config: ConfigT, d_model: int):
        """config: an instance of `Config`. Raises ConfigError, with a key relative to the mixer's, where widths do
        not divide."""
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, where: TokenContext, state: StateT | None = None) -> tuple[Tensor, StateT | None]:
        """x: (batch, seqlen, d_model) -> y of the same shape and dtype, and the next state if one was passed in."""

    @abstractmethod
    def new_state(self, batch: int) -> StateT:
        """The state before a sequence's first token, for `batch` rows."""

    def divided_state(self, batch: int, ranks: ContextRanks) -> StateT:
        """`new_state`, of which this rank keeps a part of what grows with the text while all ranks read the same
        tokens. Raises ConfigError where that cannot be divided."""
        return self.new_state(batch)

    @staticmethod
    @abstractmethod
    def cost(config: ConfigT, d_model: int, length: int) -> Cost:
        """Parameters, forward FLOPs per token (mean over the positions of a sequence of `length`) and bytes of one
        layer."""

    @property
    def output(self) -> nn.Linear:
        """The output projection."""
        linear = self.get_submodule(self._output_name)
        assert isinstance(linear, nn.Linear)
        return linear

    def tensor_splits(self, n: int) -> Mapping[str, Split]:
        """How n processes that share the layer divide its parameters, by name; empty: each has the whole layer.
        Raises ConfigError where heads do not divide."""
        return {}

    def take_share(self, share: Share) -> None:
        """Adopt the widths of one share, in place, after the parameters were divided by `tensor_splits`."""
        raise NotImplementedError(f"{type(self).__name__}.take_share")

    def share_output(self, shared: nn.Linear) -> None:
        """Leave the output projection to the block, which has one for several mixers in parallel: `forward` returns
        what it would project."""
        self.set_submodule(self._output_name, SharedOutput(shared))

    @property
    def _output_name(self) -> str:
        return self.residual_outputs[0].removesuffix(".weight")

    @classmethod
    def is_recurrent(cls) -> bool:
        """Whether the mixer has a recurrent state of fixed size."""
        return bool(cls.state_type.recurrent)

    @property
    def exchanges(self) -> bool:
        """Whether `forward` without a state exchanges what it needs of other chunks with the other ranks of
        `where.ranks`; otherwise the state after a chunk is passed to the next rank."""
        return False

    @property
    def encoding(self) -> PositionalEncoding | None:
        """The positional encoding that the mixer carries, if any."""
        return None

    def set_encoding(self, encoding: PositionalEncoding) -> None:
        """Replace `encoding`, as extensions do in a trained model."""
        raise NotImplementedError(f"{type(self).__name__} carries no encoding")

    def reconfigure_encoding(self, config: ConfigT) -> None:
        """Adopt the encoding, temperature, window and sinks of another config, in place. Raises ConfigError where
        that would add or remove parameters."""

    @property
    def carry_name(self) -> Hashable | None:
        """Name of the carry, tensors that layers pass on alongside the residual stream; None: the mixer has no
        carry."""
        return None

    def forward_with_carry(
        self, x: Tensor, where: TokenContext, state: StateT | None, carry: Tensor | None
    ) -> tuple[Tensor, StateT | None, Tensor | None]:
        """`forward`, and the carry for the next layer with the same `carry_name`. carry: (batch, seqlen, any width)
        from the previous one, None in the first."""
        return *self.forward(x, where, state), carry
