"""causal_conv1d's adapter to the package of that name, with a stand-in that has the arguments, layouts and checks of its
two functions (csrc/causal_conv1d.cpp), computed by the definition."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.causal_conv1d import causal_conv1d, package, reference
from lcprobe_kernels.choosing import Request

from tests.kernels.judge import DEVICE, draw_starts, outputs_and_gradients, same
from tests.kernels.peer_signatures import as_published

ALIGNED = 8


def check(x, weight, bias, seq_idx, initial_states, silu_activation):
    batch, dim, seqlen = x.shape
    assert weight.shape == (dim, weight.shape[1])
    assert 2 <= weight.shape[1] <= 4
    assert x.stride(1) == 1
    assert x.stride(2) > 1
    assert not any(n % ALIGNED for n in (dim, x.stride(0), x.stride(2), x.storage_offset()))
    assert bias is None or (bias.dtype == weight.dtype and bias.shape == (dim,))
    assert isinstance(silu_activation, bool)
    if seq_idx is not None:
        assert initial_states is None, "initial_states must be None if seq_idx is not None"
        assert seq_idx.dtype == torch.int32
        assert seq_idx.shape == (batch, seqlen)
        assert seq_idx.is_contiguous()
    if initial_states is not None:
        assert initial_states.shape == (batch, dim, weight.shape[1] - 1)
        assert initial_states.stride(1) == 1
        assert initial_states.dtype == x.dtype


def forward(x, weight, bias, seq_idx, initial_states, final_states_out, silu_activation):
    assert final_states_out is None
    check(x, weight, bias, seq_idx, initial_states, silu_activation)
    starts = None
    if seq_idx is not None:
        starts = torch.zeros(seq_idx.shape, dtype=torch.bool, device=x.device)
        starts[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    before = None if initial_states is None else initial_states.transpose(1, 2)
    y, _ = reference(x.transpose(1, 2), weight, bias, silu=silu_activation, initial_state=before, starts=starts)
    return torch.empty_like(x).copy_(y.transpose(1, 2)) if not x.requires_grad else y.transpose(1, 2)


def backward(
    x, weight, bias, dout, seq_idx, initial_states, dfinal_states, dx, return_dinitial_states, silu_activation
):
    assert dfinal_states is None
    assert dx is None
    assert bias is not None, "some versions make a gradient like bias"
    assert return_dinitial_states == (initial_states is not None)
    check(dout, weight, bias, None, None, silu_activation)
    leaves = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias, initial_states)]

    def differentiate():
        y = forward(*leaves[:3], seq_idx, leaves[3], None, silu_activation)
        (y * dout).sum().backward()

    with ThreadPoolExecutor(1) as elsewhere:  # inside a registered op nothing is recorded; another thread is outside
        elsewhere.submit(differentiate).result()
    return tuple(None if t is None else t.grad for t in leaves)


@pytest.fixture
def forced(monkeypatch):
    calls = []

    def decided(name, device, index, dtype, needs, head_dim, chosen):
        request = Request(name, "cuda", torch.bfloat16, frozenset(needs), head_dim, (9, 0))
        calls.append(backends.choice_for(request, chosen, gpu=True).backend)
        return calls[-1]

    monkeypatch.setattr(backends, "_chosen", "fla")  # it has no such op, which is left to auto, on a CPU too
    monkeypatch.setattr(backends, "_decided_once", decided)
    monkeypatch.setattr(backends, "unusable", lambda name, try_import=False: None)
    monkeypatch.setattr(backends, "versions", dict)
    api = SimpleNamespace(
        causal_conv1d_fwd_function=as_published("causal_conv1d_fwd_function", forward),
        causal_conv1d_bwd_function=as_published("causal_conv1d_bwd_function", backward),
    )
    monkeypatch.setattr(package, "_api", lambda: api)
    return calls


def inputs(dtype=torch.float64, without=()):
    g = torch.Generator().manual_seed(3)
    shapes = {"x": (2, 9, 16), "weight": (16, 4), "bias": (16,), "initial_state": (2, 3, 16)}
    drawn = {name: torch.randn(*s, generator=g, dtype=torch.float64) for name, s in shapes.items()}
    return {name: t.to(DEVICE, dtype) for name, t in drawn.items() if name not in without}


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("without", "documents"), [((), "none"), (("bias",), "none"), (("initial_state",), "some")])
def test_outputs_state_and_all_gradients_are_those_of_the_definition(without, documents, silu, forced):
    starts, x = draw_starts(documents, 2, 9, 4), inputs(without=without)
    want = outputs_and_gradients(lambda x: reference(**x, silu=silu, starts=starts), x, x, 5)
    call = lambda x: causal_conv1d(**x, silu=silu, starts=starts, return_state=True)  # noqa: E731
    same(outputs_and_gradients(call, x, x, 5), want, 1e-12)
    assert set(forced) == {"causal_conv1d"}


@pytest.mark.parametrize("layout", ["part of wider rows", "rows of odd strides", "expanded", "by channels"])
def test_every_layout_in_memory_is_taken(layout, forced):
    x, rest = inputs()["x"], inputs(without=("x", "initial_state"))
    if layout == "expanded":
        x = x[:1].expand(2, -1, -1)
    elif layout == "by channels":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    else:
        width = 40 if layout == "part of wider rows" else 37
        x = torch.zeros(2, 9, width, dtype=x.dtype).index_copy(2, torch.arange(8, 24), x)[..., 8:24]
    run = lambda op: lambda w: op(x, **w, silu=True)[:1]  # noqa: E731
    same(
        outputs_and_gradients(run(causal_conv1d), rest, rest, 5),
        outputs_and_gradients(run(reference), rest, rest, 5),
        1e-12,
    )
    assert set(forced) == {"causal_conv1d"}


def test_one_token_after_a_state_too(forced):
    x = inputs(torch.bfloat16)
    x["x"] = x["x"][:, :1]
    y, after = causal_conv1d(**x, return_state=True)
    want, end = reference(**{name: t.double() for name, t in x.items()})
    same({"y": y, "state": after}, {"y": want, "state": end}, 4e-3)
    assert forced == ["causal_conv1d"]


def test_it_is_compiled_as_one_op(forced):
    x = inputs(torch.float32)
    call = lambda x: causal_conv1d(**x)[:1]  # noqa: E731
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    same(outputs_and_gradients(compiled, x, x, 2), outputs_and_gradients(call, x, x, 2), 1e-6)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weight": (16, 5)}, "no width above 4"),
        ({"x": (2, 9, 12), "weight": (12, 4)}, "no channels but multiples of 8"),
        ({"initial_state": (2, 3, 16)}, "no documents beside an initial state"),
    ],
)
def test_calls_that_it_cannot_serve_are_not_given_to_it(changes, why):
    shapes = {"x": (2, 9, 16), "weight": (16, 4)} | changes
    starts = torch.zeros(2, 9, dtype=torch.bool, device="meta")
    with backends.recording() as calls:
        causal_conv1d(**{name: torch.empty(s, device="meta") for name, s in shapes.items()}, starts=starts)
    asked = Request("causal_conv1d", "cuda", torch.bfloat16, calls[0].needs, 0, (9, 0))
    choice = backends.choose(
        asked, "auto", backends.ABILITIES["causal_conv1d"], backends.FEATURES["causal_conv1d"], {}, {}
    )
    assert choice.backend != "causal_conv1d"
    assert why in choice.against["causal_conv1d"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_package_itself_agrees_on_a_gpu(dtype):
    if backends.missing("causal_conv1d") is not None:
        pytest.skip(str(backends.missing("causal_conv1d")))
    for without, documents in (((), "none"), (("initial_state",), "some")):
        starts, x = draw_starts(documents, 2, 9, 4), inputs(dtype, without)
        double = {k: v.double() for k, v in x.items()}
        exact = outputs_and_gradients(lambda x: reference(**x, silu=True, starts=starts), double, x, 5)
        with backends.using("causal_conv1d"):
            call = lambda x: causal_conv1d(**x, silu=True, starts=starts, return_state=True)  # noqa: E731
            same(outputs_and_gradients(call, x, x, 5), exact, 1e-5 if dtype == torch.float32 else 2e-2)
