"""attention by flash-attn 4's kernels for Hopper and Blackwell (package flash-attn-4 4.0.0b36, a beta; module
flash_attn.cute).

Called are the two functions below its autograd functions. Its conventions are those of flash-attn 2 (see
`flash_attn`) but for these:

- one function serves rows and packed documents; no window is None;
- it has no ALiBi, and its backward takes the gradient of the log-sum-exp;
- rows whose sum is not a number have lse = -inf, as those without keys do; NaN here.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lcprobe_kernels.attention.flash_attn import Packed, packed_arguments, packed_of
from lcprobe_kernels.attention.reference import Mask


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: None,
    docs_q: Tensor | None,
    docs_k: Tensor | None,
    boundaries: Tensor | None,
    scale: float,
    mask: list[int],
    soft_cap: float,
) -> tuple[Tensor, Tensor]:
    """o and lse, see `lcprobe_kernels.attention._forward`."""
    packed = packed_of(docs_q, docs_k, boundaries)
    rows = [q, k, v] if packed is None else [t.flatten(0, 1) for t in (q, k, v)]
    o, lse, *_ = _api()._flash_attn_fwd(*rows, **_options(k, scale, mask, soft_cap, packed), return_lse=True)
    if packed is None:
        lse = lse.transpose(1, 2)
    else:
        o, lse = o.view(q.shape), lse.T.reshape(q.shape[:3])
    return o, torch.where((lse == -torch.inf) & o[..., 0].isnan(), torch.nan, lse).contiguous()


def backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    slopes: None,
    docs_q: Tensor | None,
    docs_k: Tensor | None,
    boundaries: Tensor | None,
    scale: float,
    mask: list[int],
    soft_cap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv. Deterministic where torch.use_deterministic_algorithms asks for it."""
    packed, rows = packed_of(docs_q, docs_k, boundaries), [q, k, v, o, do]
    if packed is not None:
        rows = [t.flatten(0, 1) for t in rows]
    dq, dk, dv = _api()._flash_attn_bwd(
        *rows,
        _heads_first(lse, packed),
        **_options(k, scale, mask, soft_cap, packed),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        dlse=None if dlse is None else _heads_first(dlse, packed),
    )
    return dq.view(q.shape), dk.view(k.shape), dv.view(v.shape)


def _api() -> Any:
    return import_module("flash_attn.cute.interface")


def _options(k: Tensor, scale: float, mask: list[int], soft_cap: float, packed: Packed | None) -> dict[str, Any]:
    """The arguments that both functions share."""
    longest, high = k.shape[1] if packed is None else packed.longest_k, Mask(*mask).high
    return {
        "softmax_scale": scale,
        "causal": True,
        "softcap": soft_cap,
        "window_size_left": None if high < 0 or high >= longest else high - 1,
        "window_size_right": None,
        **({} if packed is None else packed_arguments(packed)),
    }


def _heads_first(t: Tensor, packed: Packed | None) -> Tensor:
    return (t.transpose(1, 2) if packed is None else t.flatten(0, 1).T).contiguous()
