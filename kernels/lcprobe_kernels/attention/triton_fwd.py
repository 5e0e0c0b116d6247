"""attention forward in Triton: one flash kernel (arXiv 2307.08691), an online softmax over the tiles of keys that can
be seen.

    s_ij = scale q_i . k_j + T[h, d] + f_q[i] - f_k[j]      d = i + offset - j      o_i = softmax_j(s_ij) v_j

A program holds some rows of one head and walks the keys between the bounds that causality, band, chunks and documents
leave, sinks first; in decoding a part of them, and the parts are joined by their lse. Only tiles that a bound cuts
are masked element by element. Scores are in units of log 2. Absent terms cost nothing: table, gates, documents and
chunks are switches at compile time. Lengths, offsets and bounds are not, so that decoding and other lengths need no
recompilation. Offsets that a row, a head or a tile multiplies are 64-bit.

NaN in a query or a key reaches what sees it and nothing else. NaN in a value also reaches the rows that do not see it
but share a tile of rows with one that does, since 0 NaN = NaN in a product.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.attention.tiles import TILES, attention_tiles
from lcprobe_kernels.triton_tools import dot, last_dim_dense, processors

LOG2E = 1.4426950408889634
PAD = 256
"""Zeros around the table, so that every distance of a tile can be read: two tiles' sides at most."""
PARTS_PER_PROCESSOR, MIN_PART = 4, 4
"""Programs for each multiprocessor that the keys of few queries are cut for, and a part's tiles of keys at least."""
UNSPECIALIZED = [
    "seqlen",
    "n_keys",
    "H",
    "R",
    "width",
    "offset",
    "low",
    "high",
    "sinks",
    "chunk",
    "chunk_low",
    "chunk_high",
]
"""Arguments whose values do not trigger a recompilation."""
_E: tl.constexpr = tl.constexpr(LOG2E)


@triton.jit
def seen(
    p, j, docs_q, docs_k, end, n_keys, low, high, sinks, chunk, chunk_low, chunk_high,
    HAS_CHUNK: tl.constexpr, HAS_DOCS: tl.constexpr,
):  # fmt: skip
    """Whether positions p, before `end`, see keys j; p and j are a column and a row, or a row and a column."""
    d = p - j
    see = (d >= low) & ((d < high) | (j < sinks)) & ((j >= 0) & (j < n_keys)) & (p < end)
    if HAS_CHUNK:
        apart = p // chunk - j // chunk
        see = see & (apart >= chunk_low) & (apart < chunk_high)
    if HAS_DOCS:
        see = see & (docs_q == docs_k)
    return see


