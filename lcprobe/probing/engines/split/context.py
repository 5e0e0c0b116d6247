"""A model whose contexts are divided over the processes of a group: contexts longer than one device holds.

Every process has the model's weights, reads the same prompts in the same order, and gets the same hidden vectors, so
that all of probing works as it is; one of them reports. The passes in which a prompt is read are divided by tokens:
embedding, mixers and MLPs of a part are computed by one process alone (`LanguageModel.hidden_of_part`). Caches of
attention without a window are divided by tokens, too, and each process attends to its share
(`models.context_parallel.divided`). States of fixed size and the few keys of windows are held by all, and passes of a
few tokens, such as those of an answer, are computed by all.
"""

from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, distributed

from lcprobe.errors import ConfigError
from lcprobe.models.context_parallel.passing import passed_of
from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import State, StateSums, sums_of
from lcprobe.probing.engines.wrapped import Wrapped

LEAST = 8
"""Tokens of a part, at least: shorter passes are computed by all, as the messages would take longer."""


class ContextSplit(Wrapped):
    """A LanguageModel whose passes and caches are divided."""

    def __init__(self, model: LanguageModel, ranks: ContextRanks):
        """Raises ConfigError for an encoding or an extension whose attention cannot be merged, and for a mixer or an
        extension whose state changes its shape."""
        super().__init__(model)
        self._native, self._ranks = model, ranks
        check_divides(model)
        _check_shapes(model)

    @property
    def note(self) -> str:
        """How many processes share a context, for the report."""
        return f"contexts divided over {self._ranks.size} processes"

    def new_state(self, batch: int, length: int | None = None) -> LanguageModelState:
        """See ProbedModel: with this process's part of every cache."""
        layers = tuple(mixer.divided_state(batch, self._ranks) for mixer in self._native.mixers())
        return replace(self._native.new_state(batch, length), layers=layers)

    def hidden(self, tokens: Tensor, *, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """See ProbedModel; called by all processes alike."""
        ranks, n = self._ranks, tokens.shape[1]
        if n < LEAST * ranks.size:
            hidden, after = self._native.hidden(tokens, state=state)
            assert after is not None
            return hidden, after
        own, after = self._native.hidden_of_part(tokens, state=state, ranks=ranks)
        return ranks.gathered("hidden vectors", own, n), after

    def state_sums(self, state: LanguageModelState, rows: int) -> StateSums:
        """See ProbedModel: of all processes' parts; called by all alike."""
        ranks = self._ranks
        sums = sums_of(state.parts() if ranks.rank else state.tensors(), rows)
        each: list[Any] = [None] * ranks.size
        distributed.all_gather_object(each, sums, ranks.group)
        return reduce(StateSums.plus, each)


def check_divides(model: LanguageModel) -> None:
    """Raises ConfigError for encodings and mixers that cannot be divided. The model may be on the meta device."""
    model.check_context_parallel("probe.context_parallel", 2)
    nobody: Any = None
    for mixer in model.mixers():
        mixer.divided_state(1, ContextRanks(nobody, 0, 2))


@torch.no_grad()
def _check_shapes(model: LanguageModel) -> None:
    """Raises ConfigError for a mixer or an MLP whose state after a token has not the shapes of that before it, which
    processes pass on. Reads one token."""
    before = model.new_state(1, 1 if model.needs_length else None)
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.head_weight.device)
    _, after = model.hidden(token, state=before)
    assert after is not None
    names = [type(mixer).__name__ for mixer in model.mixers()] + ["MLP"] * len(before.mlps)
    for name, one, other in zip(names, before.layers + before.mlps, after.layers + after.mlps, strict=True):
        if _shapes(one) != _shapes(other):
            allowed = "mixers and extensions whose state keeps its shape, which processes pass on"
            raise ConfigError("probe.context_parallel", f"more than 1 with {name}", allowed)


def _shapes(state: State | None) -> list[torch.Size]:
    return [] if state is None else [t.shape for t in passed_of(state)]
