"""Stand-ins for flash_attn 2.8 and flash-attn 4: the functions that the adapters call, with their names, arguments,
shapes, checks and conventions (flash_attn_interface.py, csrc/flash_attn/flash_api.cpp, src/mask.h; cute/interface.py),
computed plainly in float64."""

import sys
from types import ModuleType

import torch

from tests.kernels.peer_signatures import as_published

CHECKED = (torch.float16, torch.bfloat16)


def install(monkeypatch, dtypes=CHECKED):
    """Put the stand-in where `import flash_attn` finds it. dtypes: that it accepts, beside the real ones for exact
    comparisons. Returns the list of names of its calls."""
    calls = []
    interface, package = ModuleType("flash_attn.flash_attn_interface"), ModuleType("flash_attn")
    for function in (
        _flash_attn_forward,
        _flash_attn_varlen_forward,
        _flash_attn_backward,
        _flash_attn_varlen_backward,
    ):
        setattr(interface, function.__name__, _noted(function, calls, dtypes))
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.flash_attn_interface", interface)
    return calls


def install_4(monkeypatch, dtypes=CHECKED):
    """The same for flash-attn 4, where `import flash_attn.cute.interface` finds it."""
    calls, interface = [], ModuleType("flash_attn.cute.interface")
    for function in (_flash_attn_fwd, _flash_attn_bwd):
        setattr(interface, function.__name__, _noted(function, calls, dtypes))
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", interface)
    return calls


def _noted(function, calls, dtypes):
    published = as_published(function.__name__, function)

    def call(*tensors, **options):
        calls.append((function.__name__, options))
        assert all(t.dtype in dtypes for t in tensors[:3]), "FlashAttention only support fp16 and bf16 data type"
        assert len({t.dtype for t in tensors[:3]}) == 1
        return published(*tensors, **options)

    return call


def _check(q, k, v, softcap, dropout_p, alibi_slopes, softmax_scale):
    width = q.shape[-1]
    assert width <= 256, "head dimension at most 256"
    assert width % 8 == 0
    assert k.shape[-1] == v.shape[-1] == width
    assert k.shape == v.shape
    assert q.shape[-2] % k.shape[-2] == 0
    assert all(t.stride(-1) == 1 for t in (q, k, v)), "contiguous last dimension"
    assert dropout_p == 0.0
    assert isinstance(softmax_scale, float)
    assert isinstance(softcap, float)
    if alibi_slopes is not None:
        assert alibi_slopes.dtype == torch.float32
        assert alibi_slopes.shape == (q.shape[-2],)
        assert alibi_slopes.stride(-1) == 1


