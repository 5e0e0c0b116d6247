"""State: what a model carries from one chunk of a sequence to the next: explicit, forkable, movable."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor


class HoldsTensors(ABC):
    """What has tensors with a leading batch dimension, whose size and values can be measured."""

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """All of them."""


@dataclasses.dataclass(frozen=True)
class State(HoldsTensors):
    """Base of every mixer's state: a frozen dataclass whose fields are tensors with a leading batch dimension,
    None, tuples of states, or plain numbers shared by the whole batch."""

    recurrent: ClassVar[tuple[str, ...]] = ()
    """Names of recurrent fields of fixed size, (batch, ...), which can be carried over to unrelated text."""

    def fork(self, n: int) -> Self:
        """Repeat each row n times, (a, b) -> (a, a, b, b), for several questions over one context."""
        return self._map(lambda t: t.repeat_interleave(n, dim=0))

    def rows(self, index: Tensor) -> Self:
        """The rows of the batch at `index` (n,) int64."""
        return self._map(lambda t: t.index_select(0, index.to(t.device)))

    def to(self, device: torch.device | str) -> Self:
        """The same state on another device."""
        return self._map(lambda t: t.to(device))

    def tensors(self) -> list[Tensor]:
        """Its tensors, including those of nested states, in the order of its fields."""
        return [t for f in dataclasses.fields(self) for t in tensors_of(getattr(self, f.name))]

    @property
    def nbytes(self) -> int:
        """Size in bytes, all rows together."""
        return sum(t.numel() * t.element_size() for t in tensors_of(self))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return dataclasses.replace(
            self, **{f.name: _mapped(getattr(self, f.name), change) for f in dataclasses.fields(self)}
        )


def _mapped(value: object, change: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, State):
        return value._map(change)
    if isinstance(value, tuple):
        return tuple(_mapped(v, change) for v in value)
    return value


def tensors_of(value: object) -> list[Tensor]:
    """The tensors of a state, including nested states, in the order of its fields."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, HoldsTensors):
        return value.tensors()
    if isinstance(value, tuple | list):
        return [t for v in value for t in tensors_of(v)]
    return []
