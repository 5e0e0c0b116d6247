"""ssd in matrix products: any device, any float dtype, tuned for CPUs. Only the pass over chunk states is a loop.

Dimensions: b batch, c chunks, q tokens per chunk, g groups, r heads per group, h = g r heads, p head_dim, n d_state.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.packed import reached


def forward(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state):
    """See `lcprobe_kernels.ssd._forward`."""
    results = _forward(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state)
    # every NaN and infinity of the inputs appears in y, so one sum detects it; on a GPU the check would synchronise
    if x.device.type != "cpu" or results[0].sum(dtype=A.dtype).isfinite():
        return results
    return _confined(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state)


def _confined(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state):
    """The forward pass for inputs with NaN or infinity, which masks made of products (0 * NaN) do not stop.

    It runs without them; then what they reach becomes NaN: outputs from their token to the end of its document,
    in every head_dim of a head for dt, of a group for B, and what backward reads of them.
    """
    h, g, acc_dtype = x.shape[2], B.shape[2], A.dtype
    steps = _steps(dt, dt_bias, dt_min, dt_max, acc_dtype)
    halted = ~(steps * A).isfinite()  # (b, l, h)
    bad_B, bad_C = (~t.isfinite().all(-1).repeat_interleave(h // g, 2)[..., None] for t in (B, C))  # (b, l, h, 1)
    bad = ~(x.to(acc_dtype) * steps[..., None]).isfinite() | halted[..., None] | bad_B
    after = reached(bad, starts, None if initial is None else ~initial.isfinite().all(-1))  # (b, l, h, p)
    x, B, C, first = (None if t is None else t.where(t.isfinite(), 0) for t in (x, B, C, initial))
    dt = dt.masked_fill(halted, 0)
    y, final, steps, log, entering = _forward(
        x, dt, A, B, C, D, dt_bias, first, starts, dt_min, dt_max, q, return_state
    )
    y.masked_fill_(after | bad_C, float("nan"))
    if return_state:
        final.masked_fill_(after[:, -1, :, :, None], float("nan"))
    c = entering.shape[1]
    steps.masked_fill_(_chunked(halted, c, q), float("nan"))
    log += (steps * 0).cumsum(2)
    into = after[:, q - 1 : (c - 1) * q : q].reshape(entering.shape[0], c - 1, g, 1, entering.shape[-1])
    entering[:, 1:].masked_fill_(into, float("nan"))
    if initial is not None:
        entering[:, 0] = _inner_state(initial, g)
    return y, final, steps, log, entering


def _forward(x, dt, A, B, C, D, dt_bias, initial, starts, dt_min, dt_max, q, return_state):
    batch, seqlen, h, p = x.shape
    g, n, acc_dtype = *B.shape[2:], A.dtype
    c = -(-seqlen // q)
    steps = _chunked(
        _steps(dt, dt_bias, dt_min, dt_max, acc_dtype), c, q
    )  # padding has dt = 0: it neither decays nor writes
    log = (steps * A).cumsum(2)  # (b, c, q, h)
    xs, B, C = _chunked(x.to(acc_dtype), c, q), _by_group(B, acc_dtype, c, q), _by_group(C, acc_dtype, c, q)
    masks = _document_masks(starts, c, q)

    scores = _masked(C @ B.transpose(-1, -2), masks)  # (b, c, g, q, q)
    xdt = xs * steps[..., None]
    products = (_decays(log).unflatten(2, (g, h // g)) * scores[:, :, :, None]).view(-1, q, q)
    inside = torch.bmm(products, xdt.transpose(2, 3).reshape(-1, q, p)).view(batch, c, h, q, p).transpose(2, 3)
    y = inside.contiguous() if D is None else (xs * D[:, None]).add_(inside)

    entering, final = x.new_zeros(batch, c, g, n, h // g * p, dtype=acc_dtype), x.new_empty(0, dtype=acc_dtype)
    if c > 1 or initial is not None or return_state:
        to_end, carry = _ends(log, masks)
        added = B.transpose(-1, -2) @ _grouped(xdt * to_end[..., None], g)  # (b, c, g, n, r * p)
        state = entering[:, 0] if initial is None else _inner_state(initial, g)
        for i in range(c):
            if i or initial is not None:
                entering[:, i] = state
            state = torch.addcmul(added[:, i], state, carry[:, i].repeat_interleave(p, -1).view(batch, g, 1, -1))
        if return_state:
            final = _outer_state(state, h, p)
        if c > 1 or initial is not None:
            y.addcmul_(_ungrouped(C @ entering, h, p), _from_start(log, masks)[..., None])
    y = y.reshape(batch, c * q, h, p)[:, :seqlen].to(x.dtype)
    return y.contiguous(), final, steps.contiguous(), log, entering


def backward(
    dy, dfinal, x, dt, A, B, C, D, dt_bias, starts, steps, log, entering, dt_min, dt_max, has_initial, of_steps
):  # fmt: skip
    """See `lcprobe_kernels.ssd._backward`."""
    batch, seqlen, h, p = x.shape
    g, acc_dtype = B.shape[2], A.dtype
    c, q = log.shape[1:3]
    r = h // g
    xs, dy, B_in, C_in = _chunked(x.to(acc_dtype), c, q), _chunked(dy.to(acc_dtype), c, q), B, C
    B, C = _by_group(B, acc_dtype, c, q), _by_group(C, acc_dtype, c, q)
    masks = _document_masks(starts, c, q)
    scores, decays = _masked(C @ B.transpose(-1, -2), masks), _decays(log).unflatten(2, (g, r))
    xdt = xs * steps[..., None]
    dy_heads, xdt_heads = dy.transpose(2, 3).reshape(-1, q, p), xdt.transpose(2, 3).reshape(-1, q, p)

    # through S * E: what moves l_i up moves l_j down, the diagonal neither
    dproducts = torch.bmm(dy_heads, xdt_heads.transpose(1, 2)).view(batch, c, g, r, q, q)
    products = (decays * scores[:, :, :, None]).view(-1, q, q)
    dxdt = torch.bmm(products.transpose(1, 2), dy_heads).view(batch, c, h, q, p).transpose(2, 3)
    dproducts.mul_(decays)
    dscores = _masked(dproducts.sum(3), masks)
    dB, dC = dscores.transpose(-1, -2) @ C, dscores @ B
    dinitial, dlog, before_end = A.new_empty(0), A.new_zeros(()), None
    if of_steps:
        moved = dproducts.mul_(scores.tril(-1)[:, :, :, None]).view(batch, c, h, q, q)
        # (b, c, q, h), by l; in float64, as what enters a row and leaves a column must cancel when l is taken apart
        dlog = (moved.sum(-1, dtype=torch.float64) - moved.sum(-2, dtype=torch.float64)).transpose(2, 3)

    if c > 1 or has_initial or dfinal is not None:
        to_end, carry = _ends(log, masks)
        dstate = torch.zeros_like(entering[:, 0]) if dfinal is None else _inner_state(dfinal.to(acc_dtype), g)
        into, with_past = None, c > 1 or has_initial
        if with_past:
            from_start = _from_start(log, masks)
            from_dy = _grouped(dy * from_start[..., None], g)  # (b, c, g, q, r * p)
            dC = dC + from_dy @ entering.transpose(-1, -2)
            into = C.transpose(-1, -2) @ from_dy
            if of_steps:
                dlog = dlog + from_start * (dy * _ungrouped(C @ entering, h, p)).sum(-1)
        leaving = torch.empty_like(entering)  # gradient of the state after each chunk
        for i in range(c - 1, -1, -1):
            leaving[:, i] = dstate
            wide_carry = carry[:, i].repeat_interleave(p, -1).view(batch, g, 1, r * p)
            dstate = dstate * wide_carry if into is None else torch.addcmul(into[:, i], dstate, wide_carry)
        if has_initial:
            dinitial = _outer_state(dstate, h, p)
        weighted = xdt * to_end[..., None]
        dB = dB + _grouped(weighted, g) @ leaving.transpose(-1, -2)
        dweighted = _ungrouped(B @ leaving, h, p)  # (b, c, q, h, p)
        dxdt = dxdt + dweighted * to_end[..., None]
        if of_steps:
            # exp(l_q - l_j) holds the steps after j: an exclusive sum, which unlike l_q - l_j cancels nothing
            written = (dweighted * weighted).sum(-1)  # (b, c, q, h)
            before_end = F.pad(written.cumsum(2)[:, :, :-1], (0, 0, 1, 0))
            if with_past:
                kept = (leaving * entering).sum(3).view(batch, c, h, p).sum(-1)
                before_end = before_end + (kept * carry)[:, :, None]

    dx = dxdt * steps[..., None] if D is None else torch.addcmul(dy * D[:, None], dxdt, steps[..., None])
    dx = dx.reshape(batch, c * q, h, p)[:, :seqlen].to(x.dtype).contiguous()
    dB, dC = _from_groups(dB, B_in), _from_groups(dC, C_in)
    dD = torch.zeros_like(A) if D is None else (dy * xs).sum((0, 1, 2, 4))
    if not of_steps:
        return dx, torch.zeros_like(dt), torch.zeros_like(A), dB, dC, dD, torch.zeros_like(A), dinitial
    dlog = dlog.flip(2).cumsum(2).flip(2).to(acc_dtype)
    if before_end is not None:
        dlog = dlog + before_end
    dsteps = (dxdt * xs).sum(-1) + dlog * A
    dA = (dlog * steps).sum((0, 1, 2))
    raw = dt.to(acc_dtype) if dt_bias is None else dt.to(acc_dtype) + dt_bias
    ddt = dsteps.reshape(batch, c * q, h)[:, :seqlen] * torch.sigmoid(raw)
    if (dt_min, dt_max) != (0.0, float("inf")):
        soft = F.softplus(raw)
        ddt = ddt * ((soft >= dt_min) & (soft <= dt_max))
    return dx, ddt.to(dt.dtype), dA, dB, dC, dD, ddt.sum((0, 1)), dinitial


def _steps(dt: Tensor, dt_bias: Tensor | None, dt_min: float, dt_max: float, acc_dtype: torch.dtype) -> Tensor:
    steps = F.softplus(dt.to(acc_dtype) if dt_bias is None else dt.to(acc_dtype) + dt_bias)
    return steps if (dt_min, dt_max) == (0.0, float("inf")) else steps.clamp(dt_min, dt_max)


def _chunked(t: Tensor, c: int, q: int) -> Tensor:
    """(b, seqlen, ...) -> (b, c, q, ...), with zeros to fill the last chunk."""
    pad = c * q - t.shape[1]
    return (F.pad(t, (0, 0) * (t.dim() - 2) + (0, pad)) if pad else t).reshape(t.shape[0], c, q, *t.shape[2:])


def _by_group(t: Tensor, acc_dtype: torch.dtype, c: int, q: int) -> Tensor:
    """(b, seqlen, g, n) -> (b, c, g, q, n)."""
    return _chunked(t.to(acc_dtype), c, q).transpose(2, 3).contiguous()


def _from_groups(t: Tensor, like: Tensor) -> Tensor:
    """(b, c, g, q, n) -> (b, seqlen, g, n), in the dtype of `like`."""
    b, c, g, q, n = t.shape
    return t.transpose(2, 3).reshape(b, c * q, g, n)[:, : like.shape[1]].to(like.dtype).contiguous()


def _decays(log: Tensor) -> Tensor:
    """exp(l_i - l_j) for j <= i; above the diagonal at most 1, so that a zero score keeps it out. (b, c, h, q, q)."""
    rows = log.transpose(2, 3).contiguous()
    return (rows[..., :, None] - rows[..., None, :]).clamp_max_(0).exp_()


def _masked(scores: Tensor, masks: list[Tensor]) -> Tensor:
    """(b, c, g, q, q) with zeros above the diagonal and between documents."""
    scores = scores.tril_()
    return scores if not masks else scores.mul_(masks[0][:, :, None])


def _ends(log: Tensor, masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Decay from each token to its chunk's end (b, c, q, h), and of the entering state across the chunk (b, c, h)."""
    to_end, carry = (log[:, :, -1:] - log).exp_(), log[:, :, -1].exp()
    return (to_end, carry) if not masks else (to_end.mul_(masks[1][..., None]), carry.mul_(masks[2][..., None]))


