"""linear_recurrence's adapter to flash-linear-attention's HGRN: with a stand-in that has the arguments of its two
functions (fla-core 0.6.0, ops/hgrn/fused_recurrent.py), computed as its kernels do, token by token in float32; and with
those kernels, in Triton's interpreter or on a GPU."""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.linear_recurrence import fla, linear_recurrence, reference

from tests.kernels.interpreted import without_a_gpu
from tests.kernels.judge import DEVICE, GPU, draw_starts, outputs_and_gradients, same
from tests.kernels.peer_signatures import as_published


def forward(x, g, initial_state=None, output_final_state=False):
    assert all(t.is_contiguous() for t in (x, g))
    h, out = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state, []
    for t in range(x.shape[1]):
        h = g[:, t].exp() * h + x[:, t]
        out.append(h)
    return torch.stack(out, 1), h.to(x.dtype) if output_final_state else None


def backward(g, o, do, dht=None, initial_state=None):
    assert all(t.is_contiguous() for t in (g, o, do))
    dh = torch.zeros_like(g[:, 0]) if dht is None else dht
    dx, dg = torch.empty_like(g), torch.empty_like(g)
    for t in reversed(range(g.shape[1])):
        dx[:, t] = dh = dh + do[:, t]
        dh = dh * g[:, t].exp()
        before = o[:, t - 1] if t else torch.zeros_like(dh) if initial_state is None else initial_state
        dg[:, t] = dh * before
    return dx, dg, None if initial_state is None else dh


@pytest.fixture
def forced(monkeypatch):
    monkeypatch.setattr(backends, "_chosen", "fla")
    monkeypatch.setattr(backends, "_decided_once", lambda *_: "fla")
    api = SimpleNamespace(
        fused_recurrent_hgrn_fwd=as_published("fused_recurrent_hgrn_fwd", forward),
        fused_recurrent_hgrn_bwd=as_published("fused_recurrent_hgrn_bwd", backward),
    )
    monkeypatch.setattr(fla, "_api", lambda: api)


def draw(dtype=torch.float32, with_state=True):
    g = torch.Generator().manual_seed(1)
    drawn = {"log_a": -torch.rand(2, 9, 5, generator=g), "b": torch.randn(2, 9, 5, generator=g)}
    if with_state:
        drawn["initial_state"] = torch.randn(2, 5, generator=g)
    return {name: t.to(DEVICE, dtype if name != "initial_state" else torch.float32) for name, t in drawn.items()}


@pytest.mark.parametrize("documents", ["none", "some"])
@pytest.mark.parametrize("with_state", [False, True])
def test_outputs_state_and_all_gradients_are_those_of_the_definition(documents, with_state, forced):
    starts, x = draw_starts(documents, 2, 9, 3), draw(with_state=with_state)
    want = outputs_and_gradients(lambda x: reference(**x, starts=starts), x, x, 2)
    got = outputs_and_gradients(lambda x: linear_recurrence(**x, starts=starts, return_state=True), x, x, 2)
    same(got, want, 2e-6)


def test_the_final_state_is_not_rounded_to_half_precision(forced):
    x = draw(torch.bfloat16)
    _, state = linear_recurrence(**x, return_state=True)
    _, want = reference(**{name: t.double() for name, t in x.items()})
    same({"state": state}, {"state": want}, 1e-6)


@pytest.mark.skipif(find_spec("fla") is None or find_spec("triton") is None, reason="needs fla-core and triton")
@pytest.mark.parametrize("with_state", [False, True])
def test_flas_own_kernels_agree(with_state, monkeypatch):
    if not GPU:
        without_a_gpu(monkeypatch)
    monkeypatch.setattr(backends, "_chosen", "fla")
    monkeypatch.setattr(backends, "_decided_once", lambda *_: "fla")
    starts, x = draw_starts("some", 2, 9, 3), draw(with_state=with_state)
    want = outputs_and_gradients(lambda x: reference(**x, starts=starts), x, x, 2)
    got = outputs_and_gradients(lambda x: linear_recurrence(**x, starts=starts, return_state=True), x, x, 2)
    same(got, want, 2e-6)
