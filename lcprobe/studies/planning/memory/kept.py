"""How much memory the blocks of a model take in training, counted on the meta device: nothing is computed.

    kept       bytes that a forward pass keeps for its backward pass, of each block
    working    bytes that a pass through a block has besides, at most: gradients of what is inside it

Counted is what autograd saves, by storage, so that any mixer, encoding and MLP is counted as it is written. Where a
block asks a tensor for its value it cannot be counted: KeptUnknown.
"""

import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lcprobe_kernels.backends import assuming
from torch import Tensor, nn
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcprobe.errors import LcprobeError
from lcprobe.models.block import Block
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import LayerParts, parts_of, resolved_sizes
from lcprobe.models.token_context import TokenContext

IN_PRODUCTS = ("lcprobe::gated_linear_attention",)
"""Ops of PyTorch's products on every device: what they have inside is counted."""
IN_PYTORCH = (
    *IN_PRODUCTS,
    "lcprobe::ssd",
    "lcprobe::causal_conv1d",
    "lcprobe::rms_norm",
    "lcprobe::linear_recurrence",
)
"""Ops whose PyTorch path, that of a CPU, needs no values: what it has inside is counted."""


class KeptUnknown(Exception):
    """A block cannot be counted on the meta device."""


@dataclass(frozen=True)
class Kept:
    """Bytes of the rows of a forward pass. blocks: of all blocks together; largest: of the block with the most;
    working: of the block with the most; inputs: of what enters all blocks, which is what recomputation keeps."""

    blocks: int
    largest: int
    working: int
    inputs: int


_known: dict[tuple[object, ...], Kept | str] = {}
"""What was counted, or why it cannot be."""


def kept_by_blocks(
    config: ModelConfig, seqlen: int, dtype: torch.dtype, documents: bool, path: str, rows: int = 1
) -> Kept:
    """What rows of `seqlen` tokens take: all of them, since what ops that go by segments have inside does not grow
    with them. dtype: of activations, under float32 weights; documents: whether rows have several; path: of the ops,
    torch or triton.

    Raises KeptUnknown for blocks that cannot be counted.
    """
    key = repr(config), seqlen, dtype, documents, path, rows
    if key not in _known:
        try:
            _known[key] = _count(config, (rows, seqlen), dtype, documents, path)
        except KeptUnknown as error:
            _known[key] = str(error)
    found = _known[key]
    if isinstance(found, str):
        raise KeptUnknown(found)
    return found


def _count(config: ModelConfig, shape: tuple[int, int], dtype: torch.dtype, documents: bool, path: str) -> Kept:
    d_model, d_ff, _ = resolved_sizes(config)
    stream = torch.promote_types(dtype, torch.float32) if config.residual_in_fp32 else dtype
    total = largest = most_working = 0
    seen: dict[int, Tensor] = {}
    carries: dict[Hashable, Tensor] = {}
    within = IN_PYTORCH if path == "torch" else IN_PRODUCTS
    with torch.device("meta"), assuming(path):
        starts = torch.zeros(shape, dtype=torch.bool) if documents else None
        where = TokenContext(torch.arange(shape[1]), starts)
        for layers, count in parts_of(config).counted_blocks:
            block = Block(config, layers, d_model, d_ff).to(dtype)
            for parameter in block.parameters():  # found by their storage, and no activations
                seen[parameter.untyped_storage()._cdata] = parameter
            try:
                first, _ = _of_block(block, where, shape, d_model, dtype, stream, seen, carries, within)
                kept, working = _of_block(block, where, shape, d_model, dtype, stream, seen, carries, within)
            except LcprobeError:
                raise
            except Exception as error:  # whatever it asked of tensors without values
                raise KeptUnknown(f"{_name(layers)}: {type(error).__name__}") from error
            total += kept * count + (first - kept)  # what layers share is made once
            largest, most_working = max(largest, kept), max(most_working, working)
    n_blocks = sum(count for _, count in parts_of(config).counted_blocks)
    entering = shape[0] * shape[1] * d_model * (dtype.itemsize + stream.itemsize)
    return Kept(total, largest, most_working, n_blocks * entering)


def _of_block(
    block: nn.Module,
    where: TokenContext,
    shape: tuple[int, int],
    d_model: int,
    dtype: torch.dtype,
    stream: torch.dtype,
    seen: dict[int, Tensor],
    carries: dict[Hashable, Tensor],
    within: Sequence[str],
) -> tuple[int, int]:
    """Bytes that a block keeps, and that a pass through it has besides. seen: tensors by their storage, which are
    not counted again. carries: what earlier layers pass on, to which what this one does is added."""
    x = torch.empty(*shape, d_model, dtype=dtype, requires_grad=True)
    residual = torch.empty(*shape, d_model, dtype=stream, requires_grad=True)
    own: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        alone = (
            tensor.detach()
        )  # nodes keep what is returned, and this function: with a node each would stay for good
        if place not in seen:
            own[place] = alone
        return alone

    with LiveBytes(within) as live:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            update, after, _, carried = block(x, residual, where, None, dtype, carries)
        kept = sum(tensor.untyped_storage().nbytes() for tensor in own.values())
        seen |= {place: tensor for place, tensor in own.items() if _shared(tensor, where)}
        own.clear()
        for name, tensor in carried.items():
            carries[name] = seen[tensor.untyped_storage()._cdata] = tensor.detach()
        there, forward = live.now, live.peak - live.now
        grads = [torch.empty_like(update), torch.empty_like(after)]
        live.peak = live.now
        torch.autograd.grad([update, after], [x, residual], grads, allow_unused=True)
    return kept, max(forward, live.peak - there)


def _shared(tensor: Tensor, where: TokenContext) -> bool:
    """Whether layers share the tensor: what the context remembers."""
    place = tensor.untyped_storage()._cdata
    remembered = [one for value in where._memo.values() for one in tree_leaves(value) if isinstance(one, Tensor)]
    return any(one.untyped_storage()._cdata == place for one in remembered)


def _name(layers: Sequence[LayerParts]) -> str:
    return "*".join(layer.name for layer in layers)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and still there. now: at this moment; peak: at most.

    within: our own ops, by name, whose PyTorch path is run and counted; of others only what they return is, and of
    one whose path asks for values.
    """

    def __init__(self, within: Sequence[str] = ()) -> None:
        super().__init__()
        self._within = within
        self.now = self.peak = 0
        self._live: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.removesuffix("_fwd").removesuffix("_bwd") in self._within:
            with self:
                return OPDEFS[name]._init_fn(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        self.add(out)
        return out

    def add(self, values: Any) -> None:
        """Count the tensors among these that are not counted yet."""
        for tensor in tree_leaves(values):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            place = storage._cdata
            if place not in self._live:
                self._live.add(place)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, place, storage.nbytes())

    def _freed(self, place: int, n_bytes: int) -> None:
        self._live.discard(place)
        self.now -= n_bytes