def _from_start(log: Tensor, masks: list[Tensor]) -> Tensor:
    """Decay of the entering state at each token: (b, c, q, h)."""
    decay = log.exp()
    return decay if not masks else decay.mul_(masks[3][..., None])


def _document_masks(starts: Tensor | None, c: int, q: int) -> list[Tensor]:
    """Same document: of two tokens (b, c, q, q), of a token and its chunk's end (b, c, q), of the entering state and
    the chunk's end (b, c), of a token and the entering state (b, c, q). Nothing without boundaries."""
    if starts is None:
        return []
    documents = F.pad(starts, (0, c * q - starts.shape[1])).cumsum(1).view(starts.shape[0], c, q)
    last = documents[:, :, -1]
    before = F.pad(last, (1, -1))  # document 0 is the one that the initial state belongs to
    return [
        documents[..., :, None] == documents[..., None, :],
        documents == last[..., None],
        last == before,
        documents == before[..., None],
    ]


def _grouped(t: Tensor, g: int) -> Tensor:
    """(b, c, q, h, p) -> (b, c, g, q, r * p)."""
    b, c, q, h, p = t.shape
    return t.reshape(b, c, q, g, h // g * p).transpose(2, 3)


def _ungrouped(t: Tensor, h: int, p: int) -> Tensor:
    """(b, c, g, q, r * p) -> (b, c, q, h, p)."""
    b, c, _, q, _ = t.shape
    return t.transpose(2, 3).reshape(b, c, q, h, p)


def _inner_state(state: Tensor, g: int) -> Tensor:
    """(b, h, p, n) -> (b, g, n, r * p)."""
    b, h, p, n = state.shape
    return state.reshape(b, g, h // g * p, n).transpose(-1, -2)


def _outer_state(state: Tensor, h: int, p: int) -> Tensor:
    """(b, g, n, r * p) -> (b, h, p, n), contiguous, so that it keeps no other memory alive."""
    b, _, n, _ = state.shape
    return state.transpose(-1, -2).reshape(b, h, p, n).contiguous()
