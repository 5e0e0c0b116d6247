"""The state of recurrent layers before a training sequence: zeros, or one that other text or noise leaves there.

    passed      h_0 = h_T of other rows of the batch, unrelated text             state passing, arXiv 2507.02782
    preceding   h_0 = h_T of the text before the row in its document            truncated backpropagation in time
    noise       h_0 ~ N(0, scale^2)                                              ibid.
    fitted      h_0 ~ N(mean, deviation^2) of final states h_T per head          ibid.

A state is computed in every step, without gradient, from the rows of the whole batch of the step: however these are
divided over micro-batches and processes, a row gets the same one. Nothing is carried from step to step, so that a
resumed run is bit-identical. Attention layers always start empty; only recurrent layers have such a state. Processes
that share a sequence share what is read for it, too, and the first of them begins with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from lcprobe_kernels.transfer import sent
from torch import Tensor

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, require
from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import State
from lcprobe.training.draws import StepDraws, normal_like
from lcprobe.training.micro_batch import MicroBatch, on_host
from lcprobe.training.ranks import summed

ConfigT = TypeVar("ConfigT")


class InitialState(ABC, Generic[ConfigT]):
    """Base class of all initial states."""

    Config: ClassVar[type]
    preceding: int = 0
    """Text before a row that the batch must include, in lengths of a row."""
    earlier: int = 0
    """Rows before a micro-batch in the whole batch that it must include."""
    measures_batch: bool = False
    """Whether the first micro-batch of a step must include all that the process has of the step."""

    def __init__(self, config: ConfigT):
        self.config = config

    def check_rows(self, rows: int, key: str) -> None:
        """Raises ConfigError for too few rows. rows: of the whole batch of a step."""
        return

    @abstractmethod
    def __call__(
        self, model: LanguageModel, batch: MicroBatch, draws: StepDraws, ranks: ContextRanks | None = None
    ) -> LanguageModelState:
        """The state before each row of a micro-batch, by keys of the batch such as tokens and starts. ranks: those
        that share what is read for it."""


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
    """State passing: each row starts with the state after the `chain` rows before it in the batch of the step,
    cyclically."""

    Config = PassedConfig

    def __init__(self, config: PassedConfig):
        super().__init__(config)
        self.earlier = config.chain

    def check_rows(self, rows: int, key: str) -> None:
        """Raises ConfigError unless chain < rows: a row's state would include the row itself."""
        allowed = f"< {rows}, the rows of a step (train.batch_tokens / context_length)"
        require(f"{key}.chain", self.config.chain, self.config.chain < rows, allowed)

    @torch.no_grad()
    def __call__(
        self, model: LanguageModel, batch: MicroBatch, draws: StepDraws, ranks: ContextRanks | None = None
    ) -> LanguageModelState:
        """batch: tokens (rows, seqlen), starts (rows, seqlen) or None; earlier (chain, seqlen) and earlier_starts;
        starts on the host."""
        earlier, rows, chain = batch["earlier"], len(batch["tokens"]), self.config.chain
        assert earlier is not None, "the loader adds `chain` rows"
        tokens = torch.cat([earlier, batch["tokens"]])
        given = [
            (batch["earlier_starts"], batch["earlier_starts_on_host"], earlier),
            (batch["starts"], batch["starts_on_host"], batch["tokens"]),
        ]
        starts = torch.cat([torch.zeros_like(t, dtype=torch.bool) if s is None else s for s, _, t in given])
        known = [np.zeros(t.shape, dtype=bool) if s is None else s for _, s, t in given]
        starts_on_host = torch.from_numpy(np.concatenate(known))
        has_starts = any(s is not None for s, _, _ in given)
        state = model.new_state(rows)
        draws.reseed("initial state")
        for first in range(chain):
            read = slice(first, first + rows)
            packed = (starts[read], starts_on_host[read]) if has_starts else (None, None)
            state = after(model, tokens[read], *packed, state, ranks)
        return in_share(state, self.config.share, draws)


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
    def __call__(
        self, model: LanguageModel, batch: MicroBatch, draws: StepDraws, ranks: ContextRanks | None = None
    ) -> LanguageModelState:
        """batch: before (rows, n) and before_starts besides tokens and starts."""
        before = batch["before"]
        assert before is not None, "the loader adds `preceding` rows of text"
        draws.reseed("initial state")
        starts, known = batch["before_starts"], on_host(batch["before_starts_on_host"])
        return after(model, before, starts, known, model.new_state(len(before)), ranks)


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
    def __call__(
        self, model: LanguageModel, batch: MicroBatch, draws: StepDraws, ranks: ContextRanks | None = None
    ) -> LanguageModelState:
        """batch: tokens (rows, seqlen)."""
        tokens = batch["tokens"]
        state, generators = model.new_state(len(tokens)), draws.generators(len(tokens), tokens.device)
        noise = [
            _map_recurrent(layer, lambda _, t: normal_like(t, generators) * self.config.scale)
            for layer in state.layers
        ]
        return in_share(replace(state, layers=tuple(noise)), self.config.share, draws)


