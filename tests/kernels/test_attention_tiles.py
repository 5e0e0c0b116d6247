"""The tiles of attention's Triton kernels: how large they are, which are read, and how many programs share them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention

from tests.kernels.attention_cases import FULL, MASKS, SCALE, inputs, judged
from tests.kernels.judge import DEVICE, GPU, same

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.usefixtures("small_attention_tiles")


def test_the_number_of_parts_fills_the_gpu_and_leaves_every_part_some_tiles():
    from lcprobe_kernels.attention.triton_fwd import parts_of_keys

    assert parts_of_keys(programs=264, key_tiles=500, processors=132) == 1  # two programs each without it
    assert parts_of_keys(programs=32, key_tiles=512, processors=132) == 17
    assert parts_of_keys(programs=32, key_tiles=16, processors=132) == 4
    assert parts_of_keys(programs=1, key_tiles=3, processors=132) == 1


@pytest.mark.parametrize("table", ["TILES", "DQ_TILES", "DKV_TILES", "TABLE_TILES"])
@pytest.mark.parametrize("limit", [101_376, 166_912, 232_448])
@pytest.mark.parametrize("size", [2, 4])
def test_tiles_fit_the_shared_memory_twice_and_leave_no_warp_without_work_of_its_own(limit, size, table):
    """A warp holds 16 rows where a product has no fewer rows than columns, else 8 columns."""
    from lcprobe_kernels.attention import tiles

    walks_rows = table == "DKV_TILES"
    for width in (16, 64, 128, 256):
        by_width = getattr(tiles, table)[size]
        wanted = by_width[min((n for n in by_width if n >= width), default=max(by_width))]
        columns = min(width, tiles.TABLE_COLUMNS[size]) if table == "TABLE_TILES" else width
        own, row = (1 if table == "TILES" else 2) * columns * size, 2 * columns * size
        bm, bn, stages = tiles.tile_that_fits(wanted, own, row, limit, size, walks_rows)
        needed = tiles.needs(bm, bn, stages, own, row, limit, size, walks_rows)
        assert needed <= limit
        assert min(bm, bn) >= 16
        if table == "TABLE_TILES":
            assert bm % bn == 0
        if size == 2 and (width < 256 or limit > 101_376):
            assert 2 * (needed + tiles.RESERVED) <= limit + tiles.RESERVED
        if size == 2 or width < 256:
            rows, keys = (bn, bm) if walks_rows else (bm, bn)
            assert rows >= 16 * tiles.WARPS if rows >= keys else keys >= 8 * tiles.WARPS


def test_tiles_shrink_as_little_as_the_shared_memory_asks_for():
    from lcprobe_kernels.attention.tiles import tile_that_fits

    assert tile_that_fits((64, 64, 3), 128, 256, 232_448, 2) == (64, 64, 3)
    assert tile_that_fits((64, 64, 4), 128, 256, 101_376, 2) == (64, 64, 3)  # fewer stages
    assert tile_that_fits((64, 32, 2), 512, 512, 101_376, 2) == (64, 16, 2)  # fewer keys, which are walked over
    assert tile_that_fits((32, 64, 2), 512, 512, 101_376, 2, True) == (16, 64, 2)  # and fewer rows, where they are
    assert tile_that_fits((64, 64, 2), 4096, 8192, 101_376, 4) == (16, 16, 1)


def test_diagonals_cut_into_parts_add_up_and_runs_repeat_to_the_bit(monkeypatch):
    from lcprobe_kernels.attention import triton_bwd

    case = {**FULL, "heads": (1, 1), "widths": (8, 5), "past": 1, "terms": "table"}
    x, mask = inputs(case, torch.float32), Mask(case["past"] * SCALE, **MASKS["sinks"])
    monkeypatch.setattr(triton_bwd, "MIN_TABLE_PROGRAMS", 1)
    whole = judged(attention, case, x, mask)
    monkeypatch.setattr(triton_bwd, "MIN_TABLE_PROGRAMS", 10)
    one, two = (judged(attention, case, x, mask) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    same(one, whole, 1e-6)
    assert not torch.equal(one["dtable"], whole["dtable"])  # other sums: it was cut


@pytest.mark.parametrize(
    "name",
    ["sinks", "chunk", "documents", *(pytest.param(n, marks=pytest.mark.slow) for n in ("band", "far", "causal"))],
)
def test_tiles_that_nothing_sees_are_not_read(name):
    """NaN in a value spreads over a tile of rows. Rows of tiles that the bounds leave out stay as they were, to the
    bit."""
    case = {**FULL, "seqlen": 64, "past": 0, "batch": 1, "terms": "docs" if name == "documents" else ""}
    x, mask, tile = inputs(case, torch.float32), Mask(**MASKS.get(name, {})), 128 if GPU else 16
    if name == "documents":
        x["docs_q"] = x["docs_k"] = (torch.arange(x["k"].shape[1], device=DEVICE) // (2 * tile))[None]
    clean = judged(attention, case, x, mask)["out0"]
    at = x["k"].shape[1] // 2 + 1
    x["v"][:, at] = math.nan
    spoilt = judged(attention, case, x, mask)["out0"]
    rows, keys = torch.arange(clean.shape[1]), torch.arange(x["k"].shape[1])
    seen = mask.visible(rows, keys)[:, at // tile * tile : at // tile * tile + tile].any(1)
    if name == "documents":
        seen = seen & (x["docs_q"][0].cpu() == x["docs_k"][0, at].cpu())
    met = torch.stack([seen[i // tile * tile : i // tile * tile + tile].any() for i in rows]).to(DEVICE)
    assert (~met).any()
    assert torch.equal(clean[:, ~met], spoilt[:, ~met])
    assert spoilt[:, mask.visible(rows, keys)[:, at].to(DEVICE) & met].isnan().all()


@pytest.mark.parametrize("name", ["q", "k"])
def test_nan_reaches_what_sees_it_and_nothing_else(name):
    x, mask = inputs({**FULL, "past": 0, "terms": ""}, torch.float32), Mask(high=9)
    x[name][0, 20] = math.nan
    with backends.using("triton"):
        o, lse = attention(x["q"], x["k"], x["v"], mask=mask, return_lse=True)
    assert lse is not None
    rows = torch.arange(o.shape[1], device=DEVICE)
    reached = rows == 20 if name == "q" else (rows >= 20) & (rows < 29)
    for results in (o, lse[..., None]):
        assert torch.equal(results[0].isnan().all((1, 2)), reached)
        assert torch.equal(results[0].isnan().any(2).any(1), reached)
        assert torch.isfinite(results[1]).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_spans_of_documents_leave_out_no_pair(docs_q, docs_k):
    from lcprobe_kernels.attention.triton_fwd import document_spans

    q, k = torch.tensor([docs_q]), torch.tensor([docs_k])
    of_rows, of_keys = document_spans(q, k, 4, 2)
    for i, j in (q[0][:, None] == k[0]).nonzero().tolist():
        assert of_rows[0, i // 4, 0] <= j // 2 < of_rows[0, i // 4, 1]
        assert of_keys[0, j // 2, 0] <= i // 4 < of_keys[0, j // 2, 1]
