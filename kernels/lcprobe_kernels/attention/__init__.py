"""attention: softmax attention with a closed algebra of score terms, a band, sinks, chunks and documents.

    s_ij = cap(scale q_i . k_j) + T[h, d] + F_i - F_j    d = offset + i - j >= 0, the distance of key j from query i
    o_i = sum_j softmax_j(s_ij) v_j                      lse_i = log sum_j exp(s_ij)

T is a table over distances: ALiBi, T5, KERPLE, Sandwich and FIRE are tables built outside by ordinary operations,
which also carry the table's gradient on to their parameters; ALiBi may be given by its slopes. cap(x) is x, or c
tanh(x / c) (Gemma 2, arXiv 2408.00118). F is a cumulative sum per token: FoX (arXiv 2503.02130), CABLE. What acts on
queries and keys (RoPE and its variants, temperatures) is applied before. Methods that read keys at two kinds of
distances (Self-Extend, dual chunk attention) are several calls over disjoint keys, joined by `merge`: exact, by lse.

Backward, with P the softmax and delta_i = o_i . do_i - dlse_i (Dao 2023, arXiv 2307.08691):

    dS = P (dO V^T - delta)    dT[h, d] = sum of dS over a diagonal    dF_i = row sum of dS, dF_j = - column sum

No atomics: gradients are reproducible bit by bit. On a GPU `auto` takes flash-attn where it is installed and has what
the call needs (`abilities`). Without terms, and where only causality masks, this is else PyTorch's own attention,
unless `kernels.backend` names another: it then serves every call, or refuses it. On a CPU without gradients, `cpu`
chooses.
"""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.attention.blockwise import blockwise
from lcprobe_kernels.attention.reference import DocumentNumbers, Mask, merge, reference
from lcprobe_kernels.backends import deterministic, module_of, note, path_of, unrecorded, without_autocast
from lcprobe_kernels.direct import of_backward, with_gradients
from lcprobe_kernels.errors import (
    FLOATS,
    ArgumentError,
    check_no_tangent,
    check_number,
    check_shape,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.packed import check_boundaries

__all__ = ["DocumentNumbers", "Mask", "attention", "blockwise", "merge", "reference"]
NAME = "attention"
FLASH = ("flash_attn", "flash_attn_4")
"""Backends that take slopes and documents, but neither tables nor gates."""
MAX_DENSE_SCORES = 1 << 18
"""Scores per head up to which a full mask for PyTorch's own attention is cheaper than blocks."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    table: Tensor | None = None,
    slopes: Tensor | None = None,
    cumulative: tuple[Tensor, Tensor] | None = None,
    documents: tuple[Tensor, Tensor] | DocumentNumbers | None = None,
    mask: Mask | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    return_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """A block of queries against the keys up to them; scores and sums in float32 (float64 for float64 inputs).

    q: (batch, seqlen, n_heads, d_qk). k: (batch, n_keys, n_kv_heads, d_qk), v: (batch, n_keys, n_kv_heads, d_v);
    n_kv_heads divides n_heads. table: (n_heads, n_distances) over every visible distance; or slopes: (n_heads,), for
    T[h, d] = -slopes_h d. cumulative: F of queries (batch, seqlen, n_heads) and of keys (batch, n_keys, n_heads).
    documents: numbers (batch, seqlen) and (batch, n_keys) int64, a key is seen where they are equal; with boundaries,
    numbers rise along a row, are the same for a query and its key, and no GPU is waited for. mask: null:
    queries are the last seqlen of the keys, causal. scale: d_qk^-0.5 unless given. soft_cap: c, > 0, else none.

    Returns o (batch, seqlen, n_heads, d_v) in q's dtype, and with `return_lse` lse (batch, seqlen, n_heads), both
    with gradients. A query that sees no key has o = 0 and lse = -inf. A NaN or Inf reaches every query that sees it;
    keys that a query does not see may also give it NaN, never a finite wrong number. Not twice differentiable. Raises
    ArgumentError for other shapes, dtypes and devices.
    """
    seqlen, n_keys = _check(q, k, v, table, slopes, cumulative, documents)
    numbers = (
        documents if documents is None or isinstance(documents, DocumentNumbers) else DocumentNumbers(*documents)
    )
    pair = None if numbers is None else (numbers.queries, numbers.keys)
    mask = Mask(n_keys - seqlen) if mask is None else mask
    _check_mask(mask, seqlen, n_keys, table)
    check_number(NAME, "scale", scale, or_none=True)
    check_number(NAME, "soft_cap", soft_cap, above_zero=True, or_none=True)
    check_no_tangent(NAME, q, k, v, table, slopes, *(cumulative or ()))
    scale = float(q.shape[3] ** -0.5 if scale is None else scale)
    needs = _needs(q, k, v, table, slopes, cumulative, documents, mask, soft_cap, return_lse)
    note(NAME, q, needs, q.shape[3])
    path, direct = path_of(NAME, q.device, q.dtype, needs, q.shape[3]), unrecorded(q)
    terms = table is not None or slopes is not None or cumulative is not None or soft_cap is not None
    if path in ("sdpa", "torch") and not terms and not return_lse and not direct and _finite(q, k):
        plain, seen = _plain(q, mask, pair, n_keys)
        if plain:
            heads_first = (t.transpose(1, 2) for t in (q, k, v))
            gqa = q.shape[2] != k.shape[2]
            causal = False
            if seen is None and seqlen > 1:  # a branch: compiled for any length, a comparison would be no bool
                causal = True
            with without_autocast(q.device):
                o = F.scaled_dot_product_attention(
                    *heads_first, attn_mask=seen, is_causal=causal, scale=scale, enable_gqa=gqa
                )
            return o.transpose(1, 2), None
    acc_dtype = torch.promote_types(q.dtype, torch.float32)
    gates = [None, None] if cumulative is None else [f.to(acc_dtype) for f in cumulative]
    docs = [None, None, None] if numbers is None else list(numbers)
    if slopes is not None and path != "flash_attn":
        table, slopes = _table_of(slopes, mask, seqlen), None
    with without_autocast(q.device):
        table = None if table is None else table.to(acc_dtype)
        slopes = None if slopes is None else slopes.to(acc_dtype)
        if path == "flex":
            from lcprobe_kernels.attention import flex

            o, lse = flex.run(q, k, v, table, cumulative, pair, scale, mask, soft_cap or 0.0)
            return o, lse if return_lse else None
        forward: Any = _compute if direct else _differentiable
        o, lse = forward(q, k, v, table, *gates, *docs, slopes, scale, mask.numbers, soft_cap or 0.0, path)
    return o, lse if return_lse else None


def _needs(q, k, v, table, slopes, cumulative, documents, mask, soft_cap, return_lse) -> tuple[str, ...]:
    """The features of `abilities.FEATURES` that a call needs; by branches, since compiled for any length a comparison
    would be no bool."""
    seqlen, n_keys = q.shape[1], k.shape[1]
    needs: list[str] = []
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        needs += ["gradients", *deterministic()]
        if return_lse:
            needs.append("lse gradient")
    if torch.is_grad_enabled() and slopes is not None and slopes.requires_grad:
        needs.append("learned slopes")
    for name, given in (("gates", cumulative), ("table", table), ("slopes", slopes), ("documents", documents)):
        if given is not None:
            needs.append(name)
    if return_lse:
        needs.append("lse")
    if soft_cap is not None:
        needs.append("soft cap")
    if 0 <= mask.high < n_keys:
        needs += ["window", "sinks"] if mask.sinks else ["window"]
        if mask.high == 0:  # no key at all: a window has one
            needs.append("far")
    if mask.chunk:
        needs.append("chunks")
    if mask.low > 0:
        needs.append("far")
    if mask.offset != n_keys - seqlen:
        needs.append("offset")
    elif 1 < seqlen < n_keys:
        needs.append("cache")
    if v.shape[3] != q.shape[3]:
        needs.append("value width")
    return tuple(needs)


def _table_of(slopes: Tensor, mask: Mask, seqlen: int) -> Tensor:
    """ALiBi's table over every distance that the mask shows."""
    n = mask.offset + seqlen
    if mask.high > 0 and not mask.sinks:
        n = min(mask.high, n)
    return -slopes[:, None] * torch.arange(n, device=slopes.device).to(slopes.dtype)


def _finite(*tensors: Tensor) -> bool:
    """False where a CPU's scaled_dot_product_attention would hide a NaN or an infinity: for short rows it returns
    0."""
    if tensors[0].device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return all(bool(t.detach().sum().isfinite()) for t in tensors)


def _plain(q: Tensor, mask: Mask, documents: tuple[Tensor, Tensor] | None, n_keys: int) -> tuple[bool, Tensor | None]:
    """Whether PyTorch's own attention computes the same as fast, and the mask that it needs besides causality."""
    seqlen = q.shape[1]
    if mask.low > 0 or mask.chunk or mask.offset != n_keys - seqlen:
        return False, None
    banded = 0 <= mask.high < n_keys
    if documents is None and not banded and seqlen in (1, n_keys):
        return True, None
    if seqlen * n_keys > MAX_DENSE_SCORES:
        return False, None
    seen = mask.visible(torch.arange(seqlen, device=q.device), torch.arange(n_keys, device=q.device))
    if documents is not None:
        seen = seen & (documents[0][:, :, None] == documents[1][:, None])[:, None]
    return True, seen


@torch.library.custom_op("lcprobe::attention_fwd", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    f_q: Optional[Tensor],  # noqa: UP045
    f_k: Optional[Tensor],  # noqa: UP045
    docs_q: Optional[Tensor],  # noqa: UP045
    docs_k: Optional[Tensor],  # noqa: UP045
    boundaries: Optional[Tensor],  # noqa: UP045
    slopes: Optional[Tensor],  # noqa: UP045
    scale: float,
    mask: Sequence[int],
    soft_cap: float,
    path: str,
) -> tuple[Tensor, Tensor]:
    """o and lse. soft_cap: 0 for none. path: the backend, of ABILITIES."""
    return _compute(q, k, v, table, f_q, f_k, docs_q, docs_k, boundaries, slopes, scale, mask, soft_cap, path)


def _compute(
    q, k, v, table, f_q, f_k, docs_q, docs_k, boundaries, slopes, scale, mask, soft_cap, path
) -> tuple[Tensor, Tensor]:
    module = module_of(NAME, path, "triton_fwd")
    if path in FLASH:
        return module.forward(q, k, v, slopes, docs_q, docs_k, boundaries, scale, list(mask), soft_cap)
    capped = {"soft_cap": soft_cap} if soft_cap else {}
    return module.forward(q, k, v, table, f_q, f_k, docs_q, docs_k, scale, list(mask), **capped)


@_forward.register_fake
def _(q, k, v, table, f_q, f_k, docs_q, docs_k, boundaries, slopes, scale, mask, soft_cap, path):
    acc_dtype = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=acc_dtype)


