"""attention's Triton kernels against the definition in float64: outputs, lse and every gradient, whatever is masked
or added."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention, merge, reference

from tests.kernels.judge import DEVICE, GPU, at_most_twice, outputs_and_gradients, relative_error, same

pytest.importorskip("triton", reason="triton is not installed")
TERMS = ("q", "k", "v", "table", "f_q", "f_k")
MASKS = {
    "causal": {},
    "band": {"high": 9},
    "band of a tile": {"high": 16},
    "sinks": {"high": 7, "sinks": 3},
    "sinks of many tiles": {"high": 4, "sinks": 35},
    "only sinks": {"high": 0, "sinks": 5},
    "far": {"low": 20},
    "ring": {"low": 5, "high": 27},
    "far and sinks": {"low": 3, "high": 11, "sinks": 2},
    "chunk": {"chunk": 12},
    "chunk before": {"chunk": 9, "chunk_low": 1, "chunk_high": 2},
    "chunks before": {"chunk": 7, "chunk_low": 2, "chunk_high": 1 << 30},
    "chunk and band": {"chunk": 20, "chunk_high": 2, "high": 15, "sinks": 1},
    "nothing": {"low": 1 << 20},
}
SCALE = 5 if GPU else 1
"""Lengths on a GPU, whose tiles are wider."""
cases = st.fixed_dictionaries(
    {
        "seqlen": st.sampled_from([1, 2, 15, 16, 17, 33]),
        "past": st.sampled_from([0, 0, 1, 16, 21]),
        "heads": st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1)]),
        "widths": st.sampled_from([(8, 8), (5, 3), (3, 17), (18, 1)]),
        "terms": st.sampled_from(["", "table", "f", "table f", "table f docs", "docs"]),
        "seed": st.integers(0, 2**20),
    }
)


@pytest.fixture(autouse=True, scope="module")
def _small_tiles():
    """Tiles so small that short sequences have many; on a GPU as they are."""
    with pytest.MonkeyPatch.context() as patch:
        if GPU:
            yield
            return
        from lcprobe_kernels.attention import triton_bwd, triton_fwd

        for module, name in ((triton_fwd, "TILES"), (triton_bwd, "DQ_TILES"), (triton_bwd, "DKV_TILES")):
            patch.setattr(module, name, {2: {256: (16, 16, 1)}, 4: {256: (16, 16, 1)}})
        patch.setattr(triton_bwd, "TABLE_TILES", {2: {256: (32, 16, 1)}, 4: {256: (32, 16, 1)}})
        patch.setattr(triton_bwd, "TABLE_COLUMNS", {2: 16, 4: 16})
        patch.setattr(triton_bwd, "MIN_TABLE_PROGRAMS", 12)
        yield


def inputs(case, dtype=torch.float64):
    """Terms that a case has, in the values of `dtype`."""
    g = torch.Generator().manual_seed(case["seed"])
    seqlen, past, (heads, kv), (d_qk, d_v) = (
        case["seqlen"] * SCALE,
        case["past"] * SCALE,
        case["heads"],
        case["widths"],
    )
    n, batch = seqlen + past, case.get("batch", 1)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(DEVICE, dtype)

    acc_dtype = torch.promote_types(dtype, torch.float32)
    tensors = {"q": draw(batch, seqlen, heads, d_qk), "k": draw(batch, n, kv, d_qk), "v": draw(batch, n, kv, d_v)}
    if "table" in case["terms"]:
        tensors["table"] = draw(heads, n, dtype=acc_dtype)
    if "f" in case["terms"]:
        tensors |= {"f_q": draw(batch, seqlen, heads, dtype=acc_dtype), "f_k": draw(batch, n, heads, dtype=acc_dtype)}
    if "docs" in case["terms"]:
        numbers = (torch.rand(batch, n, generator=g) < 0.1 / SCALE).cumsum(1).to(DEVICE)
        tensors |= {"docs_q": numbers[:, past:] - 1, "docs_k": numbers - 1}
    return tensors


def run(op, mask, **changes):
    def call(x):
        x = x | changes
        gates = (x["f_q"], x["f_k"]) if x.get("f_q") is not None else None
        documents = (x["docs_q"], x["docs_k"]) if x.get("docs_q") is not None else None
        options = {"return_lse": True} if op is attention else {}
        terms = {"table": x.get("table"), "cumulative": gates, "documents": documents, "mask": mask, "scale": 0.4}
        o, lse = op(x["q"], x["k"], x["v"], **terms, **options)
        return o, torch.where(torch.isneginf(lse), 0.0, lse)  # a weight of the test times -inf would be inf

    return call


def judged(op, case, x, mask, **changes):
    wanted = [name for name in TERMS if name in x]
    with backends.using("triton" if op is attention else "torch"):
        return outputs_and_gradients(run(op, mask, **changes), x, wanted, case["seed"])


def wide(x):
    return {k: v.double() if v.is_floating_point() else v for k, v in x.items()}


def plain(q, k, v, *, table, cumulative, documents, mask, scale):
    """The definition with products and weights in the inputs' own dtype: what low precision costs anyone."""
    group = q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(group, 2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k).float() * scale
    rows, keys = (torch.arange(n, device=q.device) for n in (q.shape[1], k.shape[1]))
    seen = mask.visible(rows, keys)
    if documents is not None:
        seen = seen & (documents[0][:, None, :, None] == documents[1][:, None, None])
    if table is not None:
        scores = scores + table[:, (rows[:, None] + mask.offset - keys).clamp(0)]
    if cumulative is not None:
        f_q, f_k = (f.transpose(1, 2) for f in cumulative)
        scores = scores + f_q[..., None] - f_k[:, :, None]
    scores = scores.masked_fill(~seen, -1e30)
    lse = torch.where(seen.any(-1), scores.logsumexp(-1), -math.inf)
    weights = torch.where(seen, scores.softmax(-1), 0.0).to(v.dtype)
    return torch.einsum("bhij,bjhd->bihd", weights, v), lse.transpose(1, 2)


