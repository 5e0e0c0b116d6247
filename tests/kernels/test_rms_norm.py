"""rms_norm: every path equals its definition with gate, groups, residual and zero-centred weight, outputs and
gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.rms_norm import add_rms_norm, reference, rms_norm
from torch.nn import functional as F

from tests.kernels.judge import (
    DEVICE,
    DTYPES,
    GPU,
    PATHS,
    at_most_twice,
    outputs_and_gradients,
    relative_error,
    same,
    widened,
)

EPS = 1e-5
cases = st.fixed_dictionaries(
    {
        "rows": st.sampled_from([1, 2, 9, 130]),
        "shape": st.sampled_from(
            [(6, 1), (6, 3), (2, 1), (64, 2), (67, 1)]
        ),  # (d, n_groups); with d = 1 dx is all cancellation
        "kind": st.sampled_from(["plain", "gate", "residual"]),
        "zero_centred": st.booleans(),
        "scale": st.sampled_from([1e-3, 1.0, 1e3]),
        "seed": st.integers(0, 2**31 - 1),
    }
)
CASE = {"rows": 9, "shape": (64, 2), "kind": "gate", "zero_centred": True, "scale": 1.0, "seed": 1}


def draw_inputs(case, dtype=torch.float64):
    gen = torch.Generator().manual_seed(case["seed"])
    d = case["shape"][0]
    tensors = {
        k: torch.randn(2, case["rows"], d, generator=gen, dtype=torch.float64) for k in ("x", "gate", "residual")
    }
    tensors["x"] *= case["scale"]
    tensors["weight"] = torch.randn(d, generator=gen, dtype=torch.float64)
    acc_dtype = torch.promote_types(dtype, torch.float32)
    return {k: v.to(acc_dtype if k in ("residual", "weight") else dtype).to(DEVICE) for k, v in tensors.items()}


def judged(op, case, inputs):
    """Outputs and gradients: y, and the sum where there is a residual."""
    options = {"n_groups": case["shape"][1], "zero_centred": case["zero_centred"]}

    def run(i):
        kind = case["kind"]
        if op is not rms_norm:
            extra = {} if kind == "plain" else {kind: i[kind]}
            return op(i["x"], i["weight"], EPS, **extra, **options)[: 2 if kind == "residual" else 1]
        if kind == "residual":
            return add_rms_norm(i["x"], i["residual"], i["weight"], EPS, **options)
        return [rms_norm(i["x"], i["weight"], EPS, gate=i["gate"] if kind == "gate" else None, **options)]

    return outputs_and_gradients(run, inputs, {"x", "weight"} | ({case["kind"]} - {"plain"}), case["seed"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(cases)
def test_the_plain_path_in_float64_is_the_definition(case):
    inputs = draw_inputs(case)
    with backends.using("torch"):
        same(judged(rms_norm, case, inputs), judged(reference, case, inputs), 1e-9)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_the_definition(path, case, dtype):
    inputs = draw_inputs(case, dtype)
    exact = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    plain = judged(reference, case, widened(inputs))
    with backends.using(path):
        at_most_twice(judged(rms_norm, case, inputs), plain, exact)


@pytest.mark.parametrize("kind", ["plain", "gate", "residual"])
@pytest.mark.parametrize("op", [reference, rms_norm])
def test_gradcheck(op, kind):
    inputs = draw_inputs({**CASE, "shape": (6, 2), "rows": 2})
    names = ["x", "weight"] + ([] if kind == "plain" else [kind])

    def run(*given):
        i = dict(zip(names, given, strict=True))
        if op is reference:
            return reference(i["x"], i["weight"], EPS, n_groups=2, gate=i.get("gate"), residual=i.get("residual"))[0]
        if kind == "residual":
            return add_rms_norm(i["x"], i["residual"], i["weight"], EPS, n_groups=2)
        return rms_norm(i["x"], i["weight"], EPS, n_groups=2, gate=i.get("gate"))

    assert torch.autograd.gradcheck(run, [inputs[k].requires_grad_() for k in names])


def test_peers_agree():
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

    i = {k: v.float() for k, v in draw_inputs({**CASE, "shape": (64, 1)}).items()}
    x, w = i["x"].double(), i["weight"].double()
    assert relative_error(rms_norm(x, w, EPS), F.rms_norm(x, (64,), w, EPS)) < 1e-12
    gated, gemma = MambaRMSNormGated(64, 64, EPS).to(DEVICE), GemmaRMSNorm(64, EPS).to(DEVICE)
    gated.weight.data, gemma.weight.data = i["weight"], i["weight"]
    assert (
        relative_error(rms_norm(i["x"], i["weight"], EPS, gate=i["gate"]), gated(i["x"], i["gate"]).detach()) < 1e-6
    )
    assert relative_error(rms_norm(i["x"], i["weight"], EPS, zero_centred=True), gemma(i["x"]).detach()) < 1e-6


def test_one_row_alone_is_the_row_in_a_batch():
    i = draw_inputs({**CASE, "rows": 1}, torch.float32)
    row, weight = i["x"][0, 0].clone().requires_grad_(), i["weight"].requires_grad_()
    y = rms_norm(row, weight, EPS)
    assert relative_error(y, rms_norm(i["x"], weight, EPS)[0, 0]) < 1e-6
    assert [g.shape for g in torch.autograd.grad(y.sum(), [row, weight])] == [row.shape, weight.shape]


@pytest.mark.parametrize("path", PATHS)
def test_the_sum_with_the_residual_stays_wide(path):
    i = draw_inputs(CASE, torch.bfloat16)
    with backends.using(path):
        y, total = add_rms_norm(i["x"], i["residual"], i["weight"], EPS)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(total, i["x"].float() + i["residual"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["plain", "gate", "residual"])
def test_non_finite_in_is_non_finite_out(path, value, kind):
    i = draw_inputs({**CASE, "kind": kind}, torch.float32)
    i["x" if kind == "plain" else kind][0, 3, 5] = value
    clean = draw_inputs({**CASE, "kind": kind}, torch.float32)
    with backends.using(path):
        results, want = (judged(rms_norm, {**CASE, "kind": kind}, inputs) for inputs in (i, clean))
    assert not torch.isfinite(results["out0"][0, 3, 5])
    assert not torch.isfinite(results["dx"][0, 3]).all()
    for name in want.keys() - {"dweight"}:  # every other row is as it was, to the bit
        others = torch.ones(results[name].shape[:-1], dtype=torch.bool)
        others[0, 3] = False
        assert torch.equal(results[name][others], want[name][others]), name


@pytest.mark.parametrize("path", PATHS)
def test_the_range_of_float32_is_what_the_docstring_says(path):
    """The length of a group, from edge to edge; beyond the upper one its square is infinite and y is 0."""
    unit = F.normalize(
        torch.randn(1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    ).to(DEVICE)
    weight = torch.ones(64, device=DEVICE)
    for length, eps in ((1.8e19, 0.0), (1.8e19, EPS), (1e-18, 0.0), (1e-30, EPS)):
        x = (unit * length).float().requires_grad_()
        exact = x.detach().double().requires_grad_()
        with backends.using(path):
            y = rms_norm(x, weight, eps)
        want, _ = reference(exact, weight.double(), eps)
        dy = torch.arange(64.0, device=DEVICE)[None]
        pairs = ((y, want), (torch.autograd.grad(y, x, dy)[0], torch.autograd.grad(want, exact, dy.double())[0]))
        assert all(relative_error(got, true) < 2e-6 for got, true in pairs), (length, eps)
    with backends.using(path):
        assert not rms_norm((unit * 1.9e19).float(), weight, EPS).any()


@pytest.mark.parametrize("path", PATHS)
def test_slices_of_one_projection_are_read_where_they_lie(path):
    wide = torch.randn(2, 9, 3 * 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    z, x, _ = wide.split(64, dim=-1)
    weight = torch.ones(64, device=DEVICE)
    with backends.using(path):
        dense = rms_norm(x.contiguous(), weight, EPS, gate=z.contiguous())
        assert torch.equal(rms_norm(x, weight, EPS, gate=z), dense)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["gate", "residual"])
def test_runs_repeat_to_the_bit(path, kind):
    case = {**CASE, "kind": kind, "rows": 130}
    inputs = draw_inputs(case, torch.float32)
    with backends.using(path):
        one, two = (judged(rms_norm, case, inputs) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_registered_as_one_op():
    i = {k: v.requires_grad_() for k, v in draw_inputs(CASE, torch.float32).items()}
    for residual, gate in ((None, None), (i["residual"], None), (None, i["gate"])):
        arguments = (i["x"], residual, i["weight"], gate, EPS, 2, True)
        assert set(torch.library.opcheck(torch.ops.lcprobe.rms_norm_fwd.default, arguments).values()) == {"SUCCESS"}


@pytest.mark.parametrize("kind", ["plain", "gate", "residual"])
def test_compiles_as_one_graph(kind):
    case, inputs = {**CASE, "kind": kind}, draw_inputs(CASE, torch.float32)
    want = judged(rms_norm, case, inputs)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x, weight, eps, *, gate=None, residual=None, n_groups=1, zero_centred=False):
        if residual is not None:
            return add_rms_norm(x, residual, weight, eps, n_groups=n_groups, zero_centred=zero_centred)
        return (rms_norm(x, weight, eps, gate=gate, n_groups=n_groups, zero_centred=zero_centred),)

    same(judged(compiled, case, inputs), want, 1e-6)


def test_autocast_leaves_dtypes_alone():
    i = draw_inputs(CASE, torch.bfloat16)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y = rms_norm(i["x"], i["weight"], EPS, gate=i["gate"])
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, rms_norm(i["x"], i["weight"], EPS, gate=i["gate"]))


MUTATIONS = {
    "no gate": ("gate", {"gate": None}),
    "no residual": ("residual", {"residual": None}),
    "one group": ("gate", {"n_groups": 1}),
    "weight not centred at zero": ("gate", {"zero_centred": False}),
    "no eps": ("plain", {"eps": 0.0}),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(path, mutation):
    kind, change = MUTATIONS[mutation]
    case = {**CASE, "kind": kind, "scale": 1e-3 if kind == "plain" else 1.0}
    i = draw_inputs(case, torch.float32)
    given = {"eps": EPS, "n_groups": 2, "zero_centred": True} | ({} if kind == "plain" else {kind: i[kind]})
    with backends.using(path):
        ours = judged(rms_norm, case, i)["out0"]
    assert relative_error(ours, reference(i["x"], i["weight"], **given)[0]) < 5e-6
    assert relative_error(ours, reference(i["x"], i["weight"], **{**given, **change})[0]) > 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device")
def test_offsets_past_two_to_the_31():
    x = torch.randn(1 << 20, 2304, device=DEVICE, dtype=torch.bfloat16)  # 2.4e9 elements
    weight = torch.randn(2304, device=DEVICE)
    assert torch.equal(rms_norm(x, weight, EPS)[-64:], rms_norm(x[-64:], weight, EPS))


@pytest.mark.skipif(backends.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("kind", ["gate", "residual"])
def test_strips_of_many_rows_add_up_to_the_gradient_of_the_weight(kind, monkeypatch):
    """A program that walks nine rows, four at a time: what a thousand strips do beyond a few thousand rows."""
    from lcprobe_kernels.rms_norm import triton_norm

    monkeypatch.setattr(triton_norm, "MOST_STRIPS", 2)
    case = CASE | {"rows": 9, "shape": (300, 1), "kind": kind}
    inputs = draw_inputs(case, torch.float32)
    want = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    with backends.using("triton"):
        same(judged(rms_norm, case, inputs), want, 2e-6)
