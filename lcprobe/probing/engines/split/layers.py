"""A model whose blocks are spread over several devices of a machine: pipeline without overlap.

Each device has consecutive blocks, about as many bytes as the others; the hidden vectors of a chunk move from one to
the next, and every layer's state stays with its layer. The memory of one device is that of the weights divided by
their number and one chunk's activations; one device computes at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.token_context import TokenContext
from lcprobe.probing.engines.wrapped import Wrapped


class LayerSplit(Wrapped):
    """A LanguageModel over several devices. Hidden vectors and logits come back on the first one."""

    def __init__(self, model: LanguageModel, devices: Sequence[torch.device | str]):
        """Moves the model's parts, in place. Raises ConfigError without a device."""
        require("devices", list(devices), len(devices) > 0, "at least one device")
        super().__init__(model)
        places = [torch.device(d) for d in devices]
        blocks = list(model.blocks)
        outer = [(model.embedding, model.embedding_norm, model.positional), (model.norm, model.head)]
        sizes = [sum(_bytes(part) for part in parts if part is not None) for parts in outer]
        self.device_of = [places[i] for i in spread([_bytes(b) for b in blocks], len(places), *sizes)]
        for block, device in zip(blocks, self.device_of, strict=True):
            block.to(device)
            block.register_forward_pre_hook(_mover(device))
        self.device = places[0]
        for parts, device in zip(outer, (self.device, self.device_of[-1] if blocks else self.device), strict=True):
            for part in parts:
                if part is not None:
                    part.to(device)
        self._head_device = model.head_weight.device
        self.parts = {device: self.device_of.count(device) for device in places}

    @property
    def note(self) -> str:
        """How many blocks are on each device, for the report."""
        return "layers split over devices: " + ", ".join(f"{n} on {device}" for device, n in self.parts.items())

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """See ProbedModel."""
        hidden, state = self.model.hidden(tokens.to(self.device), state=state)
        return hidden.to(self.device), state

    def logits(self, hidden: Tensor) -> Tensor:
        """See ProbedModel; made where the head's weights are."""
        return self.model.logits(hidden.to(self._head_device)).to(self.device)


def spread(sizes: Sequence[int], n: int, before: int = 0, after: int = 0) -> list[int]:
    """The device (0 .. n - 1) of each of several consecutive parts, so that devices have about equal bytes and parts
    stay in order. before, after: bytes that the first and the last device have in any case."""
    total = before + sum(sizes) + after
    ends = accumulate(sizes, initial=before)
    return [min(n - 1, int((end + size / 2) * n / max(total, 1))) for end, size in zip(ends, sizes, strict=False)]


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _mover(device: torch.device) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda _, args: _moved(args, device)


def _moved(args: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """A block's arguments on its device; its state is there."""
    update, residual, where, state, compute, carries = args
    residual = None if residual is None else residual.to(device)
    carries = {name: carry.to(device) for name, carry in carries.items()}
    return update.to(device), residual, _context(where, device), state, compute, carries


def _context(where: TokenContext, device: torch.device) -> TokenContext:
    """The same context on a device, one for all blocks there."""
    if where.positions.device == device:
        return where

    def moved() -> TokenContext:
        given = {"positions": where.positions, "starts": where.starts, "doc_start": where.doc_start}
        own: dict[str, Any] = {name: None if t is None else t.to(device) for name, t in given.items()}
        earlier = None if where.earlier is None else where.earlier.to(device)
        return replace(where, **own, earlier=earlier, _memo={})

    return where.once(("on", device), moved)