@pytest.mark.parametrize("name", MASKS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(case=cases)
def test_float32_equals_the_definition(name, case):
    x, mask = inputs(case, torch.float32), Mask(case["past"] * SCALE, **MASKS[name])
    same(judged(attention, case, x, mask), judged(reference, case, wide(x), mask), 5e-6)


@pytest.mark.parametrize(
    ("low", "high", "sinks"),
    [(0, high, sinks) for high in (15, 17, 18, 31, 33, 34) for sinks in (0, 3)] + [(2, 49, 0), (0, 15, 17)],
)
def test_a_band_that_ends_at_the_border_of_a_tile(low, high, sinks):
    """One less than a tile of 16, one and two more, and of two tiles: there the tiles that are walked, and those that
    are taken to be seen whole, change."""
    case = {"seqlen": 49, "past": 0, "heads": (1, 1), "widths": (3, 3), "terms": "table", "seed": high}
    x, mask = inputs(case, torch.float32), Mask(low=low, high=high, sinks=sinks)
    same(judged(attention, case, x, mask), judged(reference, case, wide(x), mask), 5e-6)


@pytest.mark.parametrize("name", ["causal", "band", "sinks of many tiles", "chunk before", "nothing"])
@pytest.mark.parametrize("terms", ["", "table f docs"])
def test_keys_cut_into_parts_are_the_whole(name, terms, monkeypatch):
    """As in decoding: few queries, whose keys several programs share."""
    from lcprobe_kernels.attention import triton_fwd

    monkeypatch.setattr(triton_fwd, "processors", lambda: 6)
    monkeypatch.setattr(triton_fwd, "MIN_PART", 1)
    case = {**FULL, "seqlen": 1 if terms else 3, "past": 70, "terms": terms}
    x, mask = inputs(case, torch.float32), Mask(case["past"] * SCALE, **MASKS[name])
    assert triton_fwd.parts_of_keys(4, 5, 6) == 5
    same(judged(attention, case, x, mask), judged(reference, case, wide(x), mask), 5e-6)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(case=cases, name=st.sampled_from(["causal", "sinks", "ring", "chunk before"]))
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_the_definition(dtype, case, name):
    x, mask = inputs(case, dtype), Mask(case["past"] * SCALE, **MASKS[name])
    ours = judged(attention, case, x, mask)
    assert ours["out0"].dtype == ours["dk"].dtype == dtype
    assert ours["out1"].dtype == torch.float32
    # delta is formed from o as it was rounded, as in FlashAttention: an error of dS where its terms cancel
    slack: dict[str, float] = {name: 2 * torch.finfo(dtype).eps for name in ("dq", "dk", "dtable", "df_k")}
    at_most_twice(ours, judged(plain, case, x, mask), judged(reference, case, wide(x), mask), slack)


FULL = {"seqlen": 33, "past": 21, "heads": (2, 1), "widths": (8, 5), "terms": "table f docs", "seed": 3, "batch": 2}


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


def test_without_a_gradient_at_lse_and_without_the_tables():
    case = {**FULL, "seqlen": 17, "past": 0, "batch": 1}
    x, mask = inputs(case, torch.float32), Mask()
    only_o = lambda op: lambda y: run(op, mask)(y)[:1]  # noqa: E731
    with backends.using("triton"):
        ours = outputs_and_gradients(only_o(attention), x, TERMS, 0)
        still = outputs_and_gradients(only_o(attention), x, ("q", "k"), 0)
    want = outputs_and_gradients(only_o(reference), wide(x), TERMS, 0)
    assert not ours.pop("df_q").any()  # f_q moves no output
    assert want.pop("df_q").abs().max() < 1e-14
    same(ours, want, 5e-6)
    assert "dtable" not in still
    assert torch.equal(still["dk"], ours["dk"])


@pytest.mark.parametrize("name", ["nothing", "only sinks", "far"])
def test_a_row_that_sees_nothing_has_no_output_and_no_gradient(name):
    case = {**FULL, "past": 0, "terms": "table f", "batch": 1}
    x, mask = inputs(case, torch.float32), Mask(**MASKS[name])
    x["docs_q"], x["docs_k"] = (torch.zeros(1, x["k"].shape[1], dtype=torch.int64, device=DEVICE) for _ in range(2))
    x["docs_q"][:, 25:] = 1  # rows whose document has no key, so that `only sinks` has some that see nothing too
    seen = mask.visible(torch.arange(x["q"].shape[1]), torch.arange(x["k"].shape[1])).any(1).to(DEVICE)
    seen[25:] = False
    results = judged(attention, case, x, mask)
    assert not any(value.isnan().any() for value in results.values())
    for key in ("out0", "dq", "df_q"):
        assert not results[key][:, ~seen].any()
    with backends.using("triton"):
        _, lse = attention(x["q"], x["k"], x["v"], documents=(x["docs_q"], x["docs_k"]), mask=mask, return_lse=True)
    assert lse is not None
    assert torch.equal(torch.isneginf(lse[0, :, 0]), ~seen)


@pytest.mark.parametrize("name", ["band", "sinks", "chunk", "far", "causal", "documents"])
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


@pytest.mark.filterwarnings("ignore:overflow")  # of scores that are hidden after
def test_large_gates_keep_their_differences():
    """F is a running sum: thousands, where its differences are small."""
    case = {**FULL, "terms": "f", "seqlen": 17, "past": 0, "batch": 1}
    x = inputs(case, torch.float32)
    base = torch.tensor(20000.0, device=DEVICE)
    shifted = x | {"f_q": x["f_q"].half().float() + base, "f_k": x["f_k"].half().float() + base}
    same(judged(attention, case, shifted, Mask()), judged(reference, case, wide(shifted), Mask()), 5e-6)


def test_slices_and_turned_tensors_are_read_where_they_lie():
    g = torch.Generator().manual_seed(0)
    both = torch.randn(2, 20, 2, 24, generator=g).to(DEVICE)
    q, k, v = both.split(8, 3)
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    with backends.using("triton"):
        dense = attention(*(t.contiguous() for t in (q, k, v)), mask=Mask(high=7))[0]
        assert torch.equal(attention(q, k, v, mask=Mask(high=7))[0], dense)
        assert torch.equal(attention(*turned, mask=Mask(high=7))[0], dense)


def test_pieces_merged_by_lse_are_the_whole():
    case = {**FULL, "terms": "table", "batch": 1}
    x, past = inputs(case, torch.float32), case["past"] * SCALE

    def pieces(y):
        parts = [
            attention(y["q"], y["k"], y["v"], table=y["table"], mask=Mask(past, **part), scale=0.4, return_lse=True)
            for part in ({"high": 13}, {"low": 13})
        ]
        return merge([(o, lse) for o, lse in parts if lse is not None])

    with backends.using("triton"):
        ours = outputs_and_gradients(pieces, x, TERMS[:4], 1)
    same(ours, outputs_and_gradients(run(reference, Mask(past)), wide(x), TERMS[:4], 1), 5e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_spans_of_documents_leave_out_no_pair(docs_q, docs_k):
    from lcprobe_kernels.attention.triton_fwd import document_spans

    q, k = torch.tensor([docs_q]), torch.tensor([docs_k])
    of_rows, of_keys = document_spans(q, k, 4, 2)
    for i, j in (q[0][:, None] == k[0]).nonzero().tolist():
        assert of_rows[0, i // 4, 0] <= j // 2 < of_rows[0, i // 4, 1]
        assert of_keys[0, j // 2, 0] <= i // 4 < of_keys[0, j // 2, 1]


MUTATIONS = {
    "no table": ({"table": None}, {}),
    "no gates": ({"f_q": None, "f_k": None}, {}),
    "no documents": ({"docs_q": None, "docs_k": None}, {}),
    "no band": ({}, {"high": -1}),
    "a wider band": ({}, {"high": 10}),
    "no sinks": ({}, {"sinks": 0}),
    "no chunks": ({}, {"chunk": 0}),
    "an offset less": ({}, {"offset": FULL["past"] * SCALE - 1}),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(mutation):
    case = {**FULL, "seqlen": 17, "heads": (1, 1), "batch": 1}
    x, past = inputs(case, torch.float32), case["past"] * SCALE
    numbers = {"offset": past, "high": 9, "sinks": 12 * SCALE, "chunk": 16 * SCALE, "chunk_high": 2}
    x["docs_k"] = (torch.arange(x["k"].shape[1], device=DEVICE) % 7 == 3).long()[None]
    x["docs_q"] = x["docs_k"][:, past:]
    changes, others = MUTATIONS[mutation]
    ours = judged(attention, case, x, Mask(**numbers))
    same(ours, judged(reference, case, wide(x), Mask(**numbers)), 5e-6)
    left = {k: v for k, v in wide(x).items() if k not in changes}
    mutated = judged(reference, case, left, Mask(**(numbers | others)))
    assert relative_error(ours["out0"], mutated["out0"]) > 1e-2
    assert relative_error(ours["dk"], mutated["dk"]) > 1e-2


@pytest.mark.gpu
def test_offsets_past_two_to_the_31():
    q, k, v = (
        torch.randn(1, 1 << 20, 20, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)
    )  # 2.7e9 elements each
    table = torch.randn(20, 256, device=DEVICE)
    o, _ = attention(q, k, v, table=table, mask=Mask(high=256))
    tail = [t[:, -600:] for t in (q, k, v)]
    want, _ = attention(*tail, table=table, mask=Mask(high=256))
    assert relative_error(o[:, -64:], want[:, -64:]) < 2e-2
