"""gated_linear_attention by flash-linear-attention's kernels (fla-core 0.6.0;
github.com/fla-org/flash-linear-attention).

fla has one function for each special case, under its own names, and expects packed documents as one row with
cu_seqlens.
"""

from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcprobe_kernels.packed import Documents, documents_of


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
) -> tuple[Tensor, Tensor]:
    """o like v and the final state (batch, n_heads, d_k, d_v) in float32."""
    call = call_of(q, k, v, log_decay, bonus, beta, erase, a, b, scale, initial_state, starts)
    o, state = getattr(import_module(call.module), call.name)(**call.arguments)
    return o.reshape(v.shape), state if call.last is None else state[call.last]


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
) -> PeerCall:
    """fla's function for this combination, and its arguments."""
    initial = None if initial_state is None else initial_state.float()
    cu_seqlens = last = None
    if starts is not None:
        documents = documents_of(starts)
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
