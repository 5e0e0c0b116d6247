"""The state of recurrent layers before a training sequence: zeros, or one that other text or noise leaves there.

    passed      the final state of other rows of the batch, unrelated text       state passing, arXiv 2507.02782
    preceding   the final state of the text before the row in its document      truncated backpropagation through time
    noise       normal, of a given size                                          ibid.
    fitted      normal, with the mean and deviation of final states per head     ibid.

A state is computed for every micro-batch, without gradient: nothing is carried from step to step, so that a resumed
run is bit-identical. Attention layers always start empty; only recurrent layers have such a state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, require
from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.state import State
from lcprobe.training.micro_batch import MicroBatch

ConfigT = TypeVar("ConfigT")


class InitialState(ABC, Generic[ConfigT]):
    """Base class of all initial states."""

    Config: ClassVar[type]
    preceding: int = 0
    """Text before a row that the batch must include, in lengths of a row."""

    def __init__(self, config: ConfigT):
        self.config = config

    def check_rows(self, rows: int, key: str) -> None:
        """Raises ConfigError for too few rows. rows: per micro-batch."""
        return

    @abstractmethod
    def __call__(self, model: LanguageModel, batch: MicroBatch) -> LanguageModelState:
        """The state before each row of a batch, by keys of the batch such as tokens and starts."""


def initial_state_of(choice: Choice, model: LanguageModel) -> InitialState:
    """The configured initial state. Raises ConfigError for a model without recurrent layers."""
    if not any(mixer.is_recurrent() for mixer in model.mixers()):
        raise ConfigError(choice.key, choice.name, "null: the model has no recurrent layer")
    return choice.create()


@dataclass(frozen=True)
class PassedConfig:
    """Settings of passed states."""

    chain: int = 1
    """Number of rows read one after the other before a row."""
    share: float = 1.0
    """Share of rows that start with such a state; the others start with zeros."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1, and outside 0 < share <= 1."""
        require(f"{at}.chain", self.chain, self.chain >= 1, ">= 1")
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Passed(InitialState[PassedConfig]):
    """State passing: each row starts with the state after the `chain` rows before it in the micro-batch,
    cyclically."""

    Config = PassedConfig

    def check_rows(self, rows: int, key: str) -> None:
        """Raises ConfigError unless chain < rows: a row's state would include the row itself."""
        allowed = (
            f"< {rows}, the rows of a micro-batch (train.batch_tokens / (context_length x accumulate x devices))"
        )
        require(f"{key}.chain", self.config.chain, self.config.chain < rows, allowed)

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: MicroBatch) -> LanguageModelState:
        """batch: tokens (rows, seqlen), starts (rows, seqlen) or None. Raises ConfigError as `check_rows` does."""
        tokens, starts = batch["tokens"], batch["starts"]
        self.check_rows(len(tokens), "train.initial_state")
        state = model.new_state(len(tokens))
        for back in range(self.config.chain, 0, -1):
            others = torch.arange(len(tokens), device=tokens.device).roll(back)
            state = after(model, tokens[others], None if starts is None else starts[others], state)
        return in_share(state, self.config.share)


@dataclass(frozen=True)
class PrecedingConfig:
    """Settings of preceding text."""

    chunks: int = 1
    """Text of the document that is read before each row, in lengths of a row."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1."""
        require(f"{at}.chunks", self.chunks, self.chunks >= 1, ">= 1")


class Preceding(InitialState[PrecedingConfig]):
    """Rows of text continue the text before them in the document; episodes and a document's first row start with
    zeros."""

    Config = PrecedingConfig

    def __init__(self, config: PrecedingConfig):
        super().__init__(config)
        self.preceding = config.chunks

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: MicroBatch) -> LanguageModelState:
        """batch: before (rows, n) and before_starts besides tokens and starts."""
        before = batch["before"]
        assert before is not None, "the loader adds `preceding` rows of text"
        return after(model, before, batch["before_starts"], model.new_state(len(before)))


