"""attention backward in Triton: delta; dq; dk, dv and df_k; the table's gradient. No atomics: runs repeat to the bit.

    dS_ij = P_ij (do_i . v_j - delta_i)      P_ij = exp(s_ij - lse_i)      delta_i = do_i . o_i - dlse_i

    dq_i = scale sum_j dS_ij k_j    dk_j = scale sum_i dS_ij q_i    dv_j = sum_i P_ij do_i    df_k[j] = -sum_i dS_ij

df_q needs no kernel: f_q[i] moves lse_i by as much and leaves o_i where it is, so df_q = dlse. Every kernel
recomputes P and dS. dT[d] is the sum of dS over a diagonal. In a tile at a fixed distance from the diagonal an
element's distance depends on its place in the tile alone. So the table's kernel adds whole tiles of dS along a
tile-diagonal, in registers, and only once, at its end, shifts rows (tl.gather) so that diagonals become columns, and
sums these. Shifted pointers into scratch would do the same without tl.gather, for a tile of float32 a program: 1.3 GB
at 64 K tokens and 40 heads.
"""
# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.attention.tiles import DKV_TILES, DQ_TILES, TABLE_COLUMNS, TABLE_TILES, attention_tiles
from lcprobe_kernels.attention.triton_fwd import (
    LOG2E,
    UNSPECIALIZED,
    all_seen,
    arguments,
    biased,
    document_spans,
    key_tiles,
    load_rows,
    seen,
)
from lcprobe_kernels.triton_tools import dot, last_dim_dense

MIN_TABLE_PROGRAMS = 512
"""Programs of the table's kernel below which tile-diagonals are split."""
_E: tl.constexpr = tl.constexpr(LOG2E)


