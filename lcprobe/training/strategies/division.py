"""What a process has of a run's model: dividing the model by the run's strategy, and the pieces of each parameter.

    one, ddp    all of it
    tp          of the layers that divide, a share of their heads and widths; all of the rest
    fsdp2       rows of every parameter, of a share where layers are shared as well; whole ones are gathered for a
                block while it computes, and its gradients divided again (torch.distributed.fsdp.fully_shard)

In bfloat16, fsdp2 gathers the matrices of blocks in it. The embedding, and what has no weight decay (decays, step
sizes, norms, biases, convolutions), stay in float32 as with ddp, whose autocast rounds products of matrices only; the
latter are small, and every process has them whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.parameters import no_decay_names
from lcprobe.models.tensor_parallel.split import Piece, Share, Split, divide
from lcprobe.training.config import TrainConfig
from lcprobe.training.ranks import Layout
from lcprobe.training.strategies.checks import check_division, shared_layers


@dataclass(frozen=True)
class Division:
    """How a model is divided. kind: one, ddp, tp or fsdp2; shapes: of whole parameters, by name; splits: of those
    that processes of a tensor group share."""

    layout: Layout = field(default_factory=Layout)
    kind: str = "one"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)

    @property
    def is_divided(self) -> bool:
        """Whether processes have parts of parameters."""
        return self.kind in ("tp", "fsdp2")

    def shape(self, name: str, parameter: Tensor) -> tuple[int, ...]:
        """Shape of the whole of a parameter."""
        return self.shapes.get(name, tuple(parameter.shape))

    def shapes_of(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Shapes of all whole parameters."""
        return {name: self.shape(name, parameter) for name, parameter in model.named_parameters()}

    def pieces(self, name: str, parameter: Tensor) -> list[Piece]:
        """What this process has of a parameter, as pieces of `own(parameter)`."""
        shape, n = self.shape(name, parameter), self.layout.tensor
        if name in self.splits and n > 1:
            pieces = list(self.splits[name].pieces(shape, self.layout.tensor_rank, n))
        else:
            pieces = [Piece((0,) * len(shape), (0,) * len(shape), shape)]
        if not isinstance(parameter, DTensor):
            return pieces
        first, rows = own_rows(parameter.shape[0], self.layout.replica_rank, self.layout.replicas)
        return [p for piece in pieces if (p := piece.in_rows(first, rows)) is not None]

    def is_first(self, name: str, parameter: Tensor, piece: Piece) -> bool:
        """Whether this process is the first of those that have a piece: the one that counts and saves it."""
        shared = name not in self.splits or piece.summed
        among_replicas = isinstance(parameter, DTensor) or self.layout.replica_rank == 0
        return among_replicas and (not shared or self.layout.tensor_rank == 0)


def own(parameter: Tensor) -> Tensor:
    """The numbers of a parameter, gradient or moment that this process has."""
    return parameter._local_tensor if isinstance(parameter, DTensor) else parameter


def reshard(model: nn.Module) -> None:
    """Free whole parameters that a forward pass without a backward pass left gathered: the model's parameters are the
    optimiser's again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def own_rows(rows: int, index: int, n: int) -> tuple[int, int]:
    """The first row, and the number of rows, of process `index` of n: as torch.chunk divides them."""
    size = -(-rows // n)
    first = min(index * size, rows)
    return first, min(size, rows - first)


def divide_model(config: TrainConfig, model: LanguageModel, layout: Layout) -> Division:
    """Divide a model in place by the run's strategy. Parameters keep their values with one and ddp only: `fill` sets
    them, and the model may be on the meta device, which parts leave for their own. Raises ConfigError where heads or
    widths do not divide."""
    check_division(config, model)
    kind = config.divided_as
    if kind in ("one", "ddp"):
        return Division(layout, kind)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    splits = _share_layers(model, layout) if layout.tensor > 1 else {}
    if kind == "fsdp2":
        _shard(model, layout, config.precision == "bf16")
    if any(parameter.is_meta for parameter in model.parameters()):
        assert layout.wide is not None
        model.to_empty(device=layout.wide.device_type)
    return Division(layout, kind, shapes, splits)


@torch.no_grad()
def fill(model: LanguageModel, division: Division, values: Iterator[tuple[str, Tensor]]) -> None:
    """Set parameters to what the process has of whole values, by name, one after the other."""
    parameters = dict(model.named_parameters())
    for name, value in values:
        parameter = parameters[name]
        for piece in division.pieces(name, parameter):
            piece.of_own(own(parameter)).copy_(piece.of_whole(value))


def _share_layers(model: LanguageModel, layout: Layout) -> dict[str, Split]:
    """Divide each layer that declares how among the processes of this tensor group, in place."""
    share = Share(layout.tensor_rank, layout.tensor, layout.group("tensor"))
    found: dict[str, Split] = {}
    for prefix, layer, splits in shared_layers(model, share.n):
        divide(layer, splits, share)
        if isinstance(layer, Mixer):
            layer.take_share(share)
        found |= {f"{prefix}.{name}": split for name, split in splits.items()}
    return found


def _shard(model: LanguageModel, layout: Layout, bf16: bool) -> None:
    """Divide the rows of parameters among the replicas, in place."""
    assert layout.wide is not None
    mesh = layout.wide["replicas"]
    narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    wide = MixedPrecisionPolicy(cast_forward_inputs=False)
    small = no_decay_names(model) if bf16 else set[str]()
    kept = {parameter for name, parameter in model.named_parameters() if name in small}
    for block in model.blocks:
        fully_shard(
            block, mesh=mesh, mp_policy=narrow if bf16 else wide, ignored_params=kept & set(block.parameters())
        )
        register_fsdp_forward_method(block, "new_state")  # its dtype and device are those of whole weights
    fully_shard(model, mesh=mesh, mp_policy=wide, ignored_params=kept)
    for method in ("loss", "hidden", "hidden_of_part", "logits", "new_state"):
        register_fsdp_forward_method(model, method)
