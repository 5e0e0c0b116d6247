"""How the parameters of a layer are divided among the processes that share it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from lcprobe.errors import ConfigError
from lcprobe.models.tensor_parallel.layers import ForkedLinear, SummedLinear


@dataclass(frozen=True)
class Share:
    """One of n shares of a layer. group: the processes with the others."""

    index: int
    n: int
    group: distributed.ProcessGroup


@dataclass(frozen=True)
class Section:
    """Consecutive entries along a dimension. divided: evenly among the processes; otherwise all have all of them, and
    each the gradient of what it computed: their sum is the gradient."""

    size: int
    divided: bool = True


@dataclass(frozen=True)
class Piece:
    """A box of a parameter that a process has: where it begins in the process's own tensor and in the whole one, and
    its size, along each dimension. summed: its gradient is the sum over the processes that share the layer."""

    own: tuple[int, ...]
    whole: tuple[int, ...]
    size: tuple[int, ...]
    summed: bool = False

    def of_own(self, tensor: Tensor) -> Tensor:
        """The view of the piece in a process's own tensor."""
        return tensor[tuple(slice(a, a + n) for a, n in zip(self.own, self.size, strict=True))]

    def of_whole(self, tensor: Tensor) -> Tensor:
        """The view of the piece in the whole tensor."""
        return tensor[tuple(slice(a, a + n) for a, n in zip(self.whole, self.size, strict=True))]

    def in_rows(self, first: int, rows: int) -> "Piece | None":
        """What rows first .. first + rows - 1 of the process's tensor have of it, as a piece of these rows; None:
        nothing."""
        begin, end = max(self.own[0], first), min(self.own[0] + self.size[0], first + rows)
        if begin >= end:
            return None
        whole = (self.whole[0] + begin - self.own[0], *self.whole[1:])
        return Piece((begin - first, *self.own[1:]), whole, (end - begin, *self.size[1:]), self.summed)


@dataclass(frozen=True)
class Split:
    """A parameter divided along one dimension, which consists of sections."""

    dim: int
    sections: tuple[Section, ...]

    def check(self, n: int, what: str) -> None:
        """Raises ConfigError where a divided section has no equal share for each of n processes."""
        for section in self.sections:
            if section.divided and section.size % n:
                raise ConfigError("train.tensor_parallel", n, f"a divisor of {what} ({section.size})")

    def own_size(self, n: int) -> int:
        """Length of the dimension in each process."""
        return sum(s.size // n if s.divided else s.size for s in self.sections)

    def pieces(self, shape: Sequence[int], index: int, n: int) -> Iterator[Piece]:
        """The pieces of process `index` of n. shape: of the whole parameter."""
        own = whole = 0
        for section in self.sections:
            size = section.size // n if section.divided else section.size
            begin = whole + (index * size if section.divided else 0)
            boxes = [list(values) for values in ((0,) * len(shape), (0,) * len(shape), shape)]
            for box, value in zip(boxes, (own, begin, size), strict=True):
                box[self.dim] = value
            yield Piece(tuple(boxes[0]), tuple(boxes[1]), tuple(boxes[2]), not section.divided)
            own, whole = own + size, whole + section.size


def heads(*sizes: int) -> tuple[Section, ...]:
    """Divided sections of these sizes."""
    return tuple(Section(size) for size in sizes)


def divide(layer: nn.Module, splits: Mapping[str, Split], share: Share) -> None:
    """Replace a layer's parameters by a process's share of them, in place, with any values. Projections that are
    divided by rows read the layer's input; those divided by columns have its output."""
    for name, split in splits.items():
        owner_name, _, own_name = name.rpartition(".")
        owner = layer.get_submodule(owner_name)
        whole = owner.get_parameter(own_name)
        shape = list(whole.shape)
        shape[split.dim] = split.own_size(share.n)
        setattr(owner, own_name, nn.Parameter(torch.empty(shape, dtype=whole.dtype, device=whole.device)))
        if isinstance(owner, nn.Linear) and own_name == "weight":
            kind = SummedLinear if split.dim else ForkedLinear
            layer.set_submodule(owner_name, kind(owner, share.group))