@triton.jit
def all_seen(
    p, j, n_keys, low, high, sinks, chunk, chunk_low, chunk_high,
    BM: tl.constexpr, BN: tl.constexpr, HAS_CHUNK: tl.constexpr, HAS_DOCS: tl.constexpr,
):  # fmt: skip
    """Whether every one of BM positions from p sees every one of BN keys from j. With documents no tile is taken
    to."""
    if HAS_DOCS:
        return False
    else:
        last_p, last_j = p + BM - 1, j + BN - 1
        full = (p - last_j >= low) & ((last_p - j < high) | (last_j < sinks)) & (last_j < n_keys)
        if HAS_CHUNK:
            full = full & (p // chunk - last_j // chunk >= chunk_low) & (last_p // chunk - j // chunk < chunk_high)
        return full


@triton.jit
def biased(
    s, m, n, table, f_q, f_k, scale, HAS_TABLE: tl.constexpr, HAS_GATES: tl.constexpr, INTERPRET: tl.constexpr
):  # fmt: skip
    """Scores in units of log 2 from products of the rows m and the keys n of a tile; `table` points at the distance
    between its first row and its first key. Gates are subtracted before they are rounded.

    A plain load of a tile of biases would be given a layout of its own: shared memory to take it to the products'
    layout and back, twice the registers, and a pipeline's buffers. As inline assembly it is elementwise, and needs
    none of it. Distances within the tile are constants to the compiler, so that one address serves a thread.
    """
    s = s * scale
    if HAS_TABLE:
        at = table + (m - n)
        if INTERPRET:
            s += tl.load(at)
        else:
            s += tl.inline_asm_elementwise(
                "ld.global.nc.b32 $0, [$1];", "=r,l", [at], dtype=tl.float32, is_pure=True, pack=1
            )
    if HAS_GATES:
        s += (f_q - f_k) * _E
    return s


@triton.jit
def load_rows(x, i, n, step, c, WIDTH: tl.constexpr, BD: tl.constexpr):
    """Rows i of x, zero from row n on; columns c, zero from WIDTH on."""
    if WIDTH == BD:
        return tl.load(x + i[:, None] * step + c[None, :], mask=(i < n)[:, None], other=0.0)
    else:
        return tl.load(x + i[:, None] * step + c[None, :], mask=(i < n)[:, None] & (c < WIDTH)[None, :], other=0.0)


@triton.jit
def key_tiles(
    p, last, spans, n_keys, low, high, sinks, chunk, chunk_low, chunk_high,
    BN: tl.constexpr, HAS_CHUNK: tl.constexpr, HAS_DOCS: tl.constexpr,
):  # fmt: skip
    """The keys that positions p .. last may see: the first tile of sinks, their number, the band's first tile, and
    its number."""
    floor, end = 0, tl.minimum(n_keys, last - low + 1)
    if HAS_CHUNK:
        floor = tl.maximum((tl.maximum(p, 0) // chunk - chunk_high + 1) * chunk, 0)
        end = tl.minimum(end, (last // chunk - chunk_low + 1) * chunk)
    if HAS_DOCS:
        floor, end = tl.maximum(tl.load(spans) * BN, floor), tl.minimum(tl.load(spans + 1) * BN, end)
    sink, band = floor // BN * BN, tl.maximum(p - high + 1, floor) // BN * BN
    n_sink = tl.minimum(tl.maximum(tl.cdiv(tl.minimum(sinks, end) - sink, BN), 0), (band - sink) // BN)
    return sink, n_sink, band, tl.maximum(tl.cdiv(end - band, BN), 0)


@triton.jit(do_not_specialize=[*UNSPECIALIZED, "parts"])
def _forward_kernel(
    q, k, v, table, f_q, f_k, docs_q, docs_k, spans, o, lse,
    seqlen, n_keys, H, R, width, scale, offset, low, high, sinks, chunk, chunk_low, chunk_high,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, parts,
    HAS_TABLE: tl.constexpr, HAS_GATES: tl.constexpr, HAS_DOCS: tl.constexpr, HAS_CHUNK: tl.constexpr,
    DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles, part = tl.num_programs(0) // parts, tl.program_id(0) % parts
    tile = tiles - 1 - tl.program_id(0) // parts  # the longest walks first
    head, row = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    first, kv = tile * BM, head // R
    m, c, e = tl.arange(0, BM), tl.arange(0, BK), tl.arange(0, BV)
    i, p = first + m, first + m + offset
    live = i < seqlen
    qs = load_rows(q + row * q_b + head * q_h, i.to(tl.int64), seqlen, q_l, c, DK, BK)
    k, v, table = k + row * k_b + kv * k_h, v + row * v_b + kv * v_h, table + head * width
    fq, docq = 0.0, 0
    if HAS_GATES:
        fq = tl.load(f_q + (row * H + head) * seqlen + i, mask=live, other=0.0)[:, None]
        f_k += (row * H + head) * n_keys
    if HAS_DOCS:
        docq = tl.load(docs_q + row * seqlen + i, mask=live, other=0)[:, None]
        docs_k += row * n_keys
        spans += (row * tiles + tile) * 2
    sink, n_sink, band, n_band = key_tiles(
        first + offset, tl.minimum(first + BM, seqlen) - 1 + offset, spans, n_keys, low, high, sinks, chunk,
        chunk_low,
        chunk_high, BN, HAS_CHUNK, HAS_DOCS,
    )  # fmt: skip
    best, total = tl.full([BM], float("-inf"), tl.float32), tl.zeros([BM], tl.float32)
    out = tl.zeros([BM, BV], tl.float32)
    per = tl.cdiv(n_sink + n_band, parts)
    for t in range(part * per, tl.minimum((part + 1) * per, n_sink + n_band)):
        start = tl.where(t < n_sink, sink + t * BN, band + (t - n_sink) * BN)
        n = tl.arange(0, BN)
        wide, left = tl.cast(start, tl.int64), n_keys - start
        j, fk = start + n, 0.0
        if HAS_GATES:
            fk = tl.load(f_k + j, mask=j < n_keys, other=0.0)[None, :]
        ks = load_rows(k + wide * k_l, n, left, k_l, c, DK, BK)
        s = dot(qs, tl.trans(ks), INTERPRET, PRECISION)
        near = table + (first + offset - start)
        s = biased(s, m[:, None], n[None, :], near, fq, fk, scale, HAS_TABLE, HAS_GATES, INTERPRET)
        full = all_seen(
            first + offset, start, n_keys, low, high, sinks, chunk, chunk_low, chunk_high, BM, BN, HAS_CHUNK, HAS_DOCS
        )  # fmt: skip
        if not full:
            dock = 0
            if HAS_DOCS:
                dock = tl.load(docs_k + j, mask=j < n_keys, other=0)[None, :]
            see = seen(
                p[:, None], j[None, :], docq, dock, seqlen + offset, n_keys, low, high, sinks, chunk, chunk_low,
                chunk_high,
                HAS_CHUNK, HAS_DOCS,
            )  # fmt: skip
            s = tl.where(see, s, float("-inf"))
        better = tl.maximum(best, tl.max(s, 1))
        base = tl.where(better == float("-inf"), 0.0, better)  # nothing seen so far: no inf - inf
        kept, weights = tl.exp2(best - base), tl.exp2(s - base[:, None])
        total = total * kept + tl.sum(weights, 1)
        vs = load_rows(v + wide * v_l, n, left, v_l, e, DV, BV)
        out = out * kept[:, None] + dot(weights.to(vs.dtype), vs, INTERPRET, PRECISION)
        best = better
    nothing = total == 0.0
    out = out / tl.where(nothing, 1.0, total)[:, None]
    at = ((tl.cast(part, tl.int64) * tl.num_programs(2) + row) * seqlen + i) * H + head
    tl.store(
        lse + at, tl.where(nothing, float("-inf"), (best + tl.log2(tl.where(nothing, 1.0, total))) / _E), mask=live
    )
    tl.store(o + at[:, None] * DV + e[None, :], out, mask=live[:, None] & (e < DV)[None, :])


def forward(q, k, v, table, f_q, f_k, docs_q, docs_k, scale, mask):
    """See `lcprobe_kernels.attention._forward`."""
    batch, seqlen, h, _ = q.shape
    q, k, v = (last_dim_dense(t) for t in (q, k, v))
    sizes, flags = attention_tiles(q, k, v, TILES, seqlen, held="BK")
    tensors, numbers, switches = arguments(q, k, v, table, f_q, f_k, docs_q, docs_k, scale, mask)
    tiles = triton.cdiv(seqlen, sizes["BM"])
    parts = parts_of_keys(tiles * h * batch, triton.cdiv(k.shape[1], sizes["BN"]), processors())
    o = q.new_empty((parts, batch, seqlen, h, v.shape[-1]), dtype=q.dtype if parts == 1 else torch.float32)
    lse = q.new_empty((parts, batch, seqlen, h), dtype=torch.float32)
    spans, _ = document_spans(docs_q, docs_k, sizes["BM"], sizes["BN"]) if docs_q is not None else (q, q)
    _forward_kernel[(tiles * parts, h, batch)](
        q, k, v, *tensors, spans, o, lse, *numbers, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], parts,
        **switches, **sizes, **flags,
    )  # fmt: skip
    return (o[0], lse[0]) if parts == 1 else _joined(o, lse, q.dtype)


def parts_of_keys(programs: int, key_tiles: int, processors: int) -> int:
    """Into how many parts the walk over keys is cut: 1 where there are two programs a multiprocessor without it, as
    in training; in decoding, where a program a head would walk all keys alone, enough to fill the GPU."""
    if programs >= 2 * processors:
        return 1
    return max(1, min(triton.cdiv(PARTS_PER_PROCESSOR * processors, programs), key_tiles // MIN_PART))


def _joined(o: Tensor, lse: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """o and lse over all keys from those over parts of them, (parts, batch, seqlen, n_heads, ...) float32."""
    top = lse.amax(0)
    top = torch.where(top == float("-inf"), 0.0, top)  # nothing seen: no inf - inf
    weights = (lse - top).exp()
    total = weights.sum(0)
    o = (o * weights[..., None]).sum(0) / torch.where(total == 0, 1.0, total)[..., None]
    return o.to(dtype), top + total.log()


def arguments(q, k, v, table, f_q, f_k, docs_q, docs_k, scale, mask) -> tuple[list[Tensor], list, dict[str, bool]]:
    """What all kernels take: table, gates and documents; sizes, the scale and the bounds; the switches.

    The table is in units of log 2, between zeros, and from distance 0 on; gates are (batch, n_heads, tokens).
    """
    (_, seqlen, h, _), n_keys = q.shape, k.shape[1]
    offset, low, high, sinks, chunk, chunk_low, chunk_high = mask
    reach, width, distances = seqlen + offset, 0, q
    if table is not None:
        kept = min(reach, table.shape[1])
        width = 2 * PAD + reach
        padded = table.new_zeros((h, width), dtype=torch.float32)
        torch.mul(table[:, :kept], LOG2E, out=padded[:, PAD : PAD + kept])
        distances = padded.view(-1)[PAD:]
    gates = [q if f is None else f.float().transpose(1, 2).contiguous() for f in (f_q, f_k)]
    documents = [q if d is None else d.contiguous() for d in (docs_q, docs_k)]
    chunks = reach // max(chunk, 1) + 2  # more of them apart is as good as this: products stay within 32 bits
    high = 2**30 if high < 0 else min(high, 2**30)
    bounds = [offset, min(max(low, 0), 2**30), high, min(sinks, n_keys), max(chunk, 1)]
    bounds += [min(max(chunk_low, 0), chunks), min(chunk_high, chunks)]
    numbers = [seqlen, n_keys, h, h // k.shape[2], width, scale * LOG2E, *bounds]
    switches = {
        "HAS_TABLE": table is not None,
        "HAS_GATES": f_q is not None,
        "HAS_DOCS": docs_q is not None,
        "HAS_CHUNK": chunk > 0,
    }
    return [distances, *gates, *documents], numbers, switches


def document_spans(docs_q: Tensor, docs_k: Tensor, bm: int, bn: int) -> tuple[Tensor, Tensor]:
    """For every tile of rows the first and past the last tile of keys whose documents' range meets its own; and the
    reverse."""
    (least_q, most_q), (least_k, most_k) = _ranges(docs_q, bm), _ranges(docs_k, bn)
    meet = (least_q[:, :, None] <= most_k[:, None]) & (most_q[:, :, None] >= least_k[:, None])
    return _spans(meet), _spans(meet.transpose(1, 2))


def _ranges(docs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    missing = -docs.shape[1] % size
    tiles = torch.cat([docs, docs[:, -1:].expand(-1, missing)], 1).unflatten(1, (-1, size))
    return tiles.amin(2), tiles.amax(2)


def _spans(meet: Tensor) -> Tensor:
    seen_at = meet.to(torch.uint8)
    first, last = seen_at.argmax(2), meet.shape[2] - seen_at.flip(2).argmax(2)
    return torch.stack([first, last], 2).masked_fill(~meet.any(2, keepdim=True), 0).to(torch.int32)