def _scores(q, k, scale, causal, left, right, softcap, slopes):
    """One sequence, (n, heads, d) and (m, kv heads, d): scores (heads, n, m), -inf where nothing is seen; and the
    derivative of the cap. left and right are as after the clean-up of flash_api.cpp."""
    (n, heads, _), (m, kv, _) = q.shape, k.shape
    s = torch.einsum("ihd,jhd->hij", q.double(), k.double().repeat_interleave(heads // kv, 1)) * scale
    slope = torch.ones_like(s)
    if softcap > 0:
        s = softcap * torch.tanh(s / softcap)
        slope = 1 - (s / softcap) ** 2
    rows, cols = torch.arange(n)[:, None] + m - n, torch.arange(m)
    if slopes is not None:  # mask.h: under a causal mask the same numbers for every row
        bias = cols.double().expand(n, m) if causal and left < 0 else -(rows - cols).abs().double()
        s = s + slopes.double()[:, None, None] * bias
    hidden = torch.zeros(n, m, dtype=torch.bool)
    if right >= 0:
        hidden |= cols > rows + right
    if left >= 0:
        hidden |= cols < rows - left
    return s.masked_fill(hidden, float("-inf")), slope


def _cleaned(causal, left, right, longest_q, longest_k, slopes):
    left, right = -1 if left >= longest_k else left, -1 if right >= longest_k else right
    if longest_q == 1 and slopes is None:
        causal = False
    return causal, left, 0 if causal else right


def _one(q, k, v, scale, causal, left, right, softcap, slopes):
    s, _ = _scores(q, k, scale, causal, left, right, softcap, slopes)
    top = s.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
    weights = (s - top).exp()
    total = weights.sum(-1)
    empty = (total == 0) | total.isnan()
    values = v.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    o = torch.einsum("hij,jhd->ihd", weights / torch.where(empty, 1.0, total)[..., None], values)
    lse = torch.where(empty, float("inf"), total.log() + top[..., 0])
    return o.to(q.dtype), lse.to(torch.promote_types(q.dtype, torch.float32))


def _one_backward(do, q, k, v, o, lse, scale, causal, left, right, softcap, slopes):
    s, slope = _scores(q, k, scale, causal, left, right, softcap, slopes)
    group, do, o = q.shape[1] // k.shape[1], do.double(), o.double()
    p = (s - lse.double()[..., None]).exp()
    values, keys = (t.double().repeat_interleave(group, 1) for t in (v, k))
    delta = (do * o).sum(-1).T
    ds = p * (torch.einsum("ihd,jhd->hij", do, values) - delta[..., None]) * slope * scale
    dq = torch.einsum("hij,jhd->ihd", ds, keys)
    dk, dv = torch.einsum("hij,ihd->jhd", ds, q.double()), torch.einsum("hij,ihd->jhd", p, do)
    return [dq, *(t.unflatten(1, (-1, group)).sum(2) for t in (dk, dv))]


def _flash_attn_forward(
    q,
    k,
    v,
    dropout_p,
    softmax_scale,
    causal,
    window_size_left,
    window_size_right,
    softcap,
    alibi_slopes,
    return_softmax,
):
    _check(q, k, v, softcap, dropout_p, alibi_slopes, softmax_scale)
    assert q.dim() == 4
    assert q.shape[0] == k.shape[0]
    assert not return_softmax
    masks = _cleaned(causal, window_size_left, window_size_right, q.shape[1], k.shape[1], alibi_slopes)
    parts = [_one(*t, softmax_scale, *masks, softcap, alibi_slopes) for t in zip(q, k, v, strict=True)]
    o, lse = (torch.stack(t) for t in zip(*parts, strict=True))
    return o, lse, q.new_empty(0), torch.empty(2, dtype=torch.int64)


def _documents(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
    for cu, t, longest in ((cu_seqlens_q, q, max_seqlen_q), (cu_seqlens_k, k, max_seqlen_k)):
        assert t.dim() == 3
        assert cu.dtype == torch.int32
        assert cu.is_contiguous()
        assert cu[0] == 0
        assert cu[-1] == len(t)
        assert isinstance(longest, int)
        assert longest >= cu.diff().max()
    assert len(cu_seqlens_q) == len(cu_seqlens_k)
    if max_seqlen_q == 1:  # taken for decoding: queries are reshaped by the number of documents
        assert len(q) == len(cu_seqlens_q) - 1
    ends = zip(
        cu_seqlens_q.tolist(),
        cu_seqlens_q.tolist()[1:],
        cu_seqlens_k.tolist(),
        cu_seqlens_k.tolist()[1:],
        strict=False,
    )
    return [(slice(a, b), slice(c, d)) for a, b, c, d in ends]


def _flash_attn_varlen_forward(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
    window_size_left=-1, window_size_right=-1, softcap=0.0, alibi_slopes=None, return_softmax=False,
):  # fmt: skip
    _check(q, k, v, softcap, dropout_p, alibi_slopes, softmax_scale)
    documents = _documents(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    masks = _cleaned(causal, window_size_left, window_size_right, max_seqlen_q, max_seqlen_k, alibi_slopes)
    o = torch.empty_like(q)
    lse = torch.empty(q.shape[1], len(q), dtype=torch.promote_types(q.dtype, torch.float32))
    for at, keys in documents:
        if at.start < at.stop:
            o[at], lse[:, at] = _one(q[at], k[keys], v[keys], softmax_scale, *masks, softcap, alibi_slopes)
    return o, lse, q.new_empty(0), torch.empty(2, dtype=torch.int64)


def _check_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, deterministic):
    assert dout.shape == out.shape == q.shape
    assert dout.dtype == out.dtype == q.dtype
    assert softmax_lse.dtype == torch.promote_types(q.dtype, torch.float32)
    assert softmax_lse.is_contiguous()
    assert isinstance(deterministic, bool)
    for gradient, t in ((dq, q), (dk, k), (dv, v)):
        assert gradient.shape == t.shape
        assert gradient.dtype == t.dtype
        assert gradient.stride(-1) == 1


def _flash_attn_backward(
    dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, window_size_left, window_size_right,
    softcap, alibi_slopes, deterministic, rng_state=None,
):  # fmt: skip
    _check(q, k, v, softcap, dropout_p, alibi_slopes, softmax_scale)
    _check_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, deterministic)
    assert softmax_lse.shape == (q.shape[0], q.shape[2], q.shape[1])
    masks = _cleaned(causal, window_size_left, window_size_right, q.shape[1], k.shape[1], alibi_slopes)
    for i, given in enumerate(zip(dout, q, k, v, out, softmax_lse, strict=True)):
        parts = _one_backward(*given, softmax_scale, *masks, softcap, alibi_slopes)
        dq[i], dk[i], dv[i] = parts
    return softmax_lse


def _flash_attn_varlen_backward(
    dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
    softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes, deterministic, rng_state=None,
):  # fmt: skip
    _check(q, k, v, softcap, dropout_p, alibi_slopes, softmax_scale)
    _check_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, deterministic)
    assert softmax_lse.shape == (q.shape[1], len(q))
    documents = _documents(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    masks = _cleaned(causal, window_size_left, window_size_right, max_seqlen_q, max_seqlen_k, alibi_slopes)
    for at, keys in documents:
        given = (dout[at], q[at], k[keys], v[keys], out[at], softmax_lse[:, at])
        dq[at], dk[keys], dv[keys] = _one_backward(*given, softmax_scale, *masks, softcap, alibi_slopes)
    return softmax_lse


def _flash_attn_fwd(
    q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, softmax_scale=None, causal=False,
    softcap=None, window_size_left=None, window_size_right=None, return_lse=False,
):  # fmt: skip
    """flash-attn 4: o, lse, three that are None. Rows that see nothing, or whose sum is NaN, have lse = -inf."""
    _check(q, k, v, softcap, 0.0, None, softmax_scale)
    assert return_lse
    masks = _masks_4(causal, window_size_left, window_size_right)
    o, lse = torch.empty_like(q), _lse_like(q)
    for at, rows, keys in _sequences_4(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
        o[rows], lse[at] = _one(q[rows], k[keys], v[keys], softmax_scale, *masks, softcap, None)
    return o, torch.where(lse == float("inf"), -float("inf"), lse), None, None, None


def _flash_attn_bwd(
    q, k, v, out, dout, lse, softmax_scale=None, causal=False, softcap=0.0, window_size_left=None, window_size_right=None,
    cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, deterministic=False, dlse=None,
):  # fmt: skip
    _check(q, k, v, softcap, 0.0, None, softmax_scale)
    assert dout.shape == out.shape == q.shape
    assert dout.dtype == out.dtype == q.dtype
    assert isinstance(deterministic, bool)
    wanted = _lse_like(q)
    for t in (lse, *([] if dlse is None else [dlse])):
        assert t.shape == wanted.shape
        assert t.dtype == wanted.dtype
        assert t.is_contiguous()
    masks = _masks_4(causal, window_size_left, window_size_right)
    gradients = [torch.zeros_like(t) for t in (q, k, v)]
    for at, rows, keys in _sequences_4(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
        o, do = out[rows].double(), dout[rows].double()
        if dlse is not None:  # delta - dlse, by a column beside o and do where v has none
            o = torch.cat([o, -dlse[at].double().T[..., None]], 2)
            do = torch.cat([do, torch.ones_like(do[..., :1])], 2)
        values = torch.cat([v[keys].double(), torch.zeros_like(v[keys][..., :1]).double()], 2)[..., : o.shape[2]]
        given = (do, q[rows], k[keys], values, o, lse[at])
        parts = _one_backward(*given, softmax_scale, *masks, softcap, None)
        for gradient, where, part in zip(gradients, (rows, keys, keys), parts, strict=True):
            gradient[where] = part[..., : q.shape[-1]].to(q.dtype)
    return tuple(gradients)


def _masks_4(causal, left, right):
    """causal, left and right as `_scores` takes them; a window makes no causal mask."""
    assert causal
    assert right is None
    return (True, -1, 0) if left is None else (False, left, 0)


def _lse_like(q):
    shape = (q.shape[0], q.shape[2], q.shape[1]) if q.dim() == 4 else (q.shape[1], q.shape[0])
    return torch.empty(shape, dtype=torch.promote_types(q.dtype, torch.float32))


def _sequences_4(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
    """Where each sequence is in lse, in what is of queries, and in what is of keys."""
    if cu_seqlens_q is None:
        assert max_seqlen_q is None
        return [(i, i, i) for i in range(len(q))]
    documents = _documents(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    return [((slice(None), at), at, keys) for at, keys in documents if at.start < at.stop]
