"""attention by flash-attn's kernels (Dao 2023, arXiv 2307.08691; github.com/Dao-AILab/flash-attention, versions 2.7
and 2.8).

Its conventions, and what this adapter makes of them:

- the last query is at the last key (bottom right), as here; a window (left, right) counts keys beside the query's
  own, so that `high` keys are left = high - 1;
- documents are packed rows with cumulative lengths, of queries and of keys apart: cached keys of finished documents
  are documents without queries;
- ALiBi under a causal mask adds slope * j, not -slope * (i - j): its softmax is the same, its log-sum-exp is not, and
  far from the start the scores lose bits. A window as wide as all keys takes the other path, which adds the
  difference;
- its autograd function drops the gradient of the log-sum-exp, without a word. Its backward kernel is called
  directly: from delta_i = o_i . do_i it makes dS = P (dO V^T - delta), and a column -dlse beside o and 1 beside do,
  where v has 0, makes delta_i = o_i . do_i - dlse_i. The number is cut into pieces that half precision holds exactly;
- rows whose sum is not a number have lse = inf there, NaN here.

flash-attn 4 is a backend of its own (`flash_attn_4`); flash-attn 3 (module flash_attn_interface, for Hopper alone,
without ALiBi) is none.
"""

import weakref
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from lcprobe_kernels.attention.reference import Mask
from lcprobe_kernels.errors import ArgumentError
from lcprobe_kernels.transfer import sent

EXTRA = 8
"""Columns beside a head for the gradient of lse: heads are a multiple of 8 wide."""
PIECES = 3


class Packed(NamedTuple):
    """Documents of all rows in one. cu_q, cu_k: (n + 1,) int32 cumulative lengths; longest_q, longest_k: of any."""

    cu_q: Tensor
    cu_k: Tensor
    longest_q: int
    longest_k: int


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor | None,
    docs_q: Tensor | None,
    docs_k: Tensor | None,
    boundaries: Tensor | None,
    scale: float,
    mask: list[int],
    soft_cap: float,
) -> tuple[Tensor, Tensor]:
    """o and lse, see `lcprobe_kernels.attention._forward`."""
    api, packed = _api(), packed_of(docs_q, docs_k, boundaries)
    options = _options(k, slopes, scale, mask, soft_cap, packed) | {"return_softmax": False}
    if packed is None:
        o, lse, *_ = api._flash_attn_forward(q, k, v, **options)
        lse = lse.transpose(1, 2)
    else:
        rows = [t.flatten(0, 1) for t in (q, k, v)]
        o, lse, *_ = api._flash_attn_varlen_forward(*rows, **packed_arguments(packed), **options)
        o, lse = o.view(q.shape), lse.T.reshape(q.shape[:3])
    return o, torch.where(lse == float("inf"), float("nan"), lse).contiguous()


def backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    slopes: Tensor | None,
    docs_q: Tensor | None,
    docs_k: Tensor | None,
    boundaries: Tensor | None,
    scale: float,
    mask: list[int],
    soft_cap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv. Deterministic where torch.use_deterministic_algorithms asks for it."""
    api, packed, width = _api(), packed_of(docs_q, docs_k, boundaries), q.shape[3]
    options = _options(k, slopes, scale, mask, soft_cap, packed)
    options["deterministic"] = torch.are_deterministic_algorithms_enabled()
    if dlse is not None:
        q, k, v = (F.pad(t, (0, EXTRA)) for t in (q, k, v))
        o = torch.cat([o, *_pieces(-dlse, o.dtype)], 3)
        do = torch.cat([do, do.new_ones(*do.shape[:3], PIECES), do.new_zeros(*do.shape[:3], EXTRA - PIECES)], 3)
    gradients = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    if packed is None:
        api._flash_attn_backward(do, q, k, v, o, lse.transpose(1, 2).contiguous(), *gradients, **options)
    else:
        rows = [t.flatten(0, 1) for t in (do, q, k, v, o)]
        into = [t.flatten(0, 1) for t in gradients]
        totals = lse.flatten(0, 1).T.contiguous()
        api._flash_attn_varlen_backward(*rows, totals, *into, **packed_arguments(packed), **options)
    dq, dk, dv = (t[..., :width] for t in gradients)
    return dq, dk, dv


def _api() -> Any:
    return import_module("flash_attn.flash_attn_interface")


def _options(
    k: Tensor, slopes: Tensor | None, scale: float, mask: list[int], soft_cap: float, packed: Packed | None
) -> dict[str, Any]:
    """The arguments that all of its functions share."""
    longest, high = k.shape[1] if packed is None else packed.longest_k, Mask(*mask).high
    left = -1 if high < 0 or high >= longest else high - 1
    if slopes is not None and left < 0:
        left = longest - 1
    return {
        "dropout_p": 0.0,
        "softmax_scale": scale,
        "causal": True,
        "window_size_left": left,
        "window_size_right": 0 if left >= 0 else -1,
        "softcap": soft_cap,
        "alibi_slopes": None if slopes is None else slopes.float().contiguous(),
    }


def packed_arguments(packed: Packed) -> dict[str, Any]:
    """A longest document of one query would be taken for decoding, one query for every document."""
    return {
        "cu_seqlens_q": packed.cu_q,
        "cu_seqlens_k": packed.cu_k,
        "max_seqlen_q": max(packed.longest_q, 2),
        "max_seqlen_k": packed.longest_k,
    }


def _pieces(x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """x (batch, seqlen, n_heads) as EXTRA columns of `dtype` whose sum it is, to about 24 bits."""
    pieces, rest = [], x
    for _ in range(PIECES):
        piece = rest.to(dtype)
        pieces.append(piece[..., None])
        rest = rest - piece.to(x.dtype)
    return [*pieces, pieces[0].new_zeros(*x.shape, EXTRA - PIECES)]


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def packed_of(docs_q: Tensor | None, docs_k: Tensor | None, boundaries: Tensor | None) -> Packed | None:
    """The documents of a call, made once for all layers that pass the same tensors. A GPU is waited for only without
    boundaries."""
    if docs_q is None or docs_k is None:
        return None
    if boundaries is not None:
        known: dict[Any, Packed] = _known.setdefault(boundaries, {})  # pyright: ignore[reportAssignmentType]
        key = docs_q.shape, docs_k.shape, docs_k.device
        if key not in known:
            known[key] = pack_known(boundaries, docs_q.shape[1], docs_k.shape, docs_k.device)
        return known[key]
    counted = _known.get(docs_k)
    if counted is None or counted[0]() is not docs_q:
        counted = _known[docs_k] = (weakref.ref(docs_q), pack(docs_q, docs_k))
    return counted[1]


def pack_known(boundaries: Tensor, seqlen: int, keys: torch.Size, device: torch.device) -> Packed:
    """Boundaries of the documents of the keys, on the host -> cumulative lengths. keys: (batch, n_keys), of which the
    last seqlen of a row are queries.

    The longest lengths are exact, not the bound that a row's length is: kernels start programs for the longest
    document in every one, and most of these would find nothing to do. Raises ArgumentError for boundaries of others.
    """
    batch, n_keys = keys
    if int(boundaries[-1]) != batch * n_keys:
        given = f"of {int(boundaries[-1])} tokens"
        raise ArgumentError("attention: boundaries", given, f"of {batch * n_keys}, {batch} rows of {n_keys} keys")
    cu_q = cu_k = boundaries
    if seqlen != n_keys:
        row, at = cu_k[:-1] // n_keys, cu_k[:-1] % n_keys
        cu_q = F.pad(row * seqlen + (at - (n_keys - seqlen)).clamp_min(0), (0, 1), value=batch * seqlen)
    longest_q, longest_k = (int(cu.diff().amax()) for cu in (cu_q, cu_k))
    return Packed(sent(cu_q, device), sent(cu_k, device), longest_q, longest_k)


def pack(docs_q: Tensor, docs_k: Tensor) -> Packed:
    """Document numbers of queries (batch, seqlen), the last of the keys (batch, n_keys) -> cumulative lengths.

    Raises ArgumentError for numbers that fall along a row, or differ between a query and its key: such documents are
    no runs of tokens.
    """
    (batch, seqlen), n_keys = docs_q.shape, docs_k.shape[1]
    steps, past = docs_k.diff(dim=1), n_keys - seqlen
    begins = F.pad(steps != 0, (1, 0), value=True).flatten().nonzero()[:, 0]
    row, at = begins // n_keys, begins % n_keys
    cu_k = F.pad(begins, (0, 1), value=batch * n_keys).int()
    cu_q = F.pad(row * seqlen + (at - past).clamp_min(0), (0, 1), value=batch * seqlen).int()
    in_order = ((steps >= 0).all() & (docs_k[:, past:] == docs_q).all()).int()
    longest_q, longest_k, fine = torch.stack([cu_q.diff().amax(), cu_k.diff().amax(), in_order]).tolist()
    if not fine:
        allowed = "numbers that rise along a row, the same for a query and its key; kernels.backend=triton for others"
        raise ArgumentError("attention: documents", "others, with flash_attn", allowed)
    return Packed(cu_q, cu_k, longest_q, longest_k)
