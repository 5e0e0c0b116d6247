"""ssd's adapter to mamba-ssm: with a stand-in that has the arguments, shapes and checks of its two functions
(ops/triton/ssd_combined.py), computed by the definition; and with its own kernels in Triton's interpreter, where it is
installed, which needs no CUDA extension (MAMBA_SKIP_CUDA_BUILD=TRUE pip install --no-deps --no-build-isolation
mamba-ssm)."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels import ssd as ssd_module
from lcprobe_kernels.choosing import Request
from lcprobe_kernels.errors import ArgumentError
from lcprobe_kernels.ssd import mamba_ssm, reference, ssd

from tests.kernels.interpreted import without_a_gpu
from tests.kernels.judge import DEVICE, GPU, outputs_and_gradients, relative_error, same
from tests.kernels.peer_signatures import as_published

NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state")


def documents_of(seq_idx, initial):
    """Starts of documents. mamba-ssm gives the initial state to the document of the first token, whatever its
    number."""
    if seq_idx is None:
        return None
    assert seq_idx.dtype == torch.int32
    starts = torch.zeros(seq_idx.shape, dtype=torch.bool, device=seq_idx.device)
    starts[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    return starts


def forward(
    x, dt, A, B, C, chunk_size, D=None, dt_bias=None, initial_states=None, seq_idx=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")),
):  # fmt: skip
    batch, seqlen, nheads, headdim = x.shape
    assert dt.shape == (batch, seqlen, nheads)
    assert A.shape == (nheads,)
    assert B.shape == C.shape
    assert C.dtype == A.dtype, "the dtype of the states that chunks read"
    assert D is None or D.shape == (nheads,)
    assert dt_bias is not None
    assert chunk_size & (chunk_size - 1) == 0
    assert dt_softplus
    if initial_states is not None:
        assert initial_states.shape == (batch, nheads, headdim, B.shape[3])
    starts = documents_of(seq_idx, initial_states)
    y, state = reference(x, dt, A, B, C, D, dt_bias, dt_limit=dt_limit, initial_state=initial_states, starts=starts)
    return y.to(x.dtype), None, dt, dt, state, state


def backward(
    dout, x, dt, A, B, C, out, chunk_size, D=None, dt_bias=None, initial_states=None, dfinal_states=None,
    seq_idx=None, dt_softplus=False, dt_limit=(0.0, float("inf")),
):  # fmt: skip
    assert out.shape == x.shape
    given = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "dt_bias": dt_bias, "initial_states": initial_states}
    leaves = {k: None if t is None else t.detach().requires_grad_() for k, t in given.items()}

    def differentiate():
        y, *_, state = forward(**leaves, chunk_size=chunk_size, seq_idx=seq_idx, dt_softplus=True, dt_limit=dt_limit)
        total = (y * dout).sum() + (0 if dfinal_states is None else (state * dfinal_states).sum())
        total.backward()

    with ThreadPoolExecutor(1) as elsewhere:  # inside a registered op nothing is recorded; another thread is outside
        elsewhere.submit(differentiate).result()
    grads = {k: None if t is None else t.grad for k, t in leaves.items()}
    return tuple(grads[k] for k in ("x", "dt", "A", "B", "C", "D")) + (
        None,
        grads["dt_bias"],
        grads["initial_states"],
    )


@pytest.fixture
def forced(monkeypatch):
    def decided(name, device, index, dtype, needs, head_dim, chosen):
        request = Request(name, "cuda", torch.bfloat16, frozenset(needs), head_dim, (9, 0))
        return backends.choice_for(request, chosen, gpu=True).backend

    monkeypatch.setattr(backends, "_chosen", "mamba_ssm")
    monkeypatch.setattr(backends, "_decided_once", decided)
    monkeypatch.setattr(backends, "unusable", lambda name, try_import=False: None)
    api = SimpleNamespace(
        _mamba_chunk_scan_combined_fwd=as_published("_mamba_chunk_scan_combined_fwd", forward),
        _mamba_chunk_scan_combined_bwd=as_published("_mamba_chunk_scan_combined_bwd", backward),
    )
    monkeypatch.setattr(mamba_ssm, "_api", lambda: api)


def inputs(without=()):
    g = torch.Generator().manual_seed(2)
    shapes = [(2, 11, 4, 3), (2, 11, 4), (4,), (2, 11, 2, 5), (2, 11, 2, 5), (4,), (4,), (2, 4, 3, 5)]
    x = {n: torch.randn(*s, generator=g, dtype=torch.float64).to(DEVICE) for n, s in zip(NAMES, shapes, strict=True)}
    x["A"] = -x["A"].abs() - 0.1
    return {name: t for name, t in x.items() if name not in without}


def run(op, starts, **options):
    return lambda x: op(**x, dt_limit=(0.01, 2.0), starts=starts, **options)


@pytest.mark.parametrize("documents", ["none", "inside", "from the first token"])
@pytest.mark.parametrize("without", [(), ("initial_state",), ("D", "dt_bias", "initial_state")])
def test_outputs_state_and_all_gradients_are_those_of_the_definition(documents, without, forced):
    starts = None
    if documents != "none":
        starts = torch.zeros(2, 11, dtype=torch.bool, device=DEVICE)
        starts[0, 4] = starts[1, 7] = True
        starts[1, 0] = documents == "from the first token"
    x = inputs(without)
    want = outputs_and_gradients(run(reference, starts), x, x, 5)
    same(outputs_and_gradients(run(ssd, starts, return_state=True), x, x, 5), want, 1e-10)


def test_without_a_final_state_it_is_compiled_as_one_op(forced):
    x = inputs(("initial_state",))
    x = {name: t.float() for name, t in x.items()}
    call = lambda x: ssd(**x)[:1]  # noqa: E731
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    same(outputs_and_gradients(compiled, x, x, 2), outputs_and_gradients(call, x, x, 2), 1e-6)


@pytest.mark.parametrize(("found", "refused"), [((2, 2, 4), True), ((2, 3, 2), False)])
def test_deterministic_gradients_need_a_version_that_has_them(found, refused, forced, monkeypatch):
    monkeypatch.setattr(backends, "versions", lambda: {"mamba_ssm": found})
    x = {name: t.requires_grad_() for name, t in inputs().items()}
    torch.use_deterministic_algorithms(True)
    try:
        if refused:
            with pytest.raises(
                ArgumentError, match="mamba_ssm for ssd: no deterministic gradients before 2.3.2; allowed"
            ):
                ssd(**x)
        else:
            ssd(**x)[0].sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_auto_takes_it_in_half_precision_where_offsets_have_32_bits():
    words = {
        "bf16": ((2, 64, 4, 8), torch.bfloat16, "mamba_ssm", ""),
        "fp32": ((2, 64, 4, 8), torch.float32, "triton", "by name only: its products have the ten bits of TF32"),
        "long": ((1 << 16, 4096, 4, 2), torch.bfloat16, "triton", "no inputs of 2^31 numbers"),
    }
    for shape, dtype, taken, why in words.values():
        x = torch.empty(shape, dtype=dtype, device="meta")
        with backends.recording() as calls:
            ssd(x, x[..., 0], torch.empty(4, device="meta"), x[:, :, :1], x[:, :, :1])
        asked = Request("ssd", "cuda", dtype, calls[0].needs, 0, (9, 0))
        choice = backends.choose(asked, "auto", backends.ABILITIES["ssd"], backends.FEATURES["ssd"], {}, {})
        assert choice.backend == taken
        assert choice.against.get("mamba_ssm", "") == why


@pytest.mark.skipif(GPU or find_spec("mamba_ssm") is None, reason="needs mamba-ssm, and no GPU")
@pytest.mark.parametrize("documents", [False, True])
def test_its_own_kernels_are_as_exact_in_half_precision_as_ours(documents, monkeypatch):
    """In float16, whose products the interpreter has right: at most twice the error of our kernels, and of rounding y
    alone where a chunk reads little but the state."""
    without_a_gpu(monkeypatch)
    monkeypatch.setattr("lcprobe_kernels.ssd.MAMBA_SSM_CHUNK_SIZE", 64)
    g = torch.Generator().manual_seed(0)
    shapes = [(1, 200, 2, 32), (1, 200, 2), (2,), (1, 200, 1, 32), (1, 200, 1, 32), (2,), (2,), (1, 2, 32, 32)]
    x = {n: torch.randn(*s, generator=g) for n, s in zip(NAMES, shapes, strict=True)}
    x["dt"], x["A"] = x["dt"] - 4, -x["A"].abs() * 0.1 - 0.01
    x |= {n: x[n].half() for n in ("x", "B", "C")}
    starts = None
    if documents:
        starts = torch.zeros(1, 200, dtype=torch.bool)
        starts[0, 75] = True

    def call(path):
        settings = (starts, 0.0, float("inf"), 0, True, path)
        return lambda x: ssd_module._differentiable(*(x[n] for n in NAMES), *settings)[:2]

    exact = outputs_and_gradients(
        lambda x: reference(**x, starts=starts), {n: t.double() for n, t in x.items()}, x, 5
    )
    got, ours = (outputs_and_gradients(call(path), x, x, 5) for path in ("mamba_ssm", "triton"))
    for name, value in exact.items():
        assert relative_error(got[name], value) < 2 * relative_error(ours[name], value) + 2e-4, name
    norm = lambda y: float((y.double() - exact["out0"]).norm() / exact["out0"].norm())  # noqa: E731
    assert norm(got["out0"]) < 1.2 * norm(exact["out0"].half()), "states that chunks read are rounded"
