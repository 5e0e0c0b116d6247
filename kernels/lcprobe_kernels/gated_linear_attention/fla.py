"""gated_linear_attention by flash-linear-attention's kernels (fla-core 0.6.0;
github.com/fla-org/flash-linear-attention).

fla has one function for each special case, under its own names, and expects packed documents as one row with
cu_seqlens. Its functions are opaque to torch.compile, which breaks the graph at them, and know no tensors without
values: there, a registered op stands for the call. That op saves its inputs only and runs fla's forward pass again
before its backward pass; elsewhere fla's own autograd functions record the call, and save what they need.

fla asks a GPU how many chunks documents have, in every layer; with boundaries cu_seqlens are `KnownOnHost`.
"""

from importlib import import_module
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from lcprobe_kernels.direct import of_backward, recorded, seen
from lcprobe_kernels.errors import refuse_second_derivative
from lcprobe_kernels.packed import Documents, documents_of

NAME = "gated_linear_attention_fla"


class PeerCall(NamedTuple):
    """A call of one of fla's functions. `last` selects the final states."""

    module: str
    name: str
    arguments: dict[str, Any]
    last: Tensor | None
    """(batch,) the document that ends each row; None where nothing was packed."""


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    bonus: Tensor | None,
    beta: Tensor | None,
    erase: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
    starts: Tensor | None,
    boundaries: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """o like v and the final state (batch, n_heads, d_k, d_v) in float32, with gradients."""
    given = (q, k, v, log_decay, bonus, beta, erase, a, b, initial_state, scale, starts, boundaries)
    return _forward(*given) if seen(given) else _called(*given)


def _called(
    q, k, v, log_decay, bonus, beta, erase, a, b, initial_state, scale, starts, boundaries
) -> tuple[Tensor, Tensor]:
    call = call_of(q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts, boundaries)
    o, state = getattr(import_module(call.module), call.name)(**call.arguments)
    return o.reshape(v.shape).contiguous(), state if call.last is None else state[call.last]


@torch.library.custom_op(f"lcprobe::{NAME}_fwd", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    bonus: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    beta: Optional[Tensor],  # noqa: UP045
    erase: Optional[Tensor],  # noqa: UP045
    a: Optional[Tensor],  # noqa: UP045
    b: Optional[Tensor],  # noqa: UP045
    initial_state: Optional[Tensor],  # noqa: UP045
    scale: float,
    starts: Optional[Tensor],  # noqa: UP045
    boundaries: Optional[Tensor],  # noqa: UP045
) -> tuple[Tensor, Tensor]:
    """o and the final state."""
    return _called(q, k, v, log_decay, bonus, beta, erase, a, b, initial_state, scale, starts, boundaries)


@_forward.register_fake
def _(q, k, v, log_decay, bonus, beta, erase, a, b, initial_state, scale, starts, boundaries):
    return v.new_empty(v.shape), v.new_empty((q.shape[0], *q.shape[2:], v.shape[3]), dtype=torch.float32)


@torch.library.custom_op(f"lcprobe::{NAME}_bwd", mutates_args=())
def _backward(
    do: Tensor,
    dstate: Optional[Tensor],  # noqa: UP045
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    bonus: Optional[Tensor],  # noqa: UP045
    beta: Optional[Tensor],  # noqa: UP045
    erase: Optional[Tensor],  # noqa: UP045
    a: Optional[Tensor],  # noqa: UP045
    b: Optional[Tensor],  # noqa: UP045
    initial_state: Optional[Tensor],  # noqa: UP045
    scale: float,
    starts: Optional[Tensor],  # noqa: UP045
    boundaries: Optional[Tensor],  # noqa: UP045
) -> list[Tensor]:
    """Gradients of q to initial_state, empty where not given."""
    given = (q, k, v, log_decay, bonus, beta, erase, a, b, initial_state)
    with recorded():
        leaves = [None if t is None else t.detach().requires_grad_() for t in given]
        settings: tuple[Any, ...] = (*leaves, scale, starts, boundaries)
        o, state = _called(*settings)
        outputs = [(o, do)] if dstate is None else [(o, do), (state, dstate)]
        wanted = [t for t in leaves if t is not None]
        found = iter(
            torch.autograd.grad([t for t, _ in outputs], wanted, [dt for _, dt in outputs], allow_unused=True)
        )
    gradients = [None if t is None else next(found) for t in given]
    return [
        q.new_empty(0) if t is None else torch.zeros_like(t) if dt is None else dt.to(t.dtype).contiguous()
        for t, dt in zip(given, gradients, strict=True)
    ]


