"""attention's adapter to flash-attn 4, end to end against the definition, with a stand-in that has its arguments and
conventions, and with the package itself on a GPU."""

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention, reference
from lcprobe_kernels.choosing import Request

from tests.kernels import stand_in_flash_attn as stand_in
from tests.kernels.judge import outputs_and_gradients, relative_error, same
from tests.kernels.test_attention_flash_attn import CASES, call_of, inputs

Q, K, V = "q", "k", "v"


@pytest.fixture
def forced(monkeypatch):
    """flash_attn_4 is chosen for tensors of every dtype, as if they were on an H100 in bfloat16. Returns the
    stand-in's calls."""

    def decided(name, device, index, dtype, needs, head_dim, chosen):
        request = Request(name, "cuda", torch.bfloat16, frozenset(needs), head_dim, (9, 0))
        return backends.choice_for(request, chosen, gpu=True).backend

    monkeypatch.setattr(backends, "_chosen", "flash_attn_4")
    monkeypatch.setattr(backends, "_decided_once", decided)
    monkeypatch.setattr(backends, "unusable", lambda name, try_import=False: None)
    return stand_in.install_4(monkeypatch, (*stand_in.CHECKED, torch.float64))


@pytest.mark.parametrize("soft_cap", [None, 1.5])
@pytest.mark.parametrize("name", CASES)
def test_outputs_lse_and_all_gradients_are_those_of_the_definition(name, soft_cap, forced):
    seqlen, past, band, documents = CASES[name]
    x, mask = inputs(seqlen, past, documents), Mask(past, **band)
    want = outputs_and_gradients(call_of(reference, mask, False, soft_cap), x, (Q, K, V), 3)
    same(outputs_and_gradients(call_of(attention, mask, False, soft_cap), x, (Q, K, V), 3), want, 1e-7)
    assert [called for called, _ in forced] == ["_flash_attn_fwd", "_flash_attn_bwd"]


def test_without_lse_in_half_precision_nothing_but_rounding_is_lost(forced):
    x, mask = inputs(17, 4, True, torch.bfloat16), Mask(4, high=6)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    calls = [call_of(f, mask, False, None, False) for f in (attention, reference)]
    got, want = (outputs_and_gradients(c, t, (Q, K, V), 3) for c, t in zip(calls, (x, wide), strict=True))
    for key, value in want.items():
        assert relative_error(got[key], value) < 4 * torch.finfo(torch.bfloat16).eps, key


def test_a_nan_is_in_the_log_sum_exp_of_the_rows_that_see_it(forced):
    x = inputs(6, 0, False)
    x["k"][0, 3, 0] = float("nan")
    _, lse = attention(x["q"], x["k"], x["v"], return_lse=True)
    assert lse[0, 3:, :2].isnan().all()
    assert lse[0, :3].isfinite().all()
    assert lse[1].isfinite().all()


def test_deterministic_gradients_are_asked_for_where_torch_is_told_to(forced):
    x = {k: v.requires_grad_() for k, v in inputs(5, 0, False).items()}
    for wanted in (False, True):
        torch.use_deterministic_algorithms(wanted)
        try:
            attention(*x.values())[0].sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        assert forced[-1][1]["deterministic"] is wanted


@pytest.mark.parametrize(
    ("capability", "needs", "width", "why"),
    [
        ((8, 0), (), 64, "needs sm_90 or newer"),
        ((12, 0), (), 64, "needs a GPU before sm_120"),
        ((9, 0), ("slopes",), 64, "no ALiBi"),
        ((9, 0), ("lse", "lse gradient"), 136, "heads of at most 128, here 136"),
        ((9, 0), ("lse", "lse gradient"), 128, None),
    ],
)
def test_what_it_cannot_serve(capability, needs, width, why):
    asked = Request("attention", "cuda", torch.bfloat16, frozenset(needs), width, capability)
    choose = lambda chosen: backends.choose(  # noqa: E731
        asked, chosen, backends.ABILITIES["attention"], backends.FEATURES["attention"], {}, {}
    )
    if why is None:
        assert choose("flash_attn_4").backend == "flash_attn_4"
        assert choose("auto").backend == "flash_attn"
    else:
        with pytest.raises(backends.ArgumentError, match=f"flash_attn_4 for attention: {why}"):
            choose("flash_attn_4")


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_the_package_itself_agrees_on_a_gpu(name):
    if backends.missing("flash_attn_4") is not None:
        pytest.skip(str(backends.missing("flash_attn_4")))
    seqlen, past, band, documents = CASES[name]
    x, mask = inputs(seqlen, past, documents, torch.bfloat16, width=64), Mask(past, **band)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    want = outputs_and_gradients(call_of(reference, mask, False, None), wide, (Q, K, V), 3)
    with backends.using("flash_attn_4"):
        got = outputs_and_gradients(call_of(attention, mask, False, None), x, (Q, K, V), 3)
    for key, value in want.items():
        assert relative_error(got[key], value) < 0.02, key
