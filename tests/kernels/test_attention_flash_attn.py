"""attention's adapter to flash-attn, end to end against the definition: with a stand-in that has its conventions where
there is no GPU, and with the package itself where there is one."""

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention, flash_attn, reference
from lcprobe_kernels.choosing import Request
from lcprobe_kernels.errors import ArgumentError

from tests.kernels import stand_in_flash_attn as stand_in
from tests.kernels.judge import DEVICE, outputs_and_gradients, relative_error, same

CASES = {  # seqlen, past, settings of the call, documents
    "plain": (13, 0, {}, False),
    "one token": (1, 9, {}, False),
    "after a cache": (5, 8, {}, False),
    "window": (14, 3, {"high": 4}, False),
    "window of one": (6, 0, {"high": 1}, False),
    "window as wide as the keys": (9, 2, {"high": 11}, False),
    "documents": (17, 0, {}, True),
    "documents after a cache": (9, 12, {}, True),
    "one token after documents": (1, 12, {}, True),
    "documents in a window": (15, 6, {"high": 3}, True),
}
WITH = {
    "nothing": {},
    "ALiBi": {"slopes": True},
    "soft cap": {"soft_cap": 1.5},
    "both": {"slopes": True, "soft_cap": 2.0},
}


def inputs(seqlen, past, documents, dtype=torch.float64, width=8, kv=2, group=2, batch=2):
    g = torch.Generator().manual_seed(seqlen + 31 * past)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64).to(DEVICE, dtype)  # noqa: E731
    n, heads = seqlen + past, kv * group
    x = {"q": draw(batch, seqlen, heads, width), "k": draw(batch, n, kv, width), "v": draw(batch, n, kv, width)}
    if documents:
        numbers = (torch.rand(batch, n, generator=g) < 0.3).cumsum(1).to(DEVICE)
        numbers = numbers - numbers[:, past : past + 1]  # as with a cache: earlier documents are below 0
        x |= {"docs_q": numbers[:, past:], "docs_k": numbers}
    return x


def call_of(fn, mask, slopes, soft_cap, return_lse=True):
    def call(x):
        heads = x["q"].shape[2]
        terms = {"slopes": 2.0 ** -torch.arange(1.0, heads + 1, device=DEVICE)} if slopes else {}
        terms["documents"] = (x["docs_q"], x["docs_k"]) if "docs_q" in x else None
        more = {"return_lse": return_lse} if fn is attention else {}
        o, lse = fn(x["q"], x["k"], x["v"], mask=mask, scale=0.4, soft_cap=soft_cap, **terms, **more)
        return (o, lse) if return_lse else (o,)

    return call


@pytest.fixture
def forced(monkeypatch):
    """flash_attn is chosen for tensors of every dtype, as if they were on an H100 in bfloat16. Returns the stand-in's
    calls."""

    def decided(name, device, index, dtype, needs, head_dim, chosen):
        request = Request(name, "cuda", torch.bfloat16, frozenset(needs), head_dim, (9, 0))
        return backends.choice_for(request, chosen, gpu=True).backend

    monkeypatch.setattr(backends, "_chosen", "flash_attn")
    monkeypatch.setattr(backends, "_decided_once", decided)
    monkeypatch.setattr(backends, "unusable", lambda name, try_import=False: None)
    return stand_in.install(monkeypatch, (*stand_in.CHECKED, torch.float64))


@pytest.mark.parametrize("extra", WITH)
@pytest.mark.parametrize("name", CASES)
def test_outputs_lse_and_all_gradients_are_those_of_the_definition(name, extra, forced):
    seqlen, past, band, documents = CASES[name]
    x, mask = inputs(seqlen, past, documents), Mask(past, **band)
    settings = {"slopes": False, "soft_cap": None} | WITH[extra]
    want = outputs_and_gradients(call_of(reference, mask, **settings), x, ("q", "k", "v"), 3)
    same(outputs_and_gradients(call_of(attention, mask, **settings), x, ("q", "k", "v"), 3), want, 1e-7)
    kind = "varlen_" if documents else ""
    assert [called for called, _ in forced] == [f"_flash_attn_{kind}forward", f"_flash_attn_{kind}backward"]


@pytest.mark.parametrize("dtype", stand_in.CHECKED)
@pytest.mark.parametrize("return_lse", [False, True])
def test_in_half_precision_nothing_but_rounding_is_lost(dtype, return_lse, forced):
    x, mask = inputs(17, 4, True, dtype), Mask(4, high=6)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    calls = [call_of(f, mask, True, 2.0, return_lse) for f in (attention, reference)]
    got, want = (outputs_and_gradients(c, t, ("q", "k", "v"), 3) for c, t in zip(calls, (x, wide), strict=True))
    for key, value in want.items():
        assert relative_error(got[key], value) < 4 * torch.finfo(dtype).eps, key


