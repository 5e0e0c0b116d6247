"""attention against its definition in float64: every term, every mask, gradients of each, on every path."""

import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention, flex, merge, reference
from lcprobe_kernels.errors import ArgumentError
from torch.nn import functional as F

from tests.kernels.judge import DEVICE, outputs_and_gradients, same

DIFFERENTIABLE = ("q", "k", "v", "table", "f_q", "f_k")
MASKS = {
    "causal": {},
    "band": {"high": 5},
    "sinks": {"high": 4, "sinks": 2},
    "far": {"low": 3},
    "ring": {"low": 2, "high": 9},
    "chunk": {"chunk": 4},
    "chunk before": {"chunk": 5, "chunk_low": 1, "chunk_high": 2},
    "chunks before": {"chunk": 3, "chunk_low": 2, "chunk_high": 1000},
    "nothing": {"low": 1000},
}


def inputs(seed, seqlen, past, kv=2, group=2, d_qk=8, d_v=6, batch=2, documents=True):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64).to(DEVICE)  # noqa: E731
    n, heads = seqlen + past, kv * group
    tensors = {"q": draw(batch, seqlen, heads, d_qk), "k": draw(batch, n, kv, d_qk), "v": draw(batch, n, kv, d_v)}
    tensors |= {"table": draw(heads, n), "f_q": draw(batch, seqlen, heads), "f_k": draw(batch, n, heads)}
    numbers = torch.randint(0, 2, (batch, n), generator=g).cumsum(1).to(DEVICE) // 3
    return tensors | ({"docs_q": numbers[:, past:], "docs_k": numbers} if documents else {})


def run(op, mask, scale=0.4, **changes):
    def call(x):
        x = x | changes
        terms = {"table": x.get("table"), "mask": mask, "scale": scale}
        terms["cumulative"] = (x["f_q"], x["f_k"]) if x.get("f_q") is not None else None
        terms["documents"] = (x["docs_q"], x["docs_k"]) if "docs_q" in x else None
        o, lse = op(x["q"], x["k"], x["v"], **terms, **({"return_lse": True} if op is attention else {}))
        return o, torch.where(torch.isneginf(lse), 0.0, lse)  # a weight of the test times -inf would be inf

    return call


@pytest.mark.parametrize("name", MASKS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**20), st.integers(1, 40), st.integers(0, 30), st.booleans())
def test_float64_equals_the_definition(name, seed, seqlen, past, documents):
    x, mask = inputs(seed, seqlen, past, documents=documents), Mask(past, **MASKS[name])
    ours = outputs_and_gradients(run(attention, mask), x, DIFFERENTIABLE, seed)
    same(ours, outputs_and_gradients(run(reference, mask), x, DIFFERENTIABLE, seed), 1e-10)


def test_no_terms_and_a_band_equal_the_definition():
    x = inputs(2, 33, 7, documents=False)
    x = {name: x[name] for name in ("q", "k", "v")}
    ours = outputs_and_gradients(run(attention, Mask(7, high=6)), x, DIFFERENTIABLE, 1)
    same(ours, outputs_and_gradients(run(reference, Mask(7, high=6)), x, DIFFERENTIABLE, 1), 1e-10)


@pytest.mark.parametrize("seqlen", [1, 30])
def test_a_soft_cap_and_slopes_equal_the_definition(seqlen):
    x = inputs(21, seqlen, 7, documents=False)
    x |= {"slopes": x.pop("table")[:, 0]}

    def call(op):
        def run_op(x):
            more = {"return_lse": True} if op is attention else {}
            terms = {"slopes": x["slopes"], "cumulative": (x["f_q"], x["f_k"]), "soft_cap": 1.5, "scale": 0.4}
            return op(x["q"], x["k"], x["v"], mask=Mask(7, high=9), **terms, **more)

        return run_op

    differentiable = (*DIFFERENTIABLE, "slopes")
    ours = outputs_and_gradients(call(attention), x, differentiable, 1)
    same(ours, outputs_and_gradients(call(reference), x, differentiable, 1), 1e-10)


@pytest.mark.parametrize("dropped", ["table", "f_q"])
def test_each_term_counts(dropped):
    x, mask = inputs(3, 20, 5), Mask(5)
    whole, without = run(attention, mask)(x)[0], run(attention, mask, **{dropped: None})(x)[0]
    assert (whole - without).abs().max() > 0.1


def test_blocks_change_nothing(monkeypatch):
    x, mask = inputs(4, 100, 20), Mask(20, high=50)
    whole = outputs_and_gradients(run(attention, mask), x, DIFFERENTIABLE, 1)
    monkeypatch.setattr(sys.modules["lcprobe_kernels.attention.blockwise"], "SCORES_PER_BLOCK", 1)
    with backends.using("torch"):
        same(outputs_and_gradients(run(attention, mask), x, DIFFERENTIABLE, 1), whole, 1e-12)


