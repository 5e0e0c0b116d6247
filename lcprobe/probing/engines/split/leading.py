"""One process that probes, and others that compute with it.

The first process of a `ContextSplit` runs everything as if it were alone: which prompts are read, what is scored,
what is written. For each thing that it does with the model it tells the others first, which do the same with their
parts. So whatever decides anything (claims of units, batches, what is shared) decides once.

Memory may be too little in any of them. What is done with a state alone (a new one, copies of rows) is agreed on
afterwards: where it fails in one process, it has failed in all, and the first tries with fewer prompts. In a pass the
others wait in the middle for messages of the one that failed, and cannot be called back: that ends the command.
"""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from lcprobe.errors import MemoryLimitError, PeerError, is_out_of_memory, shorten
from lcprobe.models.ranks.failures import is_of_peers
from lcprobe.models.state import HoldsTensors, StateSums
from lcprobe.probing.engines.contract import ProbedModel, ProbedState
from lcprobe.probing.engines.freeing import free_memory
from lcprobe.probing.engines.split.context import ContextSplit
from lcprobe.probing.engines.wrapped import Wrapped

Busy = Callable[[int], AbstractContextManager[None]]
"""Is entered, with the number of an order, while it is carried out, in which processes wait for each other."""


class Orders:
    """What the first process tells the others, and what all tell each other, over a group on the host."""

    def __init__(self, group: distributed.ProcessGroup, busy: Busy):
        self._group, self.busy = group, busy
        self._first = distributed.get_global_rank(group, 0)

    def send(self, order: object) -> None:
        """Tell the others. Raises PeerError where one of them is gone."""
        with_peers(lambda: distributed.broadcast_object_list([order], self._first, self._group))

    def receive(self) -> Any:
        """What the first process tells next, whenever that is. Raises PeerError where it is gone."""
        box: list[Any] = [None]
        with_peers(lambda: distributed.broadcast_object_list(box, self._first, self._group))
        return box[0]

    def gathered(self, value: object) -> list[Any]:
        """The values of all processes, in all of them. Raises PeerError where one is gone."""
        found: list[Any] = [None] * distributed.get_world_size(self._group)
        with_peers(lambda: distributed.all_gather_object(found, value, self._group))
        return found

    def agreed(self, work: Callable[[], Any]) -> Any:
        """What `work`, in which nobody waits for another, returns here. Raises MemoryError in all processes where one
        of them has too little memory for it."""
        found, full = None, False
        try:
            found = work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            full = True
        which = [rank for rank, one in enumerate(self.gathered(full)) if one]
        if which:
            found = None  # before an error, whose frames would keep it
            raise MemoryError(f"out of memory in {len(which)} of the processes that share contexts")
        return found


@dataclass(frozen=True)
class New:
    """A state before the first token."""

    batch: int
    length: int | None


@dataclass(frozen=True)
class Rows:
    """Rows of a state."""

    of: int
    index: np.ndarray


@dataclass(frozen=True)
class Pass:
    """Tokens that are read from a state on."""

    of: int
    tokens: np.ndarray


@dataclass(frozen=True)
class Sums:
    """How large a state's numbers are, which changes nothing."""

    of: int
    rows: int


Work = New | Rows | Pass | Sums
ALONE = (New, Rows)
"""Work in which nobody waits for another."""


@dataclass(frozen=True)
class Order:
    """Something to do, whose state gets a number. freed: numbers of states that nobody needs any more."""

    number: int
    work: Work
    freed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class HeldState(HoldsTensors, ProbedState):
    """A state that every process has its part of, under a number. own: the first one's."""

    number: int
    own: Any
    leading: "Leading"

    def tensors(self) -> list[Tensor]:
        """The first process's."""
        return self.own.tensors()

    def rows(self, index: Tensor) -> "HeldState":
        """See ProbedState."""
        return self.leading.rows(self, index)


