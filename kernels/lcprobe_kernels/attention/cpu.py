"""attention in blocks of queries: any device, any float dtype, tuned for CPUs. At most one block of scores is in
memory.

A block's rows are processed last first: then a table over distances, laid out backwards, *is* the block of biases
when both its strides are 1 (row i', key j at index i' + j), so bias and band mask are added from a view of a vector,
without a gather. The same holds backwards: a block of score gradients whose rows are one longer than they are, read
with rows of that length, has its distances as columns, and the table's gradient is a sum over rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lcprobe_kernels.attention import cpu_flash
from lcprobe_kernels.attention.blockwise import rows_per_block
from lcprobe_kernels.attention.reference import Mask


def forward(q, k, v, table, f_q, f_k, docs_q, docs_k, scale, mask, soft_cap=0.0):
    """See `lcprobe_kernels.attention._forward`. Without terms: PyTorch's kernel, if it is a CPU and shows every
    NaN."""
    rule, (batch, seqlen, n_heads, _) = Mask(*mask), q.shape
    plain = table is None and f_q is None and not soft_cap
    if plain and q.device.type == "cpu" and q.shape[3] == v.shape[3]:
        found = cpu_flash.forward(q, k, v, docs_q, docs_k, scale, rule)
        if found is not None:
            return found
    acc_dtype = torch.promote_types(q.dtype, torch.float32)
    o = q.new_empty(batch, seqlen, n_heads, v.shape[3])
    lse = q.new_empty(batch, seqlen, n_heads, dtype=acc_dtype)
    keys, values = (t.transpose(1, 2).to(acc_dtype) for t in (k, v))
    for block in _blocks(rule, batch * n_heads, seqlen, k.shape[1]):
        content = _content(block, _rows(q, block, acc_dtype), keys, scale, soft_cap)
        scores = _scores(block, content, table, f_q, f_k, docs_q, docs_k, rule)
        top = scores.amax(-1, keepdim=True)
        top = torch.where(top == float("-inf"), 0.0, top)
        scores.sub_(top).exp_()
        total = scores.sum(-1, keepdim=True)
        out = _grouped(scores, keys.shape[1]) @ values[:, :, block.keys]
        out = out.view(batch, n_heads, -1, v.shape[3]) / torch.where(total == 0, 1.0, total)
        o[:, block.rows] = out.flip(2).transpose(1, 2).to(o.dtype)
        lse[:, block.rows] = (top + total.log())[..., 0].flip(2).transpose(1, 2)
    return o, lse


def backward(do, dlse, q, k, v, o, lse, table, f_q, f_k, docs_q, docs_k, scale, mask, wanted_table, soft_cap=0.0):
    """See `lcprobe_kernels.attention._backward`."""
    rule, (batch, seqlen, n_heads, d_qk) = Mask(*mask), q.shape
    acc_dtype = torch.promote_types(q.dtype, torch.float32)
    keys, values = (t.transpose(1, 2).to(acc_dtype) for t in (k, v))
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    dk, dv = (torch.zeros(t.shape, dtype=acc_dtype, device=q.device) for t in (keys, values))
    shapes = [0 if t is None else t.shape for t in (table if wanted_table else None, f_q, f_k)]
    dtable, df_q, df_k = (torch.zeros(shape, dtype=acc_dtype, device=q.device) for shape in shapes)
    inner = (do.to(acc_dtype) * o.to(acc_dtype)).sum(-1)
    inner = inner if dlse is None else inner - dlse.to(acc_dtype)
    for block in _blocks(rule, batch * n_heads, seqlen, k.shape[1]):
        rows = _rows(q, block, acc_dtype)
        content = _content(block, rows, keys, scale, soft_cap)
        slope = 1 - (content / soft_cap).square_() if soft_cap else None  # of the cap
        p = _scores(block, content, table, f_q, f_k, docs_q, docs_k, rule)
        log_total = _rows(lse[..., None], block, acc_dtype)
        p.sub_(torch.where(log_total == float("-inf"), float("inf"), log_total)).exp_()
        back = _rows(do, block, acc_dtype)
        shape = (batch, keys.shape[1], -1, v.shape[3])
        at, grouped = block.keys, _grouped(p, keys.shape[1])
        dv[:, :, at] += grouped.transpose(2, 3) @ back.reshape(shape)
        ds = (back.reshape(shape) @ values[:, :, at].transpose(2, 3)).view(p.shape)
        ds = ds.sub_(_rows(inner[..., None], block, acc_dtype)).mul_(p)
        if f_q is not None:
            df_q[:, block.rows] = ds.sum(-1).flip(2).transpose(1, 2)
            df_k[:, at] -= ds.sum(2).transpose(1, 2)
        if dtable.numel():
            _add_diagonals(dtable, ds, block.distance)
        ds = ds if slope is None else ds.mul_(slope)
        grouped = _grouped(ds, keys.shape[1])
        dq[:, block.rows] = (
            (grouped @ keys[:, :, at]).view(rows.shape).mul_(scale).flip(2).transpose(1, 2).to(dq.dtype)
        )
        dk[:, :, at] += (grouped.transpose(2, 3) @ rows.reshape(batch, keys.shape[1], -1, d_qk)).mul_(scale)
    dk, dv = (g.transpose(1, 2).to(t.dtype) for g, t in ((dk, k), (dv, v)))
    return dq, dk, dv, dtable, df_q, df_k


@dataclass(frozen=True)
class _Block:
    """Rows `rows` and keys `keys` of the scores, and the distance of the last row from the first key."""

    rows: slice
    keys: slice
    distance: int


def _blocks(rule: Mask, heads: int, seqlen: int, n_keys: int) -> Iterator[_Block]:
    """Blocks over all rows, each with the keys that any of its rows may see."""
    size = rows_per_block(heads, n_keys, seqlen)
    for first in range(0, seqlen, size):
        last = min(first + size, seqlen) - 1
        low, high = rule.some_see(first, last, n_keys)
        if low == high:  # rows that see nothing still need a key
            low, high = min(low, n_keys - 1), min(low, n_keys - 1) + 1
        yield _Block(slice(first, last + 1), slice(low, high), last + rule.offset - low)


def _rows(t: Tensor, block: _Block, acc_dtype: torch.dtype) -> Tensor:
    """A block's rows of (batch, seqlen, n_heads, d), last row first: (batch, n_heads, rows, d)."""
    return t[:, block.rows].flip(1).transpose(1, 2).to(acc_dtype)


