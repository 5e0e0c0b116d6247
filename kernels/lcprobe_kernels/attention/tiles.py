"""Tiles of attention's Triton kernels: rows, keys and stages, by what registers and shared memory hold.

A warp holds 16 rows of a product with no fewer rows than columns, else all of its rows and some columns. So four
warps take 64 rows (of keys in dkv) or fewer rows than columns, and no two warps form the same numbers; and a thread's
share of the sums stays within 255 registers. What is walked over comes 16 or 32 at a time where a product's two
operands, and their parts in float32, would pass the registers otherwise. `python -m validation compiled` has the
registers and the bytes spilled.
"""

import triton
from torch import Tensor

from lcprobe_kernels.backends import interpreting
from lcprobe_kernels.triton_tools import precision, shared_memory

TILES = {
    2: {64: (64, 64, 3), 128: (64, 32, 3), 256: (32, 64, 2)},
    4: {64: (64, 32, 1), 128: (16, 32, 1)},
}
"""Bytes of a number -> the wider of a query's and a value's width -> rows, keys, stages. A wider one takes the last.
"""
DQ_TILES = {
    2: {64: (64, 32, 2), 128: (64, 32, 2), 256: (32, 64, 1)},
    4: {64: (64, 16, 1), 128: (16, 32, 1)},
}
DKV_TILES = {
    2: {64: (32, 64, 2), 128: (32, 64, 2), 256: (32, 16, 2)},
    4: {64: (32, 16, 1)},
}
TABLE_TILES = {2: {64: (64, 32, 2)}, 4: {64: (64, 16, 1)}}
"""Rows are a multiple of keys: a tile-diagonal shifts by whole tiles of keys."""
TABLE_COLUMNS = {2: 64, 4: 32}
"""Of a head that the table's kernel multiplies at a time: wide heads take no more registers there."""
WARPS = 4
"""Of every program: at 255 registers a thread two such programs share a multiprocessor, and one of eight warps does
not share it."""
RESERVED = 1024
"""Bytes of shared memory that every program takes besides its own (CUDA C++ Programming Guide)."""
ASYNCHRONOUS = 200_000
"""Bytes of shared memory beyond which products are asynchronous (from sm_90 on), and take a stage more."""


def attention_tiles(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: dict,
    rows: int,
    *,
    held: str = "BK BV",
    columns: int = 1 << 30,
    walks_rows: bool = False,
) -> tuple[dict, dict]:
    """Powers of two that hold a query, a value and a tile, and how to multiply. Fewer rows than a tile's take a
    smaller one, and so do widths for which the device lacks shared memory.

    held: whether a program holds queries (BK), values or their gradient (BV), or both. columns: of a head that it
    multiplies at a time, where not all. walks_rows: it holds keys.
    """
    widths = {name: max(16, triton.next_power_of_2(n)) for name, n in (("BK", q.shape[-1]), ("BV", v.shape[-1]))}
    by_width, size = tiles[q.dtype.itemsize], q.dtype.itemsize
    wanted = by_width[min((n for n in by_width if n >= max(widths.values())), default=max(by_width))]
    row = size * sum(min(width, columns) for width in widths.values())
    own = size * sum(min(widths[name], columns) for name in held.split())
    bm, bn, stages = tile_that_fits(wanted, own, row, shared_memory(), size, walks_rows)
    bm = min(bm, max(16, triton.next_power_of_2(rows)))
    sizes = {"DK": q.shape[-1], "DV": v.shape[-1], "BM": bm, "BN": bn, **widths}
    flags = {"INTERPRET": interpreting(), "PRECISION": precision(q.dtype), "num_warps": WARPS, "num_stages": stages}
    return sizes, flags


def tile_that_fits(
    tile: tuple[int, int, int], own: int, row: int, limit: int, size: int, walks_rows: bool = False
) -> tuple[int, int, int]:
    """Rows, keys and stages, so that two programs share a multiprocessor whose programs may take `limit` bytes of
    shared memory; of float32, or where tiles of 16 by 32 are too large for that, one.

    own: bytes of what a program holds, per row or key. row: bytes of what it walks over, per key or row. size: bytes
    of a number. Fewer stages are taken first, down to two, then half the smaller side, down to 16, then half the
    larger, then one stage.
    """
    half = (limit + RESERVED) // 2 - RESERVED
    for room, least in ((half, 32), (limit, 16)) if size < 4 else ((limit, 16),):
        bm, bn, stages = tile
        while needs(bm, bn, stages, own, row, limit, size, walks_rows) > room:
            smaller, larger = min(bm, bn), max(bm, bn)
            if stages > 2:
                stages -= 1
            elif smaller > 16:
                bm, bn = (bm // 2, bn) if bm < bn or (bm == bn and walks_rows) else (bm, bn // 2)
            elif larger > least:
                bm, bn = (bm // 2, bn) if bm > bn else (bm, bn // 2)
            elif stages > 1:
                stages -= 1
            else:
                break
        else:
            return bm, bn, stages
    return bm, bn, stages


def needs(bm: int, bn: int, stages: int, own: int, row: int, limit: int, size: int, walks_rows: bool) -> int:
    """Bytes of shared memory that a program may ask for: a bound of what Triton 3.9 allocates.

    What it holds (of float32 both parts of every number), once a stage what it walks over, a tile of scores on its
    way to a product, and some numbers per row and key.
    """
    held, walked = (bn, bm) if walks_rows else (bm, bn)
    kept = stages if limit > ASYNCHRONOUS else max(1, stages - 1)
    return own * held * (size // 2) + row * kept * walked + size * bm * bn + 8 * (bm + bn)