class Leading(Wrapped):
    """A ContextSplit in its first process; the others `follow`."""

    def __init__(self, split: ContextSplit, orders: Orders):
        super().__init__(split)
        self._orders, self._made, self._freed = orders, 0, list[int]()

    def new_state(self, batch: int, length: int | None = None) -> HeldState:
        """See ProbedModel. Raises MemoryError where one of the processes has too little memory."""
        return self._held(*self._together(New(batch, length), lambda: self.model.new_state(batch, length)))

    def rows(self, state: HeldState, index: Tensor) -> HeldState:
        """Rows of a state, (n,) int64. Raises as `new_state`."""
        return self._held(*self._together(Rows(state.number, index.cpu().numpy()), lambda: state.own.rows(index)))

    def hidden(self, tokens: Tensor, *, state: HeldState) -> tuple[Tensor, HeldState]:
        """See ProbedModel. Raises PeerError where another process is gone, MemoryLimitError where this one has too
        little memory: the others wait in the middle of a pass then, so that it cannot be tried again with less."""
        work = Pass(state.number, tokens.cpu().numpy())
        number, (hidden, after) = self._together(work, lambda: self.model.hidden(tokens, state=state.own))
        return hidden, self._held(number, after)

    def state_sums(self, state: HeldState, rows: int) -> StateSums:
        """See ProbedModel: of all processes' parts."""
        number, sums = self._together(Sums(state.number, rows), lambda: self.model.state_sums(state.own, rows))
        self._freed.append(number)
        return sums

    def _together(self, work: Work, own: Callable[[], Any]) -> tuple[int, Any]:
        """Tell the others to do something, and do the same: the number of the order, and what it leaves here."""
        freed, self._freed[:] = tuple(self._freed), []
        self._made += 1
        with self._orders.busy(self._made):
            self._orders.send(Order(self._made, work, freed))
            return self._made, self._orders.agreed(own) if isinstance(work, ALONE) else with_peers(own)

    def _held(self, number: int, own: Any) -> HeldState:
        state = HeldState(number, own, self)
        weakref.finalize(state, self._freed.append, number)
        return state


@torch.inference_mode()
def follow(model: ProbedModel, device: torch.device | str, orders: Orders) -> object:
    """Do what the first process tells, until it tells something that is no Order, which is returned. model: the
    process's ContextSplit. Raises as `Leading.hidden`."""
    states: dict[int, Any] = {}
    while isinstance(order := orders.receive(), Order):
        for number in order.freed:
            states.pop(number, None)
        with orders.busy(order.number):
            _carry_out(order, model, device, orders, states)
    return order


def _carry_out(
    order: Order, model: ProbedModel, device: torch.device | str, orders: Orders, states: dict[int, Any]
) -> None:
    if not isinstance(order.work, ALONE):
        states[order.number] = with_peers(lambda: _made(model, device, states, order.work))
        return
    try:
        states[order.number] = orders.agreed(lambda: _made(model, device, states, order.work))
    except MemoryError:  # the first one tries with less
        free_memory()


def _made(model: ProbedModel, device: torch.device | str, states: dict[int, Any], work: Work) -> Any:
    """The state that the work leaves."""
    if isinstance(work, New):
        return model.new_state(work.batch, work.length)
    if isinstance(work, Rows):
        return states[work.of].rows(torch.from_numpy(work.index).to(device))
    if isinstance(work, Sums):
        return model.state_sums(states[work.of], work.rows)
    return model.hidden(torch.from_numpy(work.tokens).to(device), state=states[work.of])[1]


def with_peers(work: Callable[[], Any]) -> Any:
    """What `work` returns. Raises PeerError and MemoryLimitError for what torch says of other processes and of
    memory."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise MemoryLimitError(
                "out of memory in a process that shares contexts with others; allowed: a smaller probe.batch_tokens"
                " or probe.chunk, or a larger probe.context_parallel (what is finished is kept)"
            ) from error
        if not is_of_peers(error):
            raise
        said = shorten(" ".join(str(error).split()), 160)
        raise PeerError(f"another process of probe.context_parallel is gone ({said})") from error