@_backward.register_fake
def _(do, dstate, q, k, v, log_decay, bonus, beta, erase, a, b, initial_state, scale, starts, boundaries):
    given = (q, k, v, log_decay, bonus, beta, erase, a, b, initial_state)
    return [q.new_empty(0) if t is None else t.new_empty(t.shape) for t in given]


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scale, starts, boundaries = inputs
    ctx.given = [t is not None for t in tensors]
    ctx.save_for_backward(*tensors, starts, boundaries)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, do: Any, dstate: Any) -> Any:
    *tensors, starts, boundaries = ctx.saved_tensors
    do = torch.zeros_like(tensors[2]) if do is None else do
    gradients = _differentiate(do, dstate, *tensors, ctx.scale, starts, boundaries)
    return *(dt if there else None for dt, there in zip(gradients, ctx.given, strict=True)), None, None, None


torch.library.register_autograd(f"lcprobe::{NAME}_fwd", _gradients, setup_context=_save)
refuse_second_derivative(NAME)


def call_of(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    bonus: Tensor | None,
    beta: Tensor | None,
    erase: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
    starts: Tensor | None,
    boundaries: Tensor | None,
) -> PeerCall:
    """fla's function for this combination, and its arguments."""
    initial = None if initial_state is None else initial_state.float()
    cu_seqlens = last = None
    if starts is not None:
        documents = documents_of(starts, boundaries)
        cu_seqlens, last, initial = documents.cu_seqlens, documents.last, _by_document(documents, starts, initial)
        q, k, v, log_decay = (x.flatten(0, 1)[None] for x in (q, k, v, log_decay))
        beta, erase, a, b = (None if x is None else x.flatten(0, 1)[None] for x in (beta, erase, a, b))
    head = log_decay.shape[3] == 1
    decay = (log_decay[..., 0] if head else log_decay).float()
    wide = (
        decay[..., None].expand(q.shape).contiguous() if head else decay
    )  # for functions that expect one decay per channel
    common: dict[str, Any] = {"k": k, "v": v, "scale": scale, "initial_state": initial, "output_final_state": True}
    common["cu_seqlens"] = cu_seqlens
    if bonus is not None:
        return PeerCall("fla.ops.rwkv6", "chunk_rwkv6", {"r": q, "w": wide, "u": bonus, **common}, last)
    if erase is not None:
        gates = {"b": erase.to(q.dtype), "w": torch.ones_like(v)}
        return PeerCall("fla.ops.gdn2", "chunk_gdn2", {"q": q, "g": wide, **gates, **common}, last)
    if a is not None and b is not None:
        a, b = a.to(q.dtype), b.to(q.dtype)
        return PeerCall(
            "fla.ops.generalized_delta_rule",
            "chunk_dplr_delta_rule",
            {"q": q, "a": a, "b": b, "gk": wide, **common},
            last,
        )
    if beta is not None:
        module, name = (
            ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule") if head else ("fla.ops.kda", "chunk_kda")
        )
        return PeerCall(module, name, {"q": q, "g": decay, "beta": beta, **common}, last)
    module, name = ("fla.ops.simple_gla", "chunk_simple_gla") if head else ("fla.ops.gla", "chunk_gla")
    return PeerCall(module, name, {"q": q, "g": decay, **common}, last)


def _by_document(documents: Documents, starts: Tensor, initial: Tensor | None) -> Tensor | None:
    """Each document's state: the given one where a row goes on with it, else zeros."""
    if initial is None:
        return None
    states = initial.new_zeros(len(documents.cu_seqlens) - 1, *initial.shape[1:])
    kept = torch.where(starts[:, 0, None, None, None], torch.zeros_like(initial), initial)
    return states.index_copy(0, documents.first, kept)
