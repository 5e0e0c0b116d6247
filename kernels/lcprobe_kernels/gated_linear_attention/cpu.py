"""gated_linear_attention in matrix products, forward and backward, on any device.

The recurrence to which the public function reduces its special cases (w = exp(log_decay), 0 where a
document begins; S: (d_k, d_v)):

    z_t = a_t^T S_{t-1}      S_t = diag(w_t) S_{t-1} + k_t v_t^T + b_t z_t^T      o_t = q_t^T S_t, or q_t^T S_{t-1}

Inside a chunk, with S_0 entering and D(i, j) = prod_{j < m < i} w_m, a row x_i (w_i q_i, or q_i; a_i) meets a column
y_j (k_j; b_j) as  A_xy[i, j] = sum_d x_i D(i, j) y_j, j < i  (and A_q.[i, i] = q_i . y_i where o_t reads S_t). Then

    (1 - A_ab) Z = A_ak V + (a D(., start)) S_0       one triangular solve (the WY or UT transform)
    O = A_qk V + A_qb Z + (q D(., start)) S_0         S' = diag(W) S_0 + (k D(end, .))^T V + (b D(end, .))^T Z

With b = k (the delta rule; `b` is None) V + Z is one unknown Y: (1 - A_ak) Y = V + (a D) S_0, and half of the
products are saved.

D is never a quotient of running products, which overflows, nor a difference of running sums, which loses what is
small beside a strong decay. `_halve` doubles blocks instead: rows of a right half times columns of its left half,
decayed to the border between them, give the block's lower left corner; then rows move to the block's begin and
columns to its end. Every factor is at most 1, w = 0 is exact, and no exponential is taken. Rows q and a are
interleaved token by token, as do k and b: one product makes all four matrices, and the layout passes to bmm as a
view.

Dimensions: p = batch x heads x chunks, s tokens per half, r rows and c columns per token (1, or 2 with a and b).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lcprobe_kernels.backends import on_cpu
from lcprobe_kernels.packed import reached

CPU_ELEMENTS, GPU_ELEMENTS = 1 << 18, 1 << 26
"""A segment holds about this many elements of one input: a CPU's cache keeps what it works on, a GPU is not limited
by launches, and memory does not grow with length."""


class Inputs(NamedTuple):
    """(batch, seqlen, n_heads, .) each; w has d_k or 1 in the last place; a without b: b = k."""

    q: Tensor
    k: Tensor
    v: Tensor
    w: Tensor
    a: Tensor | None
    b: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The inputs with `change` applied to every tensor."""
        a, b = None if self.a is None else change(self.a), None if self.b is None else change(self.b)
        return Inputs(change(self.q), change(self.k), change(self.v), change(self.w), a, b)

    def cut(self, part: slice) -> "Inputs":
        """The inputs of some of the tokens."""
        return self.each(lambda x: x[:, part])


class Chunk(NamedTuple):
    """Results of one segment's forward pass that its backward pass needs; see the module's equations."""

    rows: Tensor  # (p, Q, r, d_k), decayed to the chunk's begin
    cols: Tensor  # (p, Q, c, d_k), decayed to the chunk's end
    scores: Tensor  # A: (p, Q, r, Q, c)
    values: Tensor  # V and Z, or Y: (p, Q, c, d_v)
    kept: Tensor  # W: (p, d_k or 1)
    moves: Tensor | None  # S' = moves S_0 + ...: (p, d_k, d_k), or None where that is diag(W)
    solved: Tensor | None  # M of Z = U + M S_0: (p, Q, d_k)
    states: Tensor  # S_0: (batch x heads, chunks, d_k, d_v)
    plain: tuple[Tensor, Tensor, Tensor]  # rows, cols and w before any decay, where they are asked for
    levels: list[tuple[Tensor, Tensor, Tensor]]
    decays: (
        tuple[Tensor, Tensor] | None
    )  # scalar decay only: D below the diagonal (p, Q, 1, Q, 1), and the products it meets
    ends: tuple[Tensor, Tensor] | None  # scalar decay only: D to the chunk's begin and end, (p, Q, 1, 1)


