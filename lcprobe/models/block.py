"""A block: norm, one mixer or several in parallel, and an MLP with its own norm, around a residual stream.

    residual += mixer(norm(residual));  residual += mlp(norm2(residual))

Each sum is fused into the norm that follows it. With sandwich norms, outputs are normed before they are added
(CogView, arXiv 2105.13290; Gemma 2, arXiv 2408.00118). Mixers in parallel read the same normed input (parallel.py).
"""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lcprobe.errors import inside
from lcprobe.models.config import ModelConfig
from lcprobe.models.context_parallel.passing import after_part, before_part, received, sent
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.mlps.contract import MLP
from lcprobe.models.norms.contract import Norm
from lcprobe.models.parallel import MeanOfOutputs
from lcprobe.models.parts import LayerParts
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext

BlockState = tuple[tuple[State, ...], State | None]
"""The states of a block's mixers and of its MLP; None: the MLP has none."""


Outputs = tuple[Tensor, Tensor, BlockState | None, Mapping[Hashable, Tensor]]
"""What a block returns: its update, the stream before it, the next state, and the carries."""


class Block(nn.Module):
    """One block. layers: its mixers, more than one where they are in parallel."""

    def __init__(self, config: ModelConfig, layers: Sequence[LayerParts], d_model: int, d_ff: int):
        super().__init__()

        def norm() -> Norm:
            return config.norm.create(d_model, config.norm_eps)

        self.norm = norm()
        self.mixer, *others = [_mixer(layer, d_model) for layer in layers]
        self.beside = nn.ModuleList(others) if others else None
        self.combine = MeanOfOutputs(self.mixers()) if others and config.parallel == "mean" else None
        mlp, sandwich = layers[-1].mlp, config.sandwich_norm
        self.norm2: Norm | None = None if mlp is None else norm()
        self.mlp: MLP | None = None if mlp is None else mlp.create(d_model, d_ff)
        self.output_norm: Norm | None = norm() if sandwich else None
        self.output_norm2: Norm | None = norm() if sandwich and mlp is not None else None

    def mixers(self) -> list[Mixer]:
        """The mixers, in the layout's order."""
        others = [] if self.beside is None else [mixer for mixer in self.beside if isinstance(mixer, Mixer)]
        return [self.mixer, *others]

    def forward(
        self,
        update: Tensor,
        residual: Tensor | None,
        where: TokenContext,
        state: BlockState | None,
        compute: torch.dtype,
        carries: Mapping[Hashable, Tensor],
    ) -> Outputs:
        """update: (batch, seqlen, d_model), the previous block's output, which this block's norm adds to the residual
        stream.

        residual: the stream before that update, None before the first block; compute: the dtype of mixer and MLP;
        carries: tensors that layers pass on alongside the stream, by name. Returns this block's update, the stream
        before it, the next state, and the carries.
        """
        normed, residual = self.norm.added(update, residual)
        normed, mlp_state = normed.to(compute), None if state is None else state[1]
        updates: list[Tensor] = []
        states: list[State] = []
        for i, mixer in enumerate(self.mixers()):
            update, own, carries = _mixed(mixer, normed, where, None if state is None else state[0][i], carries)
            updates.append(update)
            states += [] if own is None else [own]
        update = sum(updates[1:], updates[0]) if self.combine is None else self.combine(updates)
        if self.output_norm is not None:
            update = self.output_norm(update)
        if self.mlp is not None and self.norm2 is not None:
            normed, residual = self.norm2.added(update, residual)
            update, mlp_state = _of_mlp(self.mlp, normed.to(compute), where, mlp_state)
            if self.output_norm2 is not None:
                update = self.output_norm2(update)
        return update, residual, None if state is None else (tuple(states), mlp_state), carries

    def new_state(self, batch: int) -> BlockState:
        """The states before a sequence's first token."""
        states = tuple(mixer.new_state(batch) for mixer in self.mixers())
        return states, None if self.mlp is None else self.mlp.new_state(batch)


def recomputed(
    block: nn.Module,
    update: Tensor,
    residual: Tensor | None,
    where: TokenContext,
    state: BlockState | None,
    compute: torch.dtype,
    carries: Mapping[Hashable, Tensor],
) -> tuple[Outputs, TokenContext]:
    """As `block` of the same arguments, and the context for the next one; the backward pass computes it again instead
    of keeping its activations."""

    def run(update: Tensor, residual: Tensor | None) -> tuple[Outputs, TokenContext]:
        own = where.fork()
        return block(update, residual, own, state, compute, carries), own

    return checkpoint(run, update, residual, use_reentrant=False)  # type: ignore[return-value]


def _mixer(layer: LayerParts, d_model: int) -> Mixer:
    with inside(f"model.mixers.{layer.entry}"):
        return layer.mixer(layer.config, d_model)


def _mixed(
    mixer: Mixer, x: Tensor, where: TokenContext, state: State | None, carries: Mapping[Hashable, Tensor]
) -> tuple[Tensor, State | None, Mapping[Hashable, Tensor]]:
    """A mixer's output, its next state, and the carries. Over ranks without passes, the state is that before the
    first token, which attention never has, and there is no next one."""
    if where.ranks is None or (where.whole is not None and mixer.divides_passes):
        return _called(mixer, x, where, state, carries)
    if where.whole is not None:
        assert state is not None, "passes have a state"
        update, after, carries = _called(mixer, x, where, before_part(where.ranks, state), carries)
        after_part(where.ranks, after, state)
        return update, after, carries
    if mixer.exchanges and (state is None or mixer.divides_passes):
        return _called(mixer, x, where, None, carries)
    first = mixer.new_state(len(x)) if state is None else state
    x, before = received(where, mixer, x, first)
    update, after, carries = _called(mixer, x, where, before, carries)
    return sent(where, mixer, update, after, first), None, carries


def _of_mlp(mlp: MLP, x: Tensor, where: TokenContext, state: State | None) -> tuple[Tensor, State | None]:
    """An MLP's output and its next state."""
    if where.ranks is None or (where.whole is not None and state is None):
        return mlp(x, where, state)
    if where.whole is not None and state is not None:
        update, after = mlp(x, where, before_part(where.ranks, state))
        after_part(where.ranks, after, state)
        return update, after
    first = mlp.new_state(len(x)) if state is None else state
    if first is None:
        return mlp(x, where, None)
    x, before = received(where, mlp, x, first)
    update, after = mlp(x, where, before)
    return sent(where, mlp, update, after, first), None


def _called(
    mixer: Mixer, x: Tensor, where: TokenContext, state: State | None, carries: Mapping[Hashable, Tensor]
) -> tuple[Tensor, State | None, Mapping[Hashable, Tensor]]:
    name = mixer.carry_name
    if name is None:
        return *mixer(x, where, state), carries
    update, state, carry = mixer.forward_with_carry(x, where, state, carries.get(name))
    assert carry is not None, "a mixer with a carry_name returns a carry"
    return update, state, {**carries, name: carry}