def test_the_gradient_of_lse_alone_is_not_lost(forced):
    x = inputs(11, 0, False, torch.bfloat16)
    leaves = {k: v.requires_grad_() for k, v in x.items()}
    _, lse = attention(*leaves.values(), return_lse=True)
    lse.sum().backward()
    wide = {k: v.detach().double().requires_grad_() for k, v in x.items()}
    reference(*wide.values(), mask=Mask(), scale=8**-0.5)[1].sum().backward()
    for key in ("q", "k"):
        assert relative_error(leaves[key].grad, wide[key].grad) < 0.02
    assert leaves["v"].grad.abs().max() == 0


def test_bits_of_a_log_sum_exp_gradient_survive_half_precision():
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    for dtype in stand_in.CHECKED:
        columns = torch.cat(flash_attn._pieces(x, dtype), 3)
        assert columns.shape == (2, 5, 3, flash_attn.EXTRA)
        assert (columns.double().sum(3) - x.double()).abs().max() < 2e-7


def test_deterministic_gradients_are_asked_for_where_torch_is_told_to(forced):
    x = {k: v.requires_grad_() for k, v in inputs(5, 0, False).items()}
    for wanted in (False, True):
        torch.use_deterministic_algorithms(wanted)
        try:
            attention(*x.values())[0].sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        assert forced[-1][1]["deterministic"] is wanted


def test_documents_of_all_layers_are_counted_once(forced, monkeypatch):
    counted, pack = [], flash_attn.pack
    monkeypatch.setattr(flash_attn, "pack", lambda *given: counted.append(1) or pack(*given))
    x = inputs(9, 0, True)
    for _ in range(3):
        q = x["q"].clone().requires_grad_()
        attention(q, x["k"], x["v"], documents=(x["docs_q"], x["docs_k"]))[0].sum().backward()
    assert counted == [1]


def test_packed_documents_are_runs_with_the_lengths_of_their_queries_and_keys():
    keys = torch.tensor([[-2, -2, -1, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    packed = flash_attn.pack(keys[:, 3:], keys)
    assert packed.cu_k.tolist() == [0, 2, 3, 5, 6, 12]
    assert packed.cu_q.tolist() == [0, 0, 0, 2, 3, 6]
    assert (packed.longest_q, packed.longest_k) == (3, 6)
    for wrong in (torch.tensor([[1, 0, 0]]), torch.tensor([[0, 1, 0]])):
        with pytest.raises(ArgumentError, match="rise along a row"):
            flash_attn.pack(wrong[:, 1:], wrong)
    with pytest.raises(ArgumentError, match="rise along a row"):
        flash_attn.pack(torch.tensor([[5]]), torch.tensor([[0, 1]]))


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"table": torch.zeros(4, 5)}, "no bias by distance but ALiBi's"),
        ({"mask": Mask(0, high=2, sinks=1)}, "no sinks beside a window"),
        ({"mask": Mask(0, chunk=2)}, "no chunks"),
        ({"mask": Mask(0, low=1)}, "no least distance"),
        ({"slopes": torch.ones(4, requires_grad=True)}, "no gradients of ALiBi's slopes"),
        ({"cumulative": (torch.zeros(2, 5, 4), torch.zeros(2, 5, 4))}, "no cumulative gates"),
    ],
)
def test_what_it_lacks_is_refused_by_name_and_never_computed_by_another(terms, named, forced):
    x = inputs(5, 0, False, torch.bfloat16)
    with pytest.raises(ArgumentError, match=named) as caught:
        attention(x["q"], x["k"], x["v"], **terms)
    assert str(caught.value).startswith("kernels.backend: given flash_attn for attention: ")
    assert not forced


def test_compiled_it_is_one_op(forced):
    x = inputs(9, 3, True, torch.bfloat16)
    call = call_of(attention, Mask(3, high=5), True, None)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    names = ("q", "k", "v")
    same(outputs_and_gradients(compiled, x, names, 2), outputs_and_gradients(call, x, names, 2), 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize("extra", WITH)
@pytest.mark.parametrize("name", CASES)
def test_flash_attn_itself_says_the_same(name, extra):
    """Beside its stand-in above: its own conventions, outputs, log-sum-exp and gradients, at widths that it has."""
    why = backends.missing("flash_attn")
    if why is not None:
        pytest.skip(why)
    seqlen, past, band, documents = CASES[name]
    x = inputs(seqlen * 23 if seqlen > 1 else 1, past * 23, documents, torch.bfloat16, 64)
    mask = Mask(past * 23, **{key: value * 23 for key, value in band.items()})
    settings = {"slopes": False, "soft_cap": None} | WITH[extra]
    wide = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    want = outputs_and_gradients(call_of(reference, mask, **settings), wide, ("q", "k", "v"), 3)
    with backends.using("flash_attn"):
        got = outputs_and_gradients(call_of(attention, mask, **settings), x, ("q", "k", "v"), 3)
    for key, value in want.items():
        assert relative_error(got[key], value) < 3e-2, key
