"""ssd: the state-space dual form of Mamba2 (Dao & Gu 2024, arXiv 2405.21060, eq. 6 and sec. 6).

    dt_t = clamp(softplus(dt_t + dt_bias), dt_limit)        a_t = exp(dt_t A),  A < 0 one scalar a head
    h_t  = a_t h_{t-1} + dt_t x_t B_t^T                      h: (head_dim, d_state), zero at a document's first token
    y_t  = h_t C_t + D x_t

`reference` is this recurrence step by step. `_Chunked` is the same in matrix products, forward and backward: inside a
chunk an attention-like product masked by decays, between chunks the states, carried by a loop over chunks.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe_kernels.errors import ArgumentError, check_shape


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
    chunk_size: int = 64,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scan a sequence of any length; accumulation and state in float32 (float64 for float64 inputs).

    x: (batch, seqlen, n_heads, head_dim). dt: (batch, seqlen, n_heads), before bias and softplus. A, D, dt_bias:
    (n_heads,), A < 0. B, C: (batch, seqlen, n_groups, d_state), n_groups divides n_heads. initial_state: (batch,
    n_heads, head_dim, d_state). starts: (batch, seqlen) bool, True where a token begins a document and the state resets.

    Returns y like x, and with `return_state` the final state (batch, n_heads, head_dim, d_state).
    Raises ArgumentError for other shapes.
    """
    _check(x, dt, A, B, C, D, dt_bias, initial_state, starts)
    wide = torch.promote_types(x.dtype, torch.float32)
    dt = F.softplus(dt.to(wide) if dt_bias is None else dt.to(wide) + dt_bias.to(wide))
    if dt_limit != (0.0, float("inf")):
        dt = dt.clamp(*dt_limit)
    x_wide, A, B, C = x.to(wide), A.to(wide), B.to(wide), C.to(wide)
    D = A.new_zeros(A.shape) if D is None else D.to(wide)
    initial = None if initial_state is None else initial_state.to(wide)
    if x.shape[1] == 1:
        y, state = reference(x_wide, dt, A, B, C, initial, starts)
        return (y + D[:, None] * x_wide).to(x.dtype), state if return_state else None
    with torch.autocast(x.device.type, enabled=False):  # decays and states stay wide
        y, state = _Chunked.apply(x_wide, dt, A, B, C, D, initial, starts, chunk_size, return_state)  # type: ignore[misc]
    return y.to(x.dtype), state


def reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence token by token, for dt after softplus and without D: the oracle of every test, and the decoding step."""
    batch, seqlen, n_heads, head_dim = x.shape
    per_group = n_heads // B.shape[2]
    state = x.new_zeros(batch, n_heads, head_dim, B.shape[3]) if initial_state is None else initial_state
    out = []
    for t in range(seqlen):
        if starts is not None:
            state = state * (~starts[:, t]).to(state.dtype)[:, None, None, None]
        b = B[:, t].repeat_interleave(per_group, dim=1)  # (batch, n_heads, d_state)
        c = C[:, t].repeat_interleave(per_group, dim=1)
        decay = torch.exp(dt[:, t] * A)  # (batch, n_heads)
        state = decay[..., None, None] * state + (dt[:, t, :, None] * x[:, t])[..., None] * b[:, :, None, :]
        out.append((state * c[:, :, None, :]).sum(-1))
    return torch.stack(out, dim=1), state


class _Chunked(torch.autograd.Function):
    """One op forward, one backward. Dimensions: b batch, c chunks, q tokens a chunk, g groups, r heads a group, p head_dim,
    n d_state. With l = cumsum(dt A) inside a chunk, E_ij = exp(l_i - l_j), G = C B^T masked to j <= i of one document:

        Y = (G * E) X + exp(l) * (C H)        H' = exp(l_q) H + B^T (exp(l_q - l) * X)        X = dt * x

    H enters the chunk, H' leaves it.
    """

    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, initial, starts, chunk_size, return_state):
        batch, seqlen, n_heads, p = x.shape
        g, n = B.shape[2:]
        q = min(chunk_size, seqlen)
        c, r = -(-seqlen // q), n_heads // g
        pad = c * q - seqlen
        if pad:  # dt = 0 neither decays nor writes, so padding leaves the state as it is
            x, dt, B, C = (F.pad(t, (0, 0) * (t.dim() - 2) + (0, pad)) for t in (x, dt, B, C))
        x = x.reshape(batch, c, q, n_heads, p)
        dt = dt.reshape(batch, c, q, n_heads)
        B, C = (t.reshape(batch, c, q, g, n).transpose(2, 3).contiguous() for t in (B, C))  # (b, c, g, q, n)
        log = (dt * A).cumsum(2)  # (b, c, q, h): decay from the chunk's start through each token
        masks = _document_masks(starts, pad, c, q)

        scores = _masked(C @ B.transpose(-1, -2), masks)  # G: (b, c, g, q, q)
        decays = _decays(log)  # E: (b, c, h, q, q), garbage above the diagonal where G is zero
        xdt = x * dt[..., None]  # (b, c, q, h, p)
        products = (decays.unflatten(2, (g, r)) * scores[:, :, :, None]).view(-1, q, q)
        inside = torch.bmm(products, xdt.transpose(2, 3).reshape(-1, q, p)).view(batch, c, n_heads, q, p)
        y = (x * D[:, None]).add_(inside.transpose(2, 3))

        entering = final = None
        if c > 1 or initial is not None or return_state:
            to_end, carry = _ends(log, masks)
            weighted = xdt * to_end[..., None]
            added = B.transpose(-1, -2) @ _grouped(weighted, g)  # (b, c, g, n, r * p)
            state = x.new_zeros(batch, g, n, r * p) if initial is None else _inner_state(initial, g)
            states = []
            for i in range(c):
                states.append(state)
                state = torch.addcmul(added[:, i], state, carry[:, i].repeat_interleave(p, -1).view(batch, g, 1, r * p))
            final = state
            if c > 1 or initial is not None:
                entering = torch.stack(states, dim=1)  # (b, c, g, n, r * p)
                off = _ungrouped(C @ entering, n_heads, p)
                y.addcmul_(off, _from_start(log, masks)[..., None])
        ctx.save_for_backward(x, dt, A, B, C, D, log, scores, decays, entering, *masks)
        ctx.sizes = (batch, seqlen, n_heads, p, g, n, q, c, r, pad)
        ctx.has_initial, ctx.has_final = initial is not None, return_state
        ctx.set_materialize_grads(False)
        out = y.view(batch, c * q, n_heads, p)[:, :seqlen]
        return out, _outer_state(final, n_heads, p) if return_state and final is not None else None

    @staticmethod
    def backward(ctx: Any, *grads):
        dy, dfinal = grads
        x, dt, A, B, C, D, log, scores, decays, entering, *masks = ctx.saved_tensors
        batch, seqlen, n_heads, p, g, n, q, c, r, pad = ctx.sizes
        if dy is None:
            dy = x.new_zeros(batch, seqlen, n_heads, p)
        if pad:
            dy = F.pad(dy, (0, 0, 0, 0, 0, pad))
        dy = dy.reshape(batch, c, q, n_heads, p)
        xdt = x * dt[..., None]
        dy_heads = dy.transpose(2, 3).reshape(-1, q, p)
        xdt_heads = xdt.transpose(2, 3).reshape(-1, q, p)

        # through G * E: dE * E = dproducts * products moves l_i up and l_j down, the diagonal neither
        dproducts = torch.bmm(dy_heads, xdt_heads.transpose(1, 2)).view(batch, c, g, r, q, q)
        grouped_decays = decays.unflatten(2, (g, r))
        products = (grouped_decays * scores[:, :, :, None]).view(-1, q, q)
        dxdt = torch.bmm(products.transpose(1, 2), dy_heads).view(batch, c, n_heads, q, p).transpose(2, 3)
        dproducts.mul_(grouped_decays)
        dscores = _masked(dproducts.sum(3), masks)
        dB, dC = dscores.transpose(-1, -2) @ C, dscores @ B
        moved = dproducts.mul_(scores.tril(-1)[:, :, :, None]).view(batch, c, n_heads, q, q)
        # (b, c, q, h), by l. In float64: what enters a row and leaves a column must cancel when l is taken apart below
        dlog = (moved.sum(-1, dtype=torch.float64) - moved.sum(-2, dtype=torch.float64)).transpose(2, 3)

        dinitial, before_end = None, None
        if entering is not None or dfinal is not None:
            to_end, carry = _ends(log, masks)
            dstate = x.new_zeros(batch, g, n, r * p) if dfinal is None else _inner_state(dfinal, g)
            if entering is not None:
                from_start = _from_start(log, masks)
                from_dy = _grouped(dy * from_start[..., None], g)  # (b, c, g, q, r * p)
                dC = dC + from_dy @ entering.transpose(-1, -2)
                into = C.transpose(-1, -2) @ from_dy
                dlog = dlog + from_start * (dy * _ungrouped(C @ entering, n_heads, p)).sum(-1)
            leaving: list[Tensor] = [dstate] * c  # gradient of the state after each chunk
            for i in range(c - 1, -1, -1):
                leaving[i] = dstate
                wide_carry = carry[:, i].repeat_interleave(p, -1).view(batch, g, 1, r * p)
                dstate = dstate * wide_carry if entering is None else torch.addcmul(into[:, i], dstate, wide_carry)
            dinitial = _outer_state(dstate, n_heads, p) if ctx.has_initial else None
            dleaving = torch.stack(leaving, dim=1)  # (b, c, g, n, r * p)
            weighted = xdt * to_end[..., None]
            dB = dB + _grouped(weighted, g) @ dleaving.transpose(-1, -2)
            dweighted = _ungrouped(B @ dleaving, n_heads, p)  # (b, c, q, h, p)
            dxdt = dxdt + dweighted * to_end[..., None]
            # exp(l_q - l_j) holds the steps after j: an exclusive sum, which unlike l_q - l_j cancels nothing
            written = (dweighted * weighted).sum(-1)  # (b, c, q, h)
            before_end = written.cumsum(2) - written
            if entering is not None:
                kept = (dleaving * entering).sum(3).view(batch, c, n_heads, p).sum(-1)
                before_end = before_end + (kept * carry)[:, :, None]

        dlog = dlog.flip(2).cumsum(2).flip(2).to(x.dtype)
        if before_end is not None:
            dlog = dlog + before_end
        dx = torch.addcmul(dy * D[:, None], dxdt, dt[..., None])
        ddt = (dxdt * x).sum(-1) + dlog * A
        dA = (dlog * dt).sum((0, 1, 2))
        dD = (dy * x).sum((0, 1, 2, 4))
        cut = (batch, c * q)
        dx, ddt = dx.view(*cut, n_heads, p)[:, :seqlen], ddt.view(*cut, n_heads)[:, :seqlen]
        dB, dC = (t.transpose(2, 3).reshape(*cut, g, n)[:, :seqlen] for t in (dB, dC))
        return dx, ddt, dA, dB, dC, dD, dinitial, None, None, None


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


def _document_masks(starts: Tensor | None, pad: int, c: int, q: int) -> list[Tensor]:
    """Same document: of two tokens (b, c, q, q), of a token and its chunk's end (b, c, q), of the entering state and
    the chunk's end (b, c), of a token and the entering state (b, c, q). Nothing without boundaries."""
    if starts is None:
        return []
    documents = F.pad(starts, (0, pad)).cumsum(1).view(starts.shape[0], c, q)
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