def segment(q: Tensor, v: Tensor, chunk_size: int) -> int:
    """Tokens of a segment, a multiple of the chunk size."""
    batch, _, n_heads, d_k = q.shape
    elements = CPU_ELEMENTS if on_cpu(q.device) else GPU_ELEMENTS
    return max(1, elements // max(1, batch * n_heads * max(d_k, v.shape[3]) * chunk_size)) * chunk_size


def _parts(x: Inputs, chunk_size: int) -> tuple[int, list[slice]]:
    """The chunk's length (a power of two, no more than the tokens need), and the tokens of each segment."""
    seqlen, at_once = x.q.shape[1], segment(x.q, x.v, chunk_size)
    return min(chunk_size, 1 << (seqlen - 1).bit_length()), [slice(i, i + at_once) for i in range(0, seqlen, at_once)]


def forward(x: Inputs, initial: Tensor | None, inclusive: bool, chunk_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """o (batch, seqlen, n_heads, d_v), the final state, and those entering each segment (segments, batch, n_heads,
    d_k, d_v)."""
    results = _forward(x, initial, inclusive, chunk_size)
    # every NaN and infinity of the inputs appears in o or the state, so a sum detects it; a GPU would synchronise
    if x.q.device.type != "cpu" or not on_cpu(x.q.device) or (results[0].sum() + results[1].sum()).isfinite():
        return results
    return _confined(x, initial, inclusive, chunk_size)


def _confined(x: Inputs, initial: Tensor | None, inclusive: bool, chunk_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The forward pass for inputs with NaN or infinity, which masks made of products (0 * NaN) do not stop.

    It runs without them; then a head's outputs and states from such a token to its document's end become NaN.
    """
    bad = x.each(lambda t: ~t.isfinite().all(-1))  # (batch, seqlen, n_heads)
    written = bad.k | bad.v | bad.w
    resets = (x.w == 0).all(-1)  # nothing of the state is kept
    for more, it in ((x.a, bad.a), (x.b, bad.b)):
        if more is not None and it is not None:
            written = written | it
    if x.a is not None:
        resets = resets & (x.a == 0).all(-1)
    before = torch.zeros_like(written[:, 0]) if initial is None else ~initial.isfinite().flatten(2).all(-1)
    after = reached(written, resets, before)
    clean = None if initial is None else initial.where(initial.isfinite(), 0)
    o, final, entering = _forward(x.each(lambda t: t.where(t.isfinite(), 0)), clean, inclusive, chunk_size)
    carried = torch.cat([before[:, None], after[:, :-1]], 1)
    read = after if inclusive else carried & ~(resets & (x.q == 0).all(-1))
    o.masked_fill_((read | bad.q)[..., None], float("nan"))
    final = final.masked_fill(after[:, -1, :, None, None], float("nan"))
    begins = carried[:, :: segment(x.q, x.v, chunk_size)].transpose(0, 1)  # (segments, batch, n_heads)
    return o, final, entering.masked_fill(begins[..., None, None], float("nan"))


def _forward(x: Inputs, initial: Tensor | None, inclusive: bool, chunk_size: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, seqlen, n_heads, d_k = x.q.shape
    d_v = x.v.shape[3]
    state = (
        x.q.new_zeros(batch * n_heads, d_k, d_v) if initial is None else initial.reshape(batch * n_heads, d_k, d_v)
    )
    chunk, parts = _parts(x, chunk_size)
    o, entering = x.v.new_empty(batch, seqlen, n_heads, d_v), []
    for part in parts:
        entering.append(state)
        done, state = _chunked(x.cut(part), state, inclusive, chunk, keep=False)
        _add_outputs(done, o[:, part])
    final = state.view(batch, n_heads, d_k, d_v)
    return o, final, torch.stack(entering).view(-1, batch, n_heads, d_k, d_v)


def backward(
    do: Tensor, dfinal: Tensor, x: Inputs, entering: Tensor, inclusive: bool, chunk_size: int
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, w, a, b and the initial state. A segment's forward pass is done again: what it
    leaves is some 3 KB a token and head."""
    batch, _, n_heads, d_k = x.q.shape
    grads = x.each(lambda t: t.new_empty(t.shape))
    dstate = dfinal.reshape(batch * n_heads, d_k, -1)
    chunk, parts = _parts(x, chunk_size)
    for i in range(len(parts) - 1, -1, -1):
        here = x.cut(parts[i])
        done, _ = _chunked(here, entering[i].reshape(dstate.shape), inclusive, chunk, keep=True)
        dstate = _chunked_backward(do[:, parts[i]], dstate, here, done, inclusive, grads.cut(parts[i]))
    return (*grads, dstate.view(batch, n_heads, d_k, -1))


def _chunked(x: Inputs, state: Tensor, inclusive: bool, chunk: int, keep: bool) -> tuple[Chunk, Tensor]:
    """All chunks of a segment at once, but for a loop that carries the state from chunk to chunk."""
    rows = _packed([x.q * x.w if inclusive else x.q, x.a], chunk, 0.0)
    cols = _packed([x.k, x.b], chunk, 0.0)
    values = _packed([x.v, None if x.b is None else x.v], chunk, 0.0)  # the second place is Z's
    w = _packed([x.w], chunk, 1.0).squeeze(2)
    p, _, r, d_k = rows.shape
    c, d_v = values.shape[2:]
    q = _packed([x.q], chunk, 0.0) if inclusive else None  # (p, Q, 1, d_k)
    diagonal = None if q is None else (q * cols).sum(-1)
    plain = (rows, cols, w)
    decays = ends = None
    if w.shape[-1] == 1 < d_k:  # one decay for all channels: it leaves the products
        masks = rows.new_zeros(p, chunk, 1, chunk, 1)
        ends = (rows.new_ones(p, chunk, 1, 1), rows.new_ones(p, chunk, 1, 1))
        kept, levels = _halve(*ends, w, masks, keep)
        products = torch.bmm(rows.flatten(1, 2), cols.flatten(1, 2).mT).view(p, chunk, r, chunk, c)
        scores = products * masks if keep else products.mul_(masks)
        decays = (masks, products)
        rows, cols = rows * ends[0], cols * ends[1]
    else:
        if keep:
            plain = (rows.clone(), cols.clone(), w)
        scores = rows.new_zeros(p, chunk, r, chunk, c)
        kept, levels = _halve(rows, cols, w, scores, keep)
    if diagonal is not None:
        scores[:, :, 0].diagonal(dim1=1, dim2=2).copy_(diagonal.mT)

    n = state.shape[0]
    solved = moves = None
    if x.a is None:
        added = cols[:, :, 0].mT @ values[:, :, 0]
    else:
        known = values[:, :, 0] if c == 1 else torch.bmm(scores[:, :, 1, :, 0].contiguous(), values[:, :, 0])
        right = torch.cat([known, rows[:, :, 1]], -1)
        right = _solve(scores[:, :, 1, :, -1], right)
        values[:, :, -1], solved = right[..., :d_v], right[..., d_v:]
        added = cols.flatten(1, 2).mT @ values.flatten(1, 2)
        moves = cols[:, :, -1].mT @ solved
        moves.diagonal(dim1=1, dim2=2).add_(kept)
    added = added.unflatten(0, (n, -1))
    steps = (kept[..., None] if moves is None else moves).unflatten(0, (n, -1))
    states = torch.empty_like(added)
    for i in range(states.shape[1]):
        states[:, i] = state
        state = (
            torch.addcmul(added[:, i], steps[:, i], state)
            if moves is None
            else torch.baddbmm(added[:, i], steps[:, i], state)
        )
    if solved is not None:
        values[:, :, -1] += solved @ states.flatten(0, 1)
    return Chunk(rows, cols, scores, values, kept, moves, solved, states, plain, levels, decays, ends), state


def _add_outputs(done: Chunk, o: Tensor) -> None:
    """O of a segment into `o` (batch, tokens, n_heads, d_v)."""
    out = torch.bmm(done.scores[:, :, 0].flatten(2), done.values.flatten(1, 2))
    out.baddbmm_(done.rows[:, :, 0], done.states.flatten(0, 1))
    _unpacked(out[:, :, None], 0, o)


def _chunked_backward(do: Tensor, dstate: Tensor, x: Inputs, done: Chunk, inclusive: bool, grads: Inputs) -> Tensor:
    """Fill `grads` for one segment; returns the gradient of the state that enters it."""
    p, chunk, r, d_k = done.rows.shape
    c = done.cols.shape[2]
    n = dstate.shape[0]
    dout = _packed(
        [do] if r == 1 else [do, do], chunk, 0.0
    )  # (p, Q, r, d_v): second place for the gradient of Z's equation
    dvalues = torch.bmm(done.scores[:, :, 0].flatten(2).mT, dout[:, :, 0])  # (p, Q c, d_v)
    read = done.rows[:, :, 0].mT @ dout[:, :, 0]
    if done.solved is not None:
        read.baddbmm_(done.solved.mT, dvalues.unflatten(1, (chunk, c))[:, :, -1])
    read = read.unflatten(0, (n, -1))
    steps = (done.kept[..., None] if done.moves is None else done.moves.mT).unflatten(0, (n, -1))
    leaving = torch.empty_like(read)  # gradient of the state after each chunk
    for i in range(read.shape[1] - 1, -1, -1):
        leaving[:, i] = dstate
        if done.moves is None:
            dstate = torch.addcmul(read[:, i], steps[:, i], dstate)
        else:
            dstate = torch.baddbmm(read[:, i], steps[:, i], dstate)
    left, states = leaving.flatten(0, 1), done.states.flatten(0, 1)
    dvalues = dvalues.baddbmm_(done.cols.flatten(1, 2), left).unflatten(1, (chunk, c))
    if r == 2:
        through = _solve(done.scores[:, :, 1, :, -1], dvalues[:, :, -1], transposed=True)
        dout[:, :, 1] = through
        if c == 1:
            dvalues[:, :, 0] = through
        else:
            dvalues[:, :, 0] += done.scores[:, :, 1, :, 0].contiguous().mT @ through
    _unpacked(dvalues, 0, grads.v)

    values = done.values.flatten(1, 2)
    dscores = torch.bmm(dout.flatten(1, 2), values.mT).view(p, chunk, r, chunk, c)
    drows = torch.bmm(dout.flatten(1, 2), states.mT).view(p, chunk, r, d_k)
    dcols = torch.bmm(values, left.mT).view(p, chunk, c, d_k)
    dkept = (left * states).sum(-1)
    rows, cols, w = done.plain
    ddiagonal = dscores[:, :, 0].diagonal(dim1=1, dim2=2).mT[..., None].clone() if inclusive else None  # (p, Q, c, 1)
    if done.decays is not None and done.ends is not None:
        dends = ((drows * rows).sum((2, 3), keepdim=True), (dcols * cols).sum((2, 3), keepdim=True))
        drows, dcols = drows * done.ends[0], dcols * done.ends[1]
        masks, products = done.decays
        ddecays = products.mul_(dscores).sum((2, 4), keepdim=True)
        dproducts = dscores.mul_(masks).view(p, chunk * r, chunk * c)
        drows += torch.bmm(dproducts, cols.flatten(1, 2)).view(drows.shape)
        dcols += torch.bmm(dproducts.mT, rows.flatten(1, 2)).view(dcols.shape)
        dw = _halve_backward(*dends, dkept.sum(-1, keepdim=True), ddecays, done.levels)
    else:
        dkept = dkept if w.shape[-1] > 1 else dkept.sum(-1, keepdim=True)
        dw = _halve_backward(drows, dcols, dkept, dscores, done.levels)

    drow = drows[:, :, 0]
    if ddiagonal is not None:
        q = _packed([x.q], chunk, 0.0)
        dw = dw + (drow * q[:, :, 0] if w.shape[-1] > 1 else (drow * q[:, :, 0]).sum(-1, keepdim=True))
        drow = (drow * w).add_((ddiagonal * cols).sum(2))
        dcols.addcmul_(ddiagonal, q)
    _unpacked(drow[:, :, None], 0, grads.q)
    _unpacked(dcols, 0, grads.k)
    _unpacked(dw[:, :, None], 0, grads.w)
    if grads.a is not None:
        _unpacked(drows, 1, grads.a)
    if grads.b is not None:
        _unpacked(dcols, 1, grads.b)
    return dstate


def _solve(lower: Tensor, right: Tensor, transposed: bool = False) -> Tensor:
    """X of (1 - lower) X = right, or (1 - lower)^T X = right; reads `lower` below its diagonal only.

    Solved for X^T: BLAS counts columns first, so that nothing is copied on the way.
    """
    factor = -lower if transposed else -lower.mT
    return torch.linalg.solve_triangular(factor, right.mT, upper=not transposed, left=False, unitriangular=True).mT


def _halve(
    rows: Tensor, cols: Tensor, w: Tensor, scores: Tensor, keep: bool
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """Fill `scores` below its diagonal and decay rows and cols to the chunk's ends, in place. w: (p, Q, d_k or 1).

    Returns the decay across the chunk, and with `keep` what every level met: rows of right halves, columns of left
    ones, decays.
    """
    p, chunk, r, d = rows.shape
    c, s, levels = cols.shape[2], 1, []
    while s < chunk:
        n = chunk // (2 * s)
        right, left = rows.view(p, n, 2, s * r, d)[:, :, 1], cols.view(p, n, 2, s * c, d)[:, :, 0]
        across = w.view(p, n, 2, 1, w.shape[-1])  # of each half
        made = torch.bmm(right.view(p * n, s * r, d), left.view(p * n, s * c, d).mT)
        _corners(scores, s).copy_(made.view(p, n, s * r, s * c).permute(0, 2, 3, 1))
        if keep:
            levels.append((right.clone(), left.clone(), across))
        right.mul_(across[:, :, 0])
        left.mul_(across[:, :, 1])
        w = across[:, :, 0, 0] * across[:, :, 1, 0]
        s *= 2
    return w[:, 0], levels


def _halve_backward(
    drows: Tensor, dcols: Tensor, dkept: Tensor, dscores: Tensor, levels: list[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """Gradient of w; drows and dcols become those of the rows and columns that came in, in place."""
    p, chunk, r, d = drows.shape
    c, s = dcols.shape[2], chunk
    dw = dkept[:, None]  # (p, blocks, d_k or 1)
    for right, left, across in reversed(levels):
        s //= 2
        n = chunk // (2 * s)
        dmade = _corners(dscores, s).permute(0, 3, 1, 2).reshape(p * n, s * r, s * c)
        dright, dleft = drows.view(p, n, 2, s * r, d)[:, :, 1], dcols.view(p, n, 2, s * c, d)[:, :, 0]
        first, second = (dright * right).sum(2), (dleft * left).sum(2)  # (p, n, d)
        if across.shape[-1] < d:
            first, second = first.sum(-1, keepdim=True), second.sum(-1, keepdim=True)
        dw = torch.stack(
            [torch.addcmul(first, dw, across[:, :, 1, 0]), torch.addcmul(second, dw, across[:, :, 0, 0])], 2
        ).flatten(1, 2)
        dright.mul_(across[:, :, 0])
        dleft.mul_(across[:, :, 1])
        dright.add_(torch.bmm(dmade, left.view(p * n, s * c, d)).view(dright.shape))
        dleft.add_(torch.bmm(dmade.mT, right.view(p * n, s * r, d)).view(dleft.shape))
    return dw


def _corners(scores: Tensor, s: int) -> Tensor:
    """The lower left s x s corners of the diagonal blocks of 2 s tokens, as a view (p, s r, s c, blocks)."""
    p, chunk, r, _, c = scores.shape
    n = chunk // (2 * s)
    blocks = scores.view(p, n, 2 * s * r, n, 2 * s * c).diagonal(dim1=1, dim2=3)
    return blocks[:, s * r :, : s * c]


def _packed(parts: list[Tensor | None], chunk: int, fill: float) -> Tensor:
    """Each (batch, tokens, n_heads, d) -> all in one (batch x heads x chunks, chunk, parts, d), filled up at the
    end."""
    given = [part for part in parts if part is not None]
    batch, tokens, n_heads, d = given[0].shape
    chunks = -(-tokens // chunk)
    out = given[0].new_empty(batch, n_heads, chunks * chunk, len(given), d)
    for i, part in enumerate(given):
        out[:, :, :tokens, i] = part.transpose(1, 2)
    out[:, :, tokens:] = fill
    return out.view(batch * n_heads * chunks, chunk, len(given), d)


def _unpacked(packed: Tensor, part: int, out: Tensor) -> None:
    """One part of `_packed` back into `out` (batch, tokens, n_heads, d)."""
    batch, tokens, n_heads, d = out.shape
    out.copy_(packed[:, :, part].reshape(batch, n_heads, -1, d)[:, :, :tokens].transpose(1, 2))
