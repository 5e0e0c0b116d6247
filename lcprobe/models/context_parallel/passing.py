"""State passing: the state after a rank's chunk is the state before the next one's. While training, with gradients
(`received`, `sent`); and while a prompt is read pass by pass (`before_part`, `after_part`), after each of which all
ranks have the last one's state (`settled`).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lcprobe.models.ranks import messages
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import State, StateT, mapped, tensors_of
from lcprobe.models.token_context import TokenContext


def received(where: TokenContext, layer: nn.Module, x: Tensor, first: StateT) -> tuple[Tensor, StateT]:
    """x, and the layer's state before its chunk. first: that before a sequence's first token. x must be the layer's
    input."""
    assert where.ranks is not None
    x, tensors = messages.received(where.ranks, x, tensors_of(first), where.messages, layer)
    values = iter(tensors)
    return x, cast(StateT, mapped(first, lambda _: next(values)))


def sent(where: TokenContext, layer: nn.Module, y: Tensor, after: State | None, first: State) -> Tensor:
    """y, the layer's output, after sending its state to the next rank. first: as in `received`, for the dtypes."""
    assert where.ranks is not None
    pairs = zip(tensors_of(after), tensors_of(first), strict=True)
    return messages.sent(where.ranks, y, [t.to(like.dtype) for t, like in pairs], where.messages, layer)


def before_part(ranks: ContextRanks | None, before: StateT | None) -> StateT | None:
    """A layer's state before this rank's part of a pass. before: that before the whole pass, which all have. ranks:
    None: the pass is not divided."""
    if ranks is None or not ranks.rank or before is None:
        return before
    tensors = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in passed_of(before)]
    ranks.swap("state", [], [(ranks.rank - 1, t) for t in tensors])
    values = iter(tensors)
    return before.map_passed(lambda _: next(values))


def after_part(ranks: ContextRanks | None, after: State | None, before: State) -> None:
    """Send the state after this rank's part to the next one. before: as for `before_part`, for the dtypes."""
    if ranks is None or ranks.rank == ranks.size - 1 or after is None:
        return
    pairs = zip(passed_of(after), passed_of(before), strict=True)
    ranks.swap("state", [(ranks.rank + 1, t.to(like.dtype).contiguous()) for t, like in pairs], [])


def settled(ranks: ContextRanks, states: Sequence[State | None]) -> list[State | None]:
    """The states of layers after a whole pass, from those after this rank's part; None stays None."""
    values = iter(ranks.from_last("state", [t for state in states if state is not None for t in passed_of(state)]))
    return [None if state is None else state.map_passed(lambda _: next(values)) for state in states]


def passed_of(state: State) -> list[Tensor]:
    """The tensors that the next part of a pass needs of a state."""
    found: list[Tensor] = []

    def add(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    state.map_passed(add)
    return found