@dataclass(frozen=True)
class NoiseConfig:
    """Settings of random states."""

    scale: float = 0.1
    """Standard deviation of every entry of the state."""
    share: float = 1.0
    """Share of rows that start with such a state; the others start with zeros."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a scale that is not positive, and outside 0 < share <= 1."""
        require(f"{at}.scale", self.scale, self.scale > 0, "> 0")
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Noise(InitialState[NoiseConfig]):
    """Random normal states."""

    Config = NoiseConfig

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: MicroBatch) -> LanguageModelState:
        """batch: tokens (rows, seqlen)."""
        state = model.new_state(len(batch["tokens"]))
        layers = (_map_recurrent(layer, lambda t: torch.randn_like(t) * self.config.scale) for layer in state.layers)
        return in_share(replace(state, layers=tuple(layers)), self.config.share)


@dataclass(frozen=True)
class FittedConfig:
    """Settings of fitted random states."""

    share: float = 1.0
    """Share of rows that start with such a state; the others start with zeros."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside 0 < share <= 1."""
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Fitted(InitialState[FittedConfig]):
    """Random normal states with the mean and deviation, per head, of the final states of this batch."""

    Config = FittedConfig

    @torch.no_grad()
    def __call__(self, model: LanguageModel, batch: MicroBatch) -> LanguageModelState:
        """batch: tokens (rows, seqlen), starts (rows, seqlen) or None."""
        state = after(model, batch["tokens"], batch["starts"], model.new_state(len(batch["tokens"])))
        layers = (_map_recurrent(_recurrent_only(layer), _normal_like) for layer in state.layers)
        mlps = model.new_state(len(batch["tokens"])).mlps
        return in_share(replace(state, layers=tuple(layers), mlps=mlps), self.config.share)


def after(
    model: LanguageModel, tokens: Tensor, starts: Tensor | None, state: LanguageModelState
) -> LanguageModelState:
    """The state after reading tokens as a state before a sequence: attention layers empty, position 0."""
    _, final = model.hidden(tokens, starts=starts, state=state)
    assert final is not None
    fresh = model.new_state(len(tokens))
    layers = (old if old.recurrent else new for old, new in zip(final.layers, fresh.layers, strict=True))
    return replace(fresh, layers=tuple(layers), mlps=final.mlps)


def in_share(state: LanguageModelState, share: float) -> LanguageModelState:
    """The state in a random share of the rows, zeros in the others."""
    if share >= 1:
        return state
    sizes = [getattr(layer, name) for layer in state.layers for name in layer.recurrent]
    kept = torch.rand(len(sizes[0]), device=sizes[0].device) < share

    def in_kept(t: Tensor) -> Tensor:
        return t * kept.view(-1, *[1] * (t.dim() - 1)).to(t.dtype)

    mlps = tuple(None if mlp is None else mlp._map(in_kept) for mlp in state.mlps)
    return replace(state, layers=tuple(layer._map(in_kept) for layer in state.layers), mlps=mlps)


def _map_recurrent(layer: State, function: Callable[[Tensor], Tensor]) -> State:
    """A layer's state with a function applied to its recurrent tensors."""
    return replace(layer, **{name: function(getattr(layer, name)) for name in layer.recurrent})


def _recurrent_only(layer: State) -> State:
    """A recurrent layer's state with its other tensors zero: the last inputs of a convolution have no distribution to
    fit."""
    if not layer.recurrent:
        return layer
    kept = {name: getattr(layer, name) for name in layer.recurrent}
    return replace(layer._map(torch.zeros_like), **kept)


def _normal_like(states: Tensor) -> Tensor:
    """states: (batch, n_heads, ...) -> the same shape, normal with each head's mean and deviation over rows and
    entries."""
    over = [0, *range(2, states.dim())]
    return states.mean(over, keepdim=True) + states.std(over, keepdim=True) * torch.randn_like(states)
