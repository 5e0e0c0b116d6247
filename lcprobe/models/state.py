"""State: what a model carries from one chunk of a sequence to the next: explicit, forkable, movable."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self, TypeVar

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

    def map_passed(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same state with a function applied to what the next part of a divided pass needs of it: all tensors,
        but for layers whose parts get the rest in another way."""
        return self._map(change)

    def parts(self) -> list[Tensor]:
        """Its tensors that are a rank's part of what several share, including those of nested states; without ranks
        none."""
        values = (getattr(self, f.name) for f in dataclasses.fields(self))
        nested = (v for value in values for v in (value if isinstance(value, tuple) else (value,)))
        return [t for state in nested if isinstance(state, State) for t in state.parts()]

    @property
    def nbytes(self) -> int:
        """Size in bytes, all rows together."""
        return sum(t.numel() * t.element_size() for t in tensors_of(self))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return dataclasses.replace(
            self, **{f.name: mapped(getattr(self, f.name), change) for f in dataclasses.fields(self)}
        )


StateT = TypeVar("StateT", bound=State)


def mapped(value: object, change: Callable[[Tensor], Tensor]) -> object:
    """A state, or nested states, with a function applied to every tensor, in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, State):
        return value._map(change)
    if isinstance(value, tuple):
        return tuple(mapped(v, change) for v in value)
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


@dataclasses.dataclass(frozen=True)
class StateSums:
    """Of the floating-point tensors of a state, by row, (n,) each: squares, the sum of squares in float64; values and
    bad, how many numbers are finite and are not. size: bytes of all rows and tensors."""

    squares: Tensor
    values: Tensor
    bad: Tensor
    size: int

    def plus(self, other: "StateSums") -> "StateSums":
        """Of both."""
        pairs = (self.squares + other.squares, self.values + other.values, self.bad + other.bad)
        return StateSums(*pairs, self.size + other.size)


def sums_of(tensors: list[Tensor], n: int) -> StateSums:
    """The sums over tensors with n rows, on the CPU."""
    squares = torch.zeros(n, dtype=torch.float64)
    values, bad = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    for tensor in tensors:
        if not tensor.is_floating_point():
            continue
        flat = tensor.reshape(n, -1)
        finite = flat.isfinite()
        squares += torch.linalg.vector_norm(flat.where(finite, 0), dim=1, dtype=torch.float64).square().cpu()
        values += finite.sum(1).cpu()
        bad += (~finite).sum(1).cpu()
    return StateSums(squares, values, bad, sum(t.numel() * t.element_size() for t in tensors))
