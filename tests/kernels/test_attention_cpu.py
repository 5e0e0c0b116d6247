"""attention without terms on a CPU, by pieces of keys: against its definition in float64, and never a hidden NaN."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels.attention import Mask, attention, cpu, cpu_flash, reference

MASKS = st.builds(
    Mask,
    offset=st.sampled_from([0, 1, 3, 17, 40]),
    low=st.sampled_from([0, 0, 1, 5, 30]),
    high=st.sampled_from([-1, -1, 0, 1, 2, 5, 16, 31, 33, 100]),
    sinks=st.sampled_from([0, 0, 1, 4, 9]),
    chunk=st.sampled_from([0, 0, 1, 3, 8, 64]),
    chunk_low=st.sampled_from([0, 1]),
    chunk_high=st.sampled_from([1, 2, 1000]),
)
DOCUMENTS = st.sampled_from(["none", "packed", "any"])


def draw(seed, mask, seqlen, more, kv, group, batch, documents):
    g = torch.Generator().manual_seed(seed)
    n = max(1, mask.offset + seqlen + more)
    q, k, v = (
        torch.randn(batch, tokens, heads, 8, generator=g, dtype=torch.float64)
        for tokens, heads in ((seqlen, kv * group), (n, kv), (n, kv))
    )
    if documents == "none":
        return q, k, v, None
    if documents == "any":
        return q, k, v, tuple(torch.randint(-1, 3, (batch, m), generator=g) for m in (seqlen, n))
    numbers = (torch.rand(batch, max(n, seqlen), generator=g) < 0.1).cumsum(1)
    return q, k, v, (numbers[:, -seqlen:], numbers[:, :n])


@torch.no_grad()
@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**20), mask=MASKS, seqlen=st.sampled_from([1, 2, 7, 20, 70]),
    more=st.sampled_from([0, 0, -3, 5]), kv=st.integers(1, 2), group=st.sampled_from([1, 3]),
    batch=st.sampled_from([1, 3]), documents=DOCUMENTS, rows=st.sampled_from([(1, 16), (16, 16), (64, 512)]),
)  # fmt: skip
def test_pieces_equal_the_definition(seed, mask, seqlen, more, kv, group, batch, documents, rows):
    q, k, v, docs = draw(seed, mask, seqlen, more, kv, group, batch, documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_flash, "ROWS", rows)
        found = cpu_flash.forward(q, k, v, *(docs or (None, None)), 0.4, mask)
    assert found is not None
    for got, want in zip(found, reference(q, k, v, documents=docs, mask=mask, scale=0.4), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("documents", ["none", "packed"])
def test_low_precision_too(dtype, bound, documents):
    q, k, v, docs = draw(3, Mask(40), 70, 0, 2, 3, 3, documents)
    q, k, v = (t.to(dtype) for t in (q, k, v))
    o, lse = attention(q, k, v, documents=docs, mask=Mask(40), scale=0.4, return_lse=True)
    want, want_lse = reference(*(t.double() for t in (q, k, v)), documents=docs, mask=Mask(40), scale=0.4)
    assert o.dtype == dtype
    assert lse is not None
    assert lse.dtype == torch.float32
    assert (o - want).abs().max() < bound
    assert (lse - want_lse).abs().max() < bound


@torch.no_grad()
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20), past=st.sampled_from([0, 1, 17, 40, 530]), seqlen=st.sampled_from([1, 2, 7, 40]),
    high=st.sampled_from([-1, -1, 1, 5, 33]), documents=DOCUMENTS, name=st.sampled_from("qkv"), data=st.data(),
    bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]), width=st.sampled_from([1, 8]),
)  # fmt: skip
def test_what_is_not_finite_reaches_every_query_that_sees_it(
    seed, past, seqlen, high, documents, name, data, bad, width
):
    mask = Mask(past, high=high)
    q, k, v, docs = draw(seed, mask, seqlen, 0, 1, 1, 1, documents)
    tensor = {"q": q, "k": k, "v": v}[name]
    tensor[0, data.draw(st.integers(0, tensor.shape[1] - 1)), 0, :width] = bad
    o = attention(q, k, v, documents=docs, mask=mask)[0][0, :, 0]
    finite_v = v.nan_to_num(0, 0, 0)
    want = reference(q, k, finite_v, documents=docs, mask=mask, scale=8**-0.5)[0][0, :, 0]
    if name == "v":
        seen = mask.visible(torch.arange(seqlen), torch.arange(past + seqlen))
        if docs is not None:
            seen = seen & (docs[0][0][:, None] == docs[1][0])
        want[(seen & ~v[0, :, 0].isfinite().all(1)).any(1)] = float("nan")
    lost = ~want.isfinite().all(1) & o.isfinite().all(1)
    wrong = want.isfinite().all(1) & o.isfinite().all(1) & ((o - want).abs().amax(1) > 1e-9)
    assert not lost.any()
    assert not wrong.any()


@torch.no_grad()
@pytest.mark.parametrize(
    ("mask", "pieces"),
    [
        (Mask(300), [(64, 300), (64, 64)]),  # the cache, and a causal square
        (Mask(300, high=364), [(64, 300), (64, 64)]),  # a band that cuts nothing
        (Mask(0), [(64, 64)]),
        (Mask(300, high=40), [(64, 103)]),
        (Mask(300, high=40, sinks=4), [(64, 4), (64, 103)]),
        (Mask(300, low=64), [(64, 237), (64, 63)]),  # what all see needs no mask
    ],
)
def test_no_query_is_multiplied_by_keys_that_none_sees(mask, pieces, monkeypatch):
    """Of the keys, and never through the path that keeps scores."""
    calls, flash = [], cpu_flash._flash
    spy = lambda q, k, *rest, **more: calls.append((q.shape[2], k.shape[2])) or flash(q, k, *rest, **more)  # noqa: E731
    monkeypatch.setattr(cpu_flash, "_flash", spy)
    monkeypatch.setattr(cpu, "_scores", None)
    q, k, v, _ = draw(1, mask, 64, 0, 2, 1, 1, "none")
    attention(q, k, v, mask=mask)
    assert calls == pieces


@torch.no_grad()
def test_one_token_reads_the_keys_once_for_all_heads_that_share_them(monkeypatch):
    calls, flash = [], cpu_flash._flash
    spy = lambda q, k, *rest, **more: calls.append((q.shape, k.data_ptr())) or flash(q, k, *rest, **more)  # noqa: E731
    monkeypatch.setattr(cpu_flash, "_flash", spy)
    q, k, v, _ = draw(1, Mask(50), 1, 0, 2, 3, 2, "none")
    o, _ = attention(q, k, v)
    assert calls == [((2, 2, 3, 8), k.data_ptr())]
    assert (o - reference(q, k, v, mask=Mask(50), scale=8**-0.5)[0]).abs().max() < 1e-12


def test_gradients_of_a_chunk_with_a_cache_equal_the_definition():
    """The pieces' o and lse are what the backward pass continues from."""
    q, k, v, docs = (t if t is None or isinstance(t, tuple) else t.requires_grad_() for t in draw(
        5, Mask(40), 20, 0, 2, 3, 2, "packed"
    ))  # fmt: skip
    for options in ({}, {"documents": docs}):
        grads = []
        for op, more in ((attention, {"return_lse": True}), (reference, {})):
            o, lse = op(q, k, v, mask=Mask(40), scale=0.4, **options, **more)
            grads.append(torch.autograd.grad((o * o).sum() + lse.sin().sum(), (q, k, v)))
        for got, want in zip(*grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