def _grouped(scores: Tensor, n_kv_heads: int) -> Tensor:
    """Heads that share keys, stacked along the rows, so that products need no repeated keys."""
    return scores.view(scores.shape[0], n_kv_heads, -1, scores.shape[3])


def _content(block: _Block, rows: Tensor, keys: Tensor, scale: float, soft_cap: float) -> Tensor:
    """cap(scale q . k) of a block: (batch, n_heads, rows, keys), rows last first."""
    batch, n_heads, n_rows, d = rows.shape
    picked = keys[:, :, block.keys]
    content = rows.mul(scale).reshape(batch, keys.shape[1], -1, d) @ picked.transpose(2, 3)
    content = content.view(batch, n_heads, n_rows, picked.shape[2])
    return content.div_(soft_cap).tanh_().mul_(soft_cap) if soft_cap else content


def _scores(block, scores, table, f_q, f_k, docs_q, docs_k, rule) -> Tensor:
    """The scores of a block from its content, in place; -inf where a key is not seen."""
    (n_rows, n_keys), device = scores.shape[2:], scores.device
    if f_q is not None:
        scores.add_(_rows(f_q[..., None], block, scores.dtype))
        scores.sub_(f_k[:, block.keys].transpose(1, 2)[:, :, None].to(scores.dtype))
    distance = block.distance - torch.arange(n_rows + n_keys - 1, device=device)  # by index i' + j
    seen = distance >= max(rule.low, 0)
    banded = rule.high >= 0 and not rule.sinks
    if banded:
        seen = seen & (distance < rule.high)
    bias = torch.zeros((), dtype=scores.dtype, device=device)
    if table is not None:
        bias = table[:, distance.clamp(0, table.shape[1] - 1)].to(scores.dtype)
    bias = torch.where(seen, bias, float("-inf")).view(-1, n_rows + n_keys - 1)
    scores.add_(bias.as_strided((bias.shape[0], n_rows, n_keys), (n_rows + n_keys - 1, 1, 1)))
    hidden = None
    if rule.chunk or (rule.high >= 0 and rule.sinks):
        at = torch.arange(block.rows.stop - 1, block.rows.start - 1, -1, device=device)
        hidden = ~rule.visible(at, torch.arange(block.keys.start, block.keys.stop, device=device))
    if docs_q is not None:
        other = (docs_q[:, block.rows].flip(1)[:, :, None] != docs_k[:, block.keys][:, None])[:, None]
        hidden = other if hidden is None else hidden | other
    return scores if hidden is None else scores.masked_fill_(hidden, float("-inf"))


def _add_diagonals(dtable: Tensor, ds: Tensor, distance: int) -> None:
    """Sum a block of score gradients over batch and diagonals into the table's gradient."""
    ds = ds.sum(0)
    n_heads, n_rows, n_keys = ds.shape
    width = n_rows + n_keys
    padded = ds.new_zeros(n_heads, n_rows, width)
    padded[:, :, :n_keys] = ds
    sums = padded.view(n_heads, -1)[:, : n_rows * (width - 1)].view(n_heads, n_rows, width - 1).sum(1)
    sums = sums[:, : max(0, min(distance + 1, width - 1))].flip(
        1
    )  # places up to the query itself; the future has no distance
    low = distance + 1 - sums.shape[1]
    size = min(sums.shape[1], dtable.shape[1] - low)
    if size > 0:
        dtable[:, low : low + size] += sums[:, :size]