def _ungrouped(t: Tensor, n_heads: int, p: int) -> Tensor:
    """(b, c, g, q, r * p) -> (b, c, q, h, p)."""
    b, c, _, q, _ = t.shape
    return t.transpose(2, 3).reshape(b, c, q, n_heads, p)


def _inner_state(state: Tensor, g: int) -> Tensor:
    """(b, h, p, n) -> (b, g, n, r * p)."""
    b, h, p, n = state.shape
    return state.reshape(b, g, h // g * p, n).transpose(-1, -2)


def _outer_state(state: Tensor, n_heads: int, p: int) -> Tensor:
    """(b, g, n, r * p) -> (b, h, p, n), contiguous so that it holds nothing else alive."""
    b, _, n, _ = state.shape
    return state.transpose(-1, -2).reshape(b, n_heads, p, n).contiguous()


def _check(x, dt, A, B, C, D, dt_bias, initial_state, starts) -> None:
    if x.dim() != 4 or x.shape[1] == 0 or not x.is_floating_point():
        given = f"{x.dtype} of shape {tuple(x.shape)}"
        raise ArgumentError("ssd: x", given, "floating (batch, seqlen >= 1, n_heads, head_dim)")
    batch, seqlen, n_heads, head_dim = x.shape
    if B.dim() != 4 or n_heads % B.shape[2]:
        allowed = f"({batch}, {seqlen}, n_groups, d_state), n_groups dividing {n_heads}"
        raise ArgumentError("ssd: B", f"shape {tuple(B.shape)}", allowed)
    check_shape("ssd", "dt", dt, (batch, seqlen, n_heads))
    check_shape("ssd", "B", B, (batch, seqlen, *B.shape[2:]))
    check_shape("ssd", "C", C, tuple(B.shape))
    for name, per_head in (("A", A), ("D", D), ("dt_bias", dt_bias)):
        if per_head is not None:
            check_shape("ssd", name, per_head, (n_heads,))
    if initial_state is not None:
        check_shape("ssd", "initial_state", initial_state, (batch, n_heads, head_dim, B.shape[3]))
    if starts is not None:
        check_shape("ssd", "starts", starts, (batch, seqlen))