def test_gradients_repeat_bit_by_bit():
    x, mask = {k: v.float() if v.is_floating_point() else v for k, v in inputs(5, 60, 4).items()}, Mask(4)
    first, second = (outputs_and_gradients(run(attention, mask), x, DIFFERENTIABLE, 2) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_plain_call_is_pytorchs_own():
    x = inputs(6, 30, 0, documents=False)
    ours, lse = attention(x["q"], x["k"], x["v"])
    k, v = (x[n].repeat_interleave(2, 2).transpose(1, 2) for n in ("k", "v"))
    torch.testing.assert_close(
        ours.transpose(1, 2), F.scaled_dot_product_attention(x["q"].transpose(1, 2), k, v, is_causal=True)
    )
    assert lse is None


@pytest.mark.parametrize("window", [1, 4, 30])
def test_merged_pieces_equal_the_whole(window):
    x = inputs(7, 25, 6)
    near, far, whole = Mask(6, high=window), Mask(6, low=window), Mask(6)
    o, lse = merge([run_raw(x, near), run_raw(x, far)])
    want, want_lse = run_raw(x, whole)
    torch.testing.assert_close(o, want, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(lse, want_lse, rtol=1e-13, atol=1e-13)


def run_raw(x, mask):
    return attention(
        x["q"], x["k"], x["v"], table=x["table"], cumulative=(x["f_q"], x["f_k"]), mask=mask, return_lse=True
    )


@pytest.mark.parametrize("name", MASKS)
def test_flex_attention_says_the_same(name):
    x = {k: v.float() if v.is_floating_point() else v for k, v in inputs(11, 21, 6).items()}
    mask = Mask(6, **MASKS[name])
    with torch.no_grad(), backends.using("flex"):
        got = run(attention, mask, soft_cap=2.0)(x)
    for ours, want in zip(
        got, run(reference, mask)({k: v.double() if v.is_floating_point() else v for k, v in x.items()}), strict=True
    ):
        assert (ours.double() - want).abs().max() < 2e-5
    if DEVICE.type == "cpu":
        with backends.using("flex"), pytest.raises(ArgumentError, match="FlexAttention has none"):
            run(attention, mask)(x | {"q": x["q"].requires_grad_()})


@pytest.mark.parametrize(("seqlen", "past"), [(21, 0), (1, 20), (9, 12)])
def test_a_named_backend_is_taken_for_plain_attention_too_or_refused(seqlen, past, monkeypatch):
    x = {k: v.float() for k, v in inputs(13, seqlen, past, documents=False).items()}
    calls = []
    run_flex = flex.run
    monkeypatch.setattr(flex, "run", lambda *given: calls.append(1) or run_flex(*given))
    with backends.using("torch"):
        want, _ = attention(x["q"], x["k"], x["v"])
    assert not calls
    with torch.no_grad(), backends.using("flex"):
        got, _ = attention(x["q"], x["k"], x["v"])
    assert calls == [1]
    assert (got - want).abs().max() < 1e-5
    if DEVICE.type == "cpu":
        with backends.using("flex"), pytest.raises(ArgumentError, match="FlexAttention has none"):
            attention(x["q"], x["k"].requires_grad_(), x["v"])


def test_compiles_whole_and_passes_opcheck():
    x = {k: v.float() if v.is_floating_point() else v for k, v in inputs(8, 9, 2).items()}
    mask, call = Mask(2), run(attention, Mask(2))
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    same(
        outputs_and_gradients(compiled, x, DIFFERENTIABLE, 3), outputs_and_gradients(call, x, DIFFERENTIABLE, 3), 1e-6
    )
    given = [x[n].requires_grad_() for n in ("q", "k", "v", "table", "f_q", "f_k")]
    settings = (None, None, 0.3, mask.numbers, 2.0, "torch")
    torch.library.opcheck(torch.ops.lcprobe.attention_fwd, (*given, x["docs_q"], x["docs_k"], *settings))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"k": lambda x: x["k"][:, :, :1].repeat(1, 1, 3, 1)}, "k: given 3 heads"),
        ({"q": lambda x: x["q"][0]}, "q:"),
        ({"v": lambda x: x["v"][:, 1:]}, "v:"),
        ({"k": lambda x: x["k"].half()}, "k: given torch.float16"),
        ({"table": lambda x: x["table"][:, :4]}, "table: given 4 distances"),
        ({"table": lambda x: x["table"][:2]}, "table:"),
        ({"f_q": lambda x: x["f_q"][:, 1:]}, "cumulative of queries"),
        ({"docs_k": lambda x: x["docs_k"].int()}, "documents of keys"),
        ({"q": lambda x: "text"}, "q: given str"),
        ({"q": lambda x: x["q"].to(torch.float8_e4m3fn)}, "q: given torch.float8"),
        ({"table": lambda x: [1, 2]}, "table"),
    ],
)
def test_wrong_arguments_are_one_line(change, named):
    x = inputs(9, 10, 0)
    x |= {name: build(x) for name, build in change.items()}
    with pytest.raises(ArgumentError, match=named) as caught:
        run(attention, Mask())(x)
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_nan_reaches_what_sees_it_also_without_terms(n, name):
    x = {k: v.float() for k, v in inputs(12, n, 0, documents=False).items()}
    x[name][0, 0, 0, 0] = float("nan")
    o, _ = attention(x["q"], x["k"], x["v"])
    assert o[0, 0, 0].isnan().any()


def test_the_dtype_is_qs_under_autocast_too():
    x = {k: v.float() for k, v in inputs(13, 9, 0, documents=False).items()}
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert attention(x["q"], x["k"], x["v"])[0].dtype == torch.float32
        assert attention(x["q"], x["k"], x["v"], table=x["table"])[0].dtype == torch.float32


def test_pairs_masks_and_scales_that_are_none_are_one_line():
    x = inputs(14, 5, 0)
    for name, wrong in (("documents", x["docs_q"]), ("cumulative", (x["f_q"],)), ("mask", "causal"), ("scale", "x")):
        with pytest.raises(ArgumentError, match=name):
            attention(x["q"], x["k"], x["v"], **{name: wrong})


def test_a_mask_that_cannot_be_is_refused():
    x = inputs(10, 4, 0)
    for mask in (Mask(-1), Mask(sinks=-1), Mask(high=-2)):
        with pytest.raises(ArgumentError, match="mask"):
            run(attention, mask)(x)