@triton.jit(do_not_specialize=["seqlen", "H"])
def _delta_kernel(
    o, do, lse, dlse, delta, lse2, seqlen, H, d_b, d_l, d_h,
    HAS_DLSE: tl.constexpr, DV: tl.constexpr, BV: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """delta, and lse in units of log 2, +inf where a row sees nothing; both (batch, n_heads, seqlen)."""
    head, row = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i, e = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.arange(0, BV)
    live = i < seqlen
    at = (row * seqlen + i) * H + head
    out = load_rows(o + (row * seqlen * H + head) * DV, i, seqlen, H * DV, e, DV, BV).to(tl.float32)
    d = load_rows(do + row * d_b + head * d_h, i, seqlen, d_l, e, DV, BV).to(tl.float32)
    share = tl.sum(out * d, 1)
    if HAS_DLSE:
        share -= tl.load(dlse + at, mask=live, other=0.0)
    own = tl.load(lse + at, mask=live, other=0.0)
    place = (row * H + head) * seqlen + i
    tl.store(delta + place, share, mask=live)
    tl.store(lse2 + place, tl.where(own == float("-inf"), float("inf"), own * _E), mask=live)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _dq_kernel(
    q, k, v, table, f_q, f_k, docs_q, docs_k, spans, do, lse, delta, dq,
    seqlen, n_keys, H, R, width, scale, offset, low, high, sinks, chunk, chunk_low, chunk_high,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, d_b, d_l, d_h,
    HAS_TABLE: tl.constexpr, HAS_GATES: tl.constexpr, HAS_DOCS: tl.constexpr, HAS_CHUNK: tl.constexpr,
    DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The walk of the forward pass with dS k in place of P v."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head, row = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    first, kv = tile * BM, head // R
    m, c, e = tl.arange(0, BM), tl.arange(0, BK), tl.arange(0, BV)
    i, p = first + m, first + m + offset
    live = i < seqlen
    qs = load_rows(q + row * q_b + head * q_h, i.to(tl.int64), seqlen, q_l, c, DK, BK)
    dos = load_rows(do + row * d_b + head * d_h, i.to(tl.int64), seqlen, d_l, e, DV, BV)
    own = (row * H + head) * seqlen + i
    norm = tl.load(lse + own, mask=live, other=float("inf"))[:, None]
    less = tl.load(delta + own, mask=live, other=0.0)[:, None]
    k, v, table = k + row * k_b + kv * k_h, v + row * v_b + kv * v_h, table + head * width
    fq, docq = 0.0, 0
    if HAS_GATES:
        fq = tl.load(f_q + own, mask=live, other=0.0)[:, None]
        f_k += (row * H + head) * n_keys
    if HAS_DOCS:
        docq = tl.load(docs_q + row * seqlen + i, mask=live, other=0)[:, None]
        docs_k += row * n_keys
        spans += (row * tl.num_programs(0) + tile) * 2
    sink, n_sink, band, n_band = key_tiles(
        first + offset, tl.minimum(first + BM, seqlen) - 1 + offset, spans, n_keys, low, high, sinks, chunk,
        chunk_low,
        chunk_high, BN, HAS_CHUNK, HAS_DOCS,
    )  # fmt: skip
    out = tl.zeros([BM, BK], tl.float32)
    for t in range(n_sink + n_band):
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
        weights = tl.exp2(s - norm)
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
            weights = tl.where(see, weights, 0.0)
        vs = load_rows(v + wide * v_l, n, left, v_l, e, DV, BV)
        ds = dot(dos, tl.trans(vs), INTERPRET, PRECISION) - less
        ds = tl.where(weights == 0.0, 0.0, weights * ds)
        out += dot(ds.to(ks.dtype), ks, INTERPRET, PRECISION)
    at = (row * seqlen + i) * H + head
    tl.store(dq + at[:, None] * DK + c[None, :], out * (scale / _E), mask=live[:, None] & (c < DK)[None, :])


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _dkv_kernel(
    q, k, v, table, f_q, f_k, docs_q, docs_k, spans, do, lse, delta, dk, dv, df_k,
    seqlen, n_keys, H, R, width, scale, offset, low, high, sinks, chunk, chunk_low, chunk_high,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, d_b, d_l, d_h,
    HAS_TABLE: tl.constexpr, HAS_GATES: tl.constexpr, HAS_DOCS: tl.constexpr, HAS_CHUNK: tl.constexpr,
    DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Keys of one head of keys, through the rows that may see them, of every query head in its group. Tiles are
    (keys, rows)."""
    tile, kv, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    start = tile * BN
    n, c, e = tl.arange(0, BN), tl.arange(0, BK), tl.arange(0, BV)
    j, m = start + n, tl.arange(0, BM)
    inside = j < n_keys
    ks = load_rows(k + row * k_b + kv * k_h, j.to(tl.int64), n_keys, k_l, c, DK, BK)
    vs = load_rows(v + row * v_b + kv * v_h, j.to(tl.int64), n_keys, v_l, e, DV, BV)
    last = tl.minimum(start + BN, n_keys) - 1
    begin, end = tl.maximum(start + low - offset, 0), tl.minimum(seqlen, last + high - offset)
    end = tl.where(start < sinks, seqlen, end)
    dock = 0
    if HAS_CHUNK:
        begin = tl.maximum(begin, (start // chunk + chunk_low) * chunk - offset)
        end = tl.minimum(end, (last // chunk + chunk_high) * chunk - offset)
    if HAS_DOCS:
        dock = tl.load(docs_k + row * n_keys + j, mask=inside, other=0)[:, None]
        docs_q += row * seqlen
        spans += (row * tl.num_programs(0) + tile) * 2
        begin, end = tl.maximum(tl.load(spans) * BM, begin), tl.minimum(tl.load(spans + 1) * BM, end)
    begin = begin // BM * BM
    tiles = tl.maximum(tl.cdiv(end - begin, BM), 0)
    df = tl.zeros([BN], tl.float32)
    dks, dvs = tl.zeros([BN, BK], tl.float32), tl.zeros([BN, BV], tl.float32)
    for w in range(R * tiles):  # one loop over heads and tiles: of two, what the outer one holds takes registers too
        head, first = kv * R + w // tiles, begin + w % tiles * BM
        wide, left = tl.cast(first, tl.int64), seqlen - first
        i, own = first + m, (row * H + head) * seqlen + first
        p, fq, fk = i + offset, 0.0, 0.0
        if HAS_GATES:
            fk = tl.load(f_k + (row * H + head) * n_keys + j, mask=inside, other=0.0)[:, None]
            fq = tl.load(f_q + own + m, mask=i < seqlen, other=0.0)[None, :]
        norm = tl.load(lse + own + m, mask=i < seqlen, other=float("inf"))[None, :]
        qs = load_rows(q + row * q_b + head * q_h + wide * q_l, m, left, q_l, c, DK, BK)
        s = dot(ks, tl.trans(qs), INTERPRET, PRECISION)
        near = table + head * width + (first + offset - start)
        s = biased(s, m[None, :], n[:, None], near, fq, fk, scale, HAS_TABLE, HAS_GATES, INTERPRET)
        weights = tl.exp2(s - norm)
        full = all_seen(
            first + offset, start, n_keys, low, high, sinks, chunk, chunk_low, chunk_high, BM, BN, HAS_CHUNK, HAS_DOCS
        )  # fmt: skip
        if not full:
            docq = 0
            if HAS_DOCS:
                docq = tl.load(docs_q + i, mask=i < seqlen, other=0)[None, :]
            see = seen(
                p[None, :], j[:, None], docq, dock, seqlen + offset, n_keys, low, high, sinks, chunk, chunk_low,
                chunk_high, HAS_CHUNK, HAS_DOCS,
            )  # fmt: skip
            weights = tl.where(see, weights, 0.0)
        dos = load_rows(do + row * d_b + head * d_h + wide * d_l, m, left, d_l, e, DV, BV)
        less = tl.load(delta + own + m, mask=i < seqlen, other=0.0)[None, :]
        dvs += dot(weights.to(dos.dtype), dos, INTERPRET, PRECISION)
        ds = dot(vs, tl.trans(dos), INTERPRET, PRECISION) - less
        ds = tl.where(weights == 0.0, 0.0, weights * ds)
        dks += dot(ds.to(qs.dtype), qs, INTERPRET, PRECISION)
        if HAS_GATES:
            df -= tl.sum(ds, 1)
            if w % tiles == tiles - 1:
                tl.store(df_k + (row * n_keys + j) * H + head, df, mask=inside)
                df = tl.zeros([BN], tl.float32)
    at = ((row * n_keys + j) * (H // R) + kv)[:, None]
    tl.store(dk + at * DK + c[None, :], dks * (scale / _E), mask=inside[:, None] & (c < DK)[None, :])
    tl.store(dv + at * DV + e[None, :], dvs, mask=inside[:, None] & (e < DV)[None, :])


@triton.jit(do_not_specialize=[*UNSPECIALIZED, "batch", "lowest"])
def _dtable_kernel(
    q, k, v, table, f_q, f_k, docs_q, docs_k, do, lse, delta, parts,
    seqlen, n_keys, H, R, width, scale, offset, low, high, sinks, chunk, chunk_low, chunk_high,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, d_b, d_l, d_h, batch, lowest,
    HAS_TABLE: tl.constexpr, HAS_GATES: tl.constexpr, HAS_DOCS: tl.constexpr, HAS_CHUNK: tl.constexpr,
    DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    COLUMNS: tl.constexpr, INTERPRET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some of the tiles on one tile-diagonal of one head, in all of the batch: BN keys, `step` BN before BM rows.

    parts: (splits, n_heads, diagonals, BM / BN + 1, BN), sums at distance (step + k - 1) BN + x.
    """
    head, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    step, kv = lowest + tl.program_id(0), head // R
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    CK: tl.constexpr = min(BK, COLUMNS)
    CV: tl.constexpr = min(BV, COLUMNS)
    k, v, table = k + kv * k_h, v + kv * v_h, table + head * width
    # tiles with a key that is there; beyond the band, with a sink
    stop = tl.where(step * BN - BN + 1 >= high, sinks, n_keys)
    begin = tl.cdiv(tl.maximum(step * BN - BN + 1 - offset, 0), BM)
    tiles = tl.maximum(tl.cdiv(tl.minimum(seqlen, stop + step * BN - offset), BM) - begin, 0)
    total = tl.zeros([BM, BN], tl.float32)
    per = tl.cdiv(batch * tiles, tl.num_programs(2))
    for w in range(split * per, tl.minimum((split + 1) * per, batch * tiles)):
        row, first = tl.cast(w // tiles, tl.int64), (begin + w % tiles) * BM
        start = first + offset - step * BN
        i, j = first + m, start + n
        p, own, inside = i + offset, (row * H + head) * seqlen, (j >= 0) & (j < n_keys)
        docq, dock, live = 0, 0, True
        if HAS_DOCS:
            docq = tl.load(docs_q + row * seqlen + i, mask=i < seqlen, other=0)[:, None]
            dock = tl.load(docs_k + row * n_keys + j, mask=inside, other=0)[None, :]
        see = seen(
            p[:, None], j[None, :], docq, dock, seqlen + offset, n_keys, low, high, sinks, chunk, chunk_low,
            chunk_high,
            HAS_CHUNK, HAS_DOCS,
        )  # fmt: skip
        if HAS_DOCS or HAS_CHUNK:
            live = tl.max(tl.max(see.to(tl.int32), 1), 0) > 0
        if live:
            fq, fk = 0.0, 0.0
            if HAS_GATES:
                fq = tl.load(f_q + own + i, mask=i < seqlen, other=0.0)[:, None]
                fk = tl.load(f_k + (row * H + head) * n_keys + j, mask=inside, other=0.0)[None, :]
            norm = tl.load(lse + own + i, mask=i < seqlen, other=float("inf"))[:, None]
            wide, behind, at = tl.cast(first, tl.int64), tl.cast(start, tl.int64), inside[:, None]
            s, ds = tl.zeros([BM, BN], tl.float32), tl.zeros([BM, BN], tl.float32)
            for column in range(0, BK, CK):
                c = column + tl.arange(0, CK)
                qs = load_rows(q + row * q_b + head * q_h + wide * q_l, m, seqlen - first, q_l, c, DK, BK)
                at_c = k + row * k_b + behind * k_l + n[:, None] * k_l + c[None, :]
                ks = tl.load(at_c, mask=at & (c < DK)[None, :], other=0.0)
                s += dot(qs, tl.trans(ks), INTERPRET, PRECISION)
            for column in range(0, BV, CV):
                e = column + tl.arange(0, CV)
                dos = load_rows(do + row * d_b + head * d_h + wide * d_l, m, seqlen - first, d_l, e, DV, BV)
                at_e = v + row * v_b + behind * v_l + n[:, None] * v_l + e[None, :]
                vs = tl.load(at_e, mask=at & (e < DV)[None, :], other=0.0)
                ds += dot(dos, tl.trans(vs), INTERPRET, PRECISION)
            near = table + step * BN  # always so far apart
            s = biased(s, m[:, None], n[None, :], near, fq, fk, scale, HAS_TABLE, HAS_GATES, INTERPRET)
            weights = tl.where(see, tl.exp2(s - norm), 0.0)
            less = tl.load(delta + own + i, mask=i < seqlen, other=0.0)[:, None]
            total += tl.where(weights == 0.0, 0.0, weights * (ds - less))
    back = m[:, None] - n[None, :]  # column x of the shifted tile: row r takes key (r - x) mod BN
    shifted = tl.gather(total, back & (BN - 1), 1)
    around = (back + BN) // BN  # 0: the distance x - BN, 1: x, 2: x + BN
    block = ((split * tl.num_programs(1) + head) * tl.num_programs(0) + tl.program_id(0)) * (BM // BN + 1)
    for turn in tl.static_range(BM // BN + 1):
        tl.store(parts + (block + turn) * BN + n, tl.sum(tl.where(around == turn, shifted, 0.0), 0))


def backward(do, dlse, q, k, v, o, lse, table, f_q, f_k, docs_q, docs_k, scale, mask, wanted_table):
    """See `lcprobe_kernels.attention._backward`."""
    (batch, seqlen, h, _), (_, n_keys, kv, d_v) = q.shape, v.shape
    q, k, v, do = (last_dim_dense(t) for t in (q, k, v, do.to(q.dtype)))
    tensors, numbers, switches = arguments(q, k, v, table, f_q, f_k, docs_q, docs_k, scale, mask)
    strides = [step for t in (q, k, v, do) for step in t.stride()[:3]]
    delta, lse2 = (q.new_empty((batch, h, seqlen), dtype=torch.float32) for _ in range(2))
    sizes, flags = attention_tiles(q, k, v, DQ_TILES, seqlen)
    grid = (triton.cdiv(seqlen, sizes["BM"]), h, batch)
    _delta_kernel[grid](
        o.contiguous(), do, lse.contiguous(), lse if dlse is None else dlse.float().contiguous(), delta, lse2, seqlen,
        h,
        *do.stride()[:3], HAS_DLSE=dlse is not None, DV=d_v, BV=sizes["BV"], BM=sizes["BM"],
    )  # fmt: skip
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    spans, _ = document_spans(docs_q, docs_k, sizes["BM"], sizes["BN"]) if docs_q is not None else (q, q)
    _dq_kernel[grid](
        q, k, v, *tensors, spans, do, lse2, delta, dq, *numbers, *strides, **switches, **sizes, **flags
    )  # fmt: skip
    sizes, flags = attention_tiles(q, k, v, DKV_TILES, seqlen, walks_rows=True)
    df_q, df_k, dtable = (q.new_zeros(0 if t is None else t.shape, dtype=torch.float32) for t in (None, f_k, None))
    if f_q is not None:
        df_q = _df_q(dlse, lse)
    _, spans = document_spans(docs_q, docs_k, sizes["BM"], sizes["BN"]) if docs_q is not None else (q, q)
    _dkv_kernel[(triton.cdiv(n_keys, sizes["BN"]), kv, batch)](
        q, k, v, *tensors, spans, do, lse2, delta, dk, dv, df_k, *numbers, *strides, **switches, **sizes, **flags
    )  # fmt: skip
    if wanted_table:
        dtable = torch.zeros_like(table, dtype=torch.float32, memory_format=torch.contiguous_format)
        columns = TABLE_COLUMNS[q.dtype.itemsize]
        sizes, flags = attention_tiles(q, k, v, TABLE_TILES, 1 << 30, columns=columns)
        sizes |= {"COLUMNS": columns}
        _dtable(
            dtable, (q, k, v, *tensors, do, lse2, delta), [*numbers, *strides, batch], mask, switches | sizes | flags
        )
    return dq, dk, dv, dtable, df_q, df_k


def _dtable(dtable: Tensor, tensors, numbers: list[int], mask: list[int], options: dict) -> None:
    """Fills dtable: one program a tile-diagonal, head and split, then a sum over splits and over the diagonals that
    overlap."""
    (h, distances), (offset, low, high, sinks, *_), seqlen = dtable.shape, mask, numbers[0]
    bm, bn = options["BM"], options["BN"]
    reach = min(distances, seqlen + offset)
    reach = min(reach, high) if high >= 0 and sinks == 0 else reach
    lowest = -((bm - 1 - max(low, 0)) // bn)  # the first diagonal with a distance of `low` or more
    diagonals = (reach + bn - 2) // bn + 1 - lowest
    if diagonals <= 0:
        return
    splits = max(1, min(MIN_TABLE_PROGRAMS // (diagonals * h), numbers[-1] * triton.cdiv(seqlen, bm)))
    turns = bm // bn + 1
    parts = dtable.new_empty((splits, h, diagonals, turns, bn))
    _dtable_kernel[(diagonals, h, splits)](*tensors, parts, *numbers, lowest, **options)
    parts = parts.sum(0)
    # diagonal a, turn k holds block lowest + a + k - 1 of bn distances
    blocks = dtable.new_zeros((h, diagonals + turns - 1, bn))
    for turn in range(turns):
        blocks[:, turn : turn + diagonals] += parts[:, :, turn]
    flat, start = blocks.flatten(1), (lowest - 1) * bn
    begin, end = max(start, 0), min(start + flat.shape[1], distances)
    dtable[:, begin:end] = flat[:, begin - start : end - start]


def _df_q(dlse: Tensor | None, lse: Tensor) -> Tensor:
    """dlse, but nothing for a row that sees nothing, and NaN for one that saw NaN."""
    df_q = torch.zeros_like(lse) if dlse is None else dlse.float()
    return df_q.masked_fill(lse == float("-inf"), 0.0).masked_fill(lse.isnan(), float("nan"))