@torch.library.custom_op("lcprobe::attention_bwd", mutates_args=())
def _backward(
    do: Tensor,
    dlse: Optional[Tensor],  # noqa: UP045
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    table: Optional[Tensor],  # noqa: UP045
    f_q: Optional[Tensor],  # noqa: UP045
    f_k: Optional[Tensor],  # noqa: UP045
    docs_q: Optional[Tensor],  # noqa: UP045
    docs_k: Optional[Tensor],  # noqa: UP045
    boundaries: Optional[Tensor],  # noqa: UP045
    slopes: Optional[Tensor],  # noqa: UP045
    scale: float,
    mask: Sequence[int],
    soft_cap: float,
    path: str,
    wanted_table: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dtable, df_q, df_k; empty where there is no such term."""
    module = module_of(NAME, path, "triton_bwd")
    if path in FLASH:
        gradients = module.backward(
            do, dlse, q, k, v, o, lse, slopes, docs_q, docs_k, boundaries, scale, list(mask), soft_cap
        )
        gradients += tuple(q.new_empty(0, dtype=lse.dtype) for _ in range(3))
    else:
        capped = {"soft_cap": soft_cap} if soft_cap else {}
        gradients = module.backward(
            do, dlse, q, k, v, o, lse, table, f_q, f_k, docs_q, docs_k, scale, list(mask), wanted_table, **capped
        )
    return tuple(t.contiguous() for t in gradients)


@_backward.register_fake
def _(
    do, dlse, q, k, v, o, lse, table, f_q, f_k, docs_q, docs_k, boundaries, slopes, scale, mask, soft_cap, path,
    wanted_table,
):  # fmt: skip
    acc_dtype = torch.promote_types(q.dtype, torch.float32)
    some = lambda t, wanted=True: q.new_empty(0 if t is None or not wanted else t.shape, dtype=acc_dtype)  # noqa: E731
    return (*(t.new_empty(t.shape) for t in (q, k, v)), some(table, wanted_table), some(f_q), some(f_k))


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, *given = inputs
    terms, ctx.settings = given[:7], given[7:]
    ctx.save_for_backward(q, k, v, *output, *terms)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, do: Any, dlse: Any) -> Any:
    q, k, v, o, lse, *terms = ctx.saved_tensors
    do = torch.zeros_like(o) if do is None else do
    wanted = bool(ctx.needs_input_grad[3])
    dq, dk, dv, dtable, df_q, df_k = _differentiate(do, dlse, q, k, v, o, lse, *terms, *ctx.settings, wanted)
    gates = (None, None) if terms[1] is None else (df_q, df_k)
    return dq, dk, dv, dtable if wanted else None, *gates, *[None] * 8


_differentiable = with_gradients(_forward, _save, _gradients)
refuse_second_derivative(NAME)


def _check(q: Any, k: Any, v: Any, table: Any, slopes: Any, cumulative: Any, documents: Any) -> tuple[int, int]:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor) or tensor.dim() != 4 or not tensor.numel() or tensor.dtype not in FLOATS:
            given = (
                f"{tensor.dtype} of shape {tuple(tensor.shape)}"
                if isinstance(tensor, Tensor)
                else type(tensor).__name__
            )
            raise ArgumentError(f"{NAME}: {name}", given, "floating (batch, tokens, heads, width), no dimension 0")
    batch, seqlen, n_heads, d_qk = q.shape
    n_keys, n_kv_heads = k.shape[1:3]
    if n_heads % n_kv_heads:
        raise ArgumentError(f"{NAME}: k", f"{n_kv_heads} heads", f"a divisor of q's {n_heads}")
    check_shape(NAME, "k", k, (batch, n_keys, n_kv_heads, d_qk))
    check_shape(NAME, "v", v, (batch, n_keys, n_kv_heads, v.shape[3]))
    others: dict[str, Any] = {"k": k, "v": v, "table": table, "slopes": slopes}
    if slopes is not None:
        check_shape(NAME, "slopes", slopes, (n_heads,))
        if table is not None or not slopes.is_floating_point():
            given = "with a table" if table is not None else slopes.dtype
            raise ArgumentError(f"{NAME}: slopes", given, "floating, and no table beside them")
    if table is not None:
        check_tensor(NAME, "table", table)
    if table is not None and (table.dim() != 2 or table.shape[0] != n_heads or not table.is_floating_point()):
        raise ArgumentError(
            f"{NAME}: table", f"{table.dtype} of shape {tuple(table.shape)}", f"floating ({n_heads}, distances)"
        )
    for name, pair, tail in (("cumulative", cumulative, (n_heads,)), ("documents", documents, ())):
        if name == "documents" and isinstance(pair, DocumentNumbers):
            check_boundaries(NAME, pair.boundaries)
            pair = pair[:2]
        if pair is not None and (not isinstance(pair, tuple | list) or len(pair) != 2):
            raise ArgumentError(f"{NAME}: {name}", type(pair).__name__, "a pair: of the queries and of the keys")
        for which, tensor, n in zip(("queries", "keys"), pair or (), (seqlen, n_keys), strict=False):
            check_shape(NAME, f"{name} of {which}", tensor, (batch, n, *tail))
            others[f"{name} of {which}"] = tensor
            if name == "documents" and tensor.dtype != torch.int64:
                raise ArgumentError(f"{NAME}: {name} of {which}", str(tensor.dtype), "torch.int64")
    for name, tensor in others.items():
        if tensor is not None and tensor.device != q.device:
            raise ArgumentError(f"{NAME}: {name}", f"on {tensor.device}", f"on {q.device}, as q is")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise ArgumentError(f"{NAME}: {name}", str(tensor.dtype), f"{q.dtype}, as q is")
    return seqlen, n_keys


def _check_mask(mask: Mask, seqlen: int, n_keys: int, table: Tensor | None) -> None:
    if not isinstance(mask, Mask):
        raise ArgumentError(f"{NAME}: mask", repr(mask), "a Mask, or None")
    if mask.offset < 0:
        raise ArgumentError(f"{NAME}: mask.offset", mask.offset, ">= 0")
    if mask.sinks < 0 or mask.chunk < 0 or mask.high < -1:
        raise ArgumentError(f"{NAME}: mask", mask, "sinks >= 0, chunk >= 0, high >= -1")
    if table is not None:
        farthest = mask.offset + seqlen if mask.high < 0 or mask.sinks else min(mask.high, mask.offset + seqlen)
        if table.shape[1] < min(farthest, mask.offset + seqlen):
            raise ArgumentError(
                f"{NAME}: table", f"{table.shape[1]} distances", f">= {farthest}, the farthest key seen"
            )
