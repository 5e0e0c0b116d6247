"""What a recurrent model's state holds before a training sequence: nothing, or what some other text left there.

    passed      the final state of other rows of the batch, unrelated text       state passing, arXiv 2507.02782
    preceding   the final state of the text before the row in its document      truncated backpropagation through time
    noise       normal, of a given size                                          ibid.
    fitted      normal, with mean and deviation of final states, a head          ibid.

A state is made anew for every micro-batch by reading something first, without gradient: nothing is carried from step to step, so
a run resumes to the bit. Attention layers begin empty in any case; only recurrent layers hold a state.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, require
from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.state import State


class InitialState(ABC):
    """Base: what is asked of each."""

    Config: ClassVar[type]
    preceding: int = 0
    """Sequences' lengths of text before a row that the batch must bring along."""

    def __init__(self, config: Any):
        self.config = config

    def check_rows(self, rows: int, key: str) -> None:
        """rows: of a micro-batch. Raises ConfigError where they are too few."""
        return

    @abstractmethod
    def __call__(self, model: LanguageModel, batch: dict[str, Any]) -> LanguageModelState:
        """The state before each row of a batch."""


def initial_state_of(choice: Choice, model: LanguageModel) -> InitialState:
    """The chosen initial state. Raises ConfigError for a model without recurrent layers."""
    if not any(mixer.is_recurrent() for mixer in model.mixers()):
        raise ConfigError(choice.key, choice.name, "null: the model has no recurrent layer to hold a state")
    return choice.create()


@dataclass(frozen=True)
class PassedConfig:
    """How much is passed."""

    chain: int = 1
    """Rows that are read one after the other before a row: their lengths add up to what the state has seen."""
    share: float = 1.0
    """Share of rows with a state; the others begin empty."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1, and outside 0 < share <= 1."""
        require(f"{at}.chain", self.chain, self.chain >= 1, ">= 1")
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Passed(InitialState):
    """Each row begins with the state after the `chain` rows before it in the micro-batch, the last ones before the first."""

    Config = PassedConfig

    def check_rows(self, rows: int, key: str) -> None:
        """With as many rows as are read before one, a row's state would hold the row itself."""
        allowed = (
            f"< {rows}, the rows of a micro-batch (train.batch_tokens / (context_length x accumulate x devices))"
        )
        require(f"{key}.chain", self.config.chain, self.config.chain < rows, allowed)

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: dict[str, Any]) -> LanguageModelState:
        """batch: tokens (rows, seqlen), starts (rows, seqlen) or None. Raises ConfigError as `check_rows` does."""
        tokens, starts = batch["tokens"], batch["starts"]
        self.check_rows(len(tokens), "train.initial_state")
        state = model.new_state(len(tokens))
        for back in range(self.config.chain, 0, -1):
            others = torch.arange(len(tokens), device=tokens.device).roll(back)
            state = after(model, tokens[others], None if starts is None else starts[others], state)
        return some(state, self.config.share)


@dataclass(frozen=True)
class PrecedingConfig:
    """How far back."""

    chunks: int = 1
    """Sequences' lengths of the document that are read before each row of text."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1."""
        require(f"{at}.chunks", self.chunks, self.chunks >= 1, ">= 1")


class Preceding(InitialState):
    """Rows of text go on from what stands before them; episodes and documents' first rows begin empty."""

    Config = PrecedingConfig

    def __init__(self, config: PrecedingConfig):
        super().__init__(config)
        self.preceding = config.chunks

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: dict[str, Any]) -> LanguageModelState:
        """batch: before (rows, n) and before_starts beside tokens and starts."""
        return after(model, batch["before"], batch["before_starts"], model.new_state(len(batch["before"])))


@dataclass(frozen=True)
class NoiseConfig:
    """How much."""

    scale: float = 0.1
    """Standard deviation of every number of the state."""
    share: float = 1.0
    """Share of rows with a state; the others begin empty."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a scale that is not positive, and outside 0 < share <= 1."""
        require(f"{at}.scale", self.scale, self.scale > 0, "> 0")
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Noise(InitialState):
    """Normal numbers."""

    Config = NoiseConfig

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: dict[str, Any]) -> LanguageModelState:
        """batch: tokens (rows, seqlen)."""
        state = model.new_state(len(batch["tokens"]))
        layers = (_memory(layer, lambda t: torch.randn_like(t) * self.config.scale) for layer in state.layers)
        return some(replace(state, layers=tuple(layers)), self.config.share)


@dataclass(frozen=True)
class FittedConfig:
    """Of which rows."""

    share: float = 1.0
    """Share of rows with a state; the others begin empty."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside 0 < share <= 1."""
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Fitted(InitialState):
    """Normal numbers with the mean and the deviation that final states of this batch have in each head."""

    Config = FittedConfig

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: dict[str, Any]) -> LanguageModelState:
        """batch: tokens (rows, seqlen), starts (rows, seqlen) or None."""
        state = after(model, batch["tokens"], batch["starts"], model.new_state(len(batch["tokens"])))
        layers = (_memory(_empty_but(layer), _like) for layer in state.layers)
        return some(replace(state, layers=tuple(layers)), self.config.share)


def after(
    model: LanguageModel, tokens: Tensor, starts: Tensor | None, state: LanguageModelState
) -> LanguageModelState:
    """The recurrent layers' states after reading tokens, as a state before a sequence: attention layers empty, place 0."""
    _, read = model.hidden(tokens, starts=starts, state=state)
    assert read is not None
    fresh = model.new_state(len(tokens))
    layers = (old if old.recurrent else new for old, new in zip(read.layers, fresh.layers, strict=True))
    return replace(fresh, layers=tuple(layers))


def some(state: LanguageModelState, share: float) -> LanguageModelState:
    """The state in a random share of the rows, zeros in the others."""
    if share >= 1:
        return state
    sizes = [getattr(layer, name) for layer in state.layers for name in layer.recurrent]
    kept = torch.rand(len(sizes[0]), device=sizes[0].device) < share
    layers = (layer._map(lambda t: t * kept.view(-1, *[1] * (t.dim() - 1)).to(t.dtype)) for layer in state.layers)
    return replace(state, layers=tuple(layers))


def _memory(layer: State, change: Any) -> State:
    """A layer's state with its recurrent tensors changed."""
    return replace(layer, **{name: change(getattr(layer, name)) for name in layer.recurrent})


def _empty_but(layer: State) -> State:
    """A recurrent layer with everything but its memory at zero: a convolution's last inputs are no distribution to draw from."""
    if not layer.recurrent:
        return layer
    kept = {name: getattr(layer, name) for name in layer.recurrent}
    return replace(layer._map(torch.zeros_like), **kept)


def _like(memory: Tensor) -> Tensor:
    """memory: (batch, n_heads, ...) -> as large, normal with each head's mean and deviation over rows and entries."""
    over = [0, *range(2, memory.dim())]
    return memory.mean(over, keepdim=True) + memory.std(over, keepdim=True) * torch.randn_like(memory)
