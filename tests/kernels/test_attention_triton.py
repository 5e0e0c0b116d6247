"""attention's Triton kernels against the definition in float64: outputs, lse and every gradient, whatever is masked
or added."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention, merge, reference

from tests.kernels.attention_cases import FULL, MASKS, SCALE, TERMS, cases, inputs, judged, run, wide
from tests.kernels.judge import DEVICE, at_most_twice, outputs_and_gradients, relative_error, same

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.usefixtures("small_attention_tiles")


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


QUICK_BANDS = [(0, 15, 0), (0, 17, 3), (0, 18, 0), (0, 33, 3), (2, 49, 0), (0, 15, 17)]
BANDS = [(0, high, sinks) for high in (15, 17, 18, 31, 33, 34) for sinks in (0, 3)]


@pytest.mark.parametrize(
    ("low", "high", "sinks"),
    [*QUICK_BANDS, *(pytest.param(*band, marks=pytest.mark.slow) for band in BANDS if band not in QUICK_BANDS)],
)
def test_a_band_that_ends_at_the_border_of_a_tile(low, high, sinks):
    """One less than a tile of 16, one and two more, and of two tiles: there the tiles that are walked, and those that
    are taken to be seen whole, change."""
    case = {"seqlen": 49, "past": 0, "heads": (1, 1), "widths": (3, 3), "terms": "table", "seed": high}
    x, mask = inputs(case, torch.float32), Mask(low=low, high=high, sinks=sinks)
    same(judged(attention, case, x, mask), judged(reference, case, wide(x), mask), 5e-6)


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        pytest.param(name, terms, marks=() if (i + bool(terms)) % 2 == 0 else pytest.mark.slow)
        for i, name in enumerate(("causal", "band", "sinks of many tiles", "chunk before", "nothing"))
        for terms in ("", "table f docs")
    ],
)
def test_keys_cut_into_parts_are_the_whole(name, terms, monkeypatch):
    """As in decoding: few queries, whose keys several programs share."""
    from lcprobe_kernels.attention import triton_fwd

    monkeypatch.setattr(triton_fwd, "processors", lambda: 6)
    monkeypatch.setattr(triton_fwd, "MIN_PART", 1)
    case = {**FULL, "seqlen": 1 if terms else 3, "past": 70, "terms": terms}
    x, mask = inputs(case, torch.float32), Mask(case["past"] * SCALE, **MASKS[name])
    assert triton_fwd.parts_of_keys(4, 5, 6) == 5
    same(judged(attention, case, x, mask), judged(reference, case, wide(x), mask), 5e-6)


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