@dataclass(frozen=True)
class FittedConfig:
    """Settings of fitted random states."""

    share: float = 1.0
    """Share of rows that start with such a state; the others start with zeros."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside 0 < share <= 1."""
        require(f"{at}.share", self.share, 0 < self.share <= 1, "0 < share <= 1")


class Fitted(InitialState[FittedConfig]):
    """Random normal states with the mean and deviation, per head, of the final states of the whole batch of the
    step."""

    Config = FittedConfig
    measures_batch = True

    def __init__(self, config: FittedConfig):
        super().__init__(config)
        self._moments: list[dict[str, tuple[Tensor, Tensor]]] = []
        """Mean and deviation of each recurrent tensor of each layer, in the current step."""

    @torch.no_grad()
    def __call__(
        self, model: LanguageModel, batch: MicroBatch, draws: StepDraws, ranks: ContextRanks | None = None
    ) -> LanguageModelState:
        """batch: tokens (rows, seqlen), and own_parts with the first of a step."""
        tokens, parts = batch["tokens"], batch["own_parts"]
        if parts is not None:
            self._moments = self._measured(model, parts, draws, ranks)
        state, generators = model.new_state(len(tokens)), draws.generators(len(tokens), tokens.device)
        layers = []
        for layer, moments in zip(state.layers, self._moments, strict=True):

            def drawn(name: str, t: Tensor, moments: dict[str, tuple[Tensor, Tensor]] = moments) -> Tensor:
                mean, deviation = moments[name]
                return mean.to(t.dtype) + deviation.to(t.dtype) * normal_like(t, generators)

            layers.append(_map_recurrent(layer, drawn))
        return in_share(replace(state, layers=tuple(layers)), self.config.share, draws)

    def _measured(
        self,
        model: LanguageModel,
        parts: Sequence[tuple[Tensor, Tensor | None, np.ndarray | None]],
        draws: StepDraws,
        ranks: ContextRanks | None,
    ) -> list[dict[str, tuple[Tensor, Tensor]]]:
        """Mean and deviation per head, over rows and entries, of the states after the rows of all processes."""
        sums: list[dict[str, Tensor]] = []
        for tokens, starts, known in parts:
            draws.reseed("initial state")
            state = after(model, tokens, starts, on_host(known), model.new_state(len(tokens)), ranks)
            found = [{name: _sums(getattr(layer, name)) for name in layer.recurrent} for layer in state.layers]
            sums = [{k: a[k] + b[k] for k in a} for a, b in zip(sums, found, strict=True)] if sums else found
        return [{name: _moments(summed(value, "data")) for name, value in layer.items()} for layer in sums]


def after(
    model: LanguageModel,
    tokens: Tensor,
    starts: Tensor | None,
    starts_on_host: Tensor | None,
    state: LanguageModelState,
    ranks: ContextRanks | None = None,
) -> LanguageModelState:
    """The state after reading tokens as a state before a sequence: attention layers empty, position 0. ranks: those
    that each read a part of the tokens; all of them get the state."""
    if ranks is None:
        _, final = model.hidden(tokens, starts=starts, starts_on_host=starts_on_host, state=state)
    else:
        _, final = model.hidden_of_part(
            tokens, starts=starts, starts_on_host=starts_on_host, state=state, ranks=ranks
        )
    assert final is not None
    fresh = model.new_state(len(tokens))
    layers = (old if old.recurrent else new for old, new in zip(final.layers, fresh.layers, strict=True))
    return replace(fresh, layers=tuple(layers), mlps=final.mlps)


def in_share(state: LanguageModelState, share: float, draws: StepDraws) -> LanguageModelState:
    """The state in a random share of the rows, zeros in the others."""
    if share >= 1:
        return state
    sizes = [getattr(layer, name) for layer in state.layers for name in layer.recurrent]
    kept = sent(draws.chosen(len(sizes[0]), share), sizes[0].device)

    def in_kept(t: Tensor) -> Tensor:
        return t * kept.view(-1, *[1] * (t.dim() - 1)).to(t.dtype)

    mlps = tuple(None if mlp is None else mlp._map(in_kept) for mlp in state.mlps)
    return replace(state, layers=tuple(layer._map(in_kept) for layer in state.layers), mlps=mlps)


def _map_recurrent(layer: State, function: Callable[[str, Tensor], Tensor]) -> State:
    """A layer's state with a function of their names and values applied to its recurrent tensors. The others, such as
    the last inputs of a convolution, have no distribution to draw from."""
    return replace(layer, **{name: function(name, getattr(layer, name)) for name in layer.recurrent})


def _sums(states: Tensor) -> Tensor:
    """(rows, n_heads, ...) -> (3, 1, n_heads, 1 ...) float64: number, sum and sum of squares of each head's entries
    over rows."""
    over, wide = [0, *range(2, states.dim())], states.to(torch.float64)
    total, squares = wide.sum(over, keepdim=True), wide.square().sum(over, keepdim=True)
    return torch.stack([torch.full_like(total, states.numel() / total.numel()), total, squares])


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (1, n_heads, 1 ...), from `_sums`."""
    n, total, squares = sums
    mean = total / n
    return mean, ((squares - n * mean.square()) / (n - 1)).clamp_min(0).sqrt()
