"""Where one process that shares contexts has too little memory for copies of a state, all try with fewer prompts."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe.models.language_model import LanguageModelState
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.probing.engines.contract import ProbedState
from lcprobe.probing.engines.split.context import ContextSplit
from lcprobe.probing.engines.split.leading import Leading, Orders, follow
from lcprobe.probing.engines.wrapped import Wrapped
from lcprobe.probing.inference.oom import with_oom_backoff
from validation.context_parallel.processes import in_ranks
from validation.context_parallel.table import subjects
from validation.invariances.ours import built

ROWS = 3
"""Of a state that fit into the memory of the small process."""


@dataclass(frozen=True)
class SmallState(ProbedState):
    """A state of a process with little memory."""

    own: LanguageModelState

    def tensors(self) -> list[Tensor]:
        return self.own.tensors()

    def rows(self, index: Tensor) -> "SmallState":
        if len(index) > ROWS:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return SmallState(self.own.rows(index))


class Small(Wrapped):
    """A model in such a process."""

    def new_state(self, batch, length=None):
        return SmallState(self.model.new_state(batch, length))

    def hidden(self, tokens, *, state):
        hidden, after = self.model.hidden(tokens, state=state.own)
        return hidden, SmallState(after)


def with_each_small(ranks: ContextRanks) -> list[tuple[int, int, float]]:
    """Where the first process has little memory, and where the second has."""
    return [continued(ranks, small) for small in (0, 1)]


@torch.inference_mode()
def continued(ranks: ContextRanks, small: int) -> tuple[int, int, float]:
    """Seven continuations of one prompt by two processes: how many were made, at most how many at once, and how far
    from those of one process."""
    model, orders = built(dict(subjects())["attention, tape"]), Orders(ranks.group, lambda number: nullcontext())
    split = ContextSplit(model, ranks)
    own = Small(split) if ranks.rank == small else split
    if ranks.rank:
        follow(own, "cpu", orders)
        return 0, 0, 0.0
    tokens = torch.randint(2, 16, (1, 40), generator=torch.Generator().manual_seed(3))
    more = torch.randint(2, 16, (7, 2), generator=torch.Generator().manual_seed(4))
    leading = Leading(own, orders)
    _, state = leading.hidden(tokens, state=leading.new_state(1))

    def work(items: list[int]) -> list[Tensor]:
        copies = state.rows(torch.zeros(len(items), dtype=torch.int64))
        return list(leading.hidden(more[items], state=copies)[0])

    found, most = with_oom_backoff(work, list(range(7)), 42)
    orders.send(None)
    whole, _ = model.hidden(torch.cat([tokens.expand(7, -1), more], dim=1))
    made = [one for one in found if one is not None]
    return len(made), most, float((torch.stack(made) - whole[:, -2:]).abs().max())


def test_all_halve_a_batch_that_does_not_fit_one_of_them():
    for made, most, apart in in_ranks(2, with_each_small):
        assert made == 7
        assert most <= ROWS
        assert apart < 1e-12
