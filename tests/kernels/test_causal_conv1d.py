"""causal_conv1d: every path equals its definition, outputs, state and all gradients, whatever the width, state and documents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError, backends
from lcprobe_kernels.causal_conv1d import causal_conv1d, causal_conv1d_step, reference
from lcprobe_kernels.packed import starts_of
from torch.nn import functional as F

from tests.kernels.judge import DEVICE, DTYPES, GPU, PATHS, at_most_twice, outputs_and_gradients, relative_error, same

NAMES = ("x", "weight", "bias", "initial_state")
cases = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "seqlen": st.sampled_from([1, 2, 3, 7, 15, 16, 17, 33]),  # on and off the sizes of tiles and segments
        "channels": st.sampled_from([1, 5, 16] if not GPU else [1, 5, 16, 300]),
        "width": st.integers(2, 4),
        "seed": st.integers(0, 2**31 - 1),
        "silu": st.booleans(),
        "with_bias": st.booleans(),
        "with_state": st.sampled_from(["none", "zero", "some"]),
        "documents": st.sampled_from(["none", "some", "one token each"]),
        "scale": st.sampled_from([1e-3, 1.0, 1e3]),
    }
)
ONE = {"batch": 2, "seqlen": 19, "channels": 5, "width": 4, "seed": 3, "silu": True, "with_bias": True, "with_state": "some", "documents": "some", "scale": 1.0}  # fmt: skip


def draw_inputs(case, dtype=torch.float64):
    gen = torch.Generator().manual_seed(case["seed"])

    def r(*size):
        return torch.randn(*size, generator=gen, dtype=torch.float64)

    batch, channels, width = case["batch"], case["channels"], case["width"]
    wide = torch.promote_types(dtype, torch.float32)
    x, state = r(batch, case["seqlen"], channels), r(batch, width - 1, channels) * (case["with_state"] != "zero")
    made = {"x": (x * case["scale"]).to(dtype), "weight": r(channels, width).to(wide), "bias": r(channels).to(wide)}
    return {k: v.to(DEVICE) for k, v in (made | {"initial_state": (state * case["scale"]).to(dtype)}).items()}


def draw_starts(case):
    size = (case["batch"], case["seqlen"])
    if case["documents"] == "none":
        return None
    if case["documents"] == "one token each":
        return torch.ones(size, dtype=torch.bool, device=DEVICE)
    return (torch.rand(size, generator=torch.Generator().manual_seed(case["seed"])) < 0.2).to(DEVICE)


def runner(op, case, **options):
    starts = draw_starts(case)

    def run(i):
        state = None if case["with_state"] == "none" else i["initial_state"]
        bias = i["bias"] if case["with_bias"] else None
        return op(i["x"], i["weight"], bias, silu=case["silu"], initial_state=state, starts=starts, **options)

    return run


def judged(op, case, inputs, **options):
    unused = (set() if case["with_bias"] else {"bias"}) | ({"initial_state"} if case["with_state"] == "none" else set())
    made = outputs_and_gradients(runner(op, case, **options), inputs, set(NAMES) - unused, case["seed"])
    zeros = {f"d{k}": torch.zeros_like(inputs[k]) for k in set(NAMES) - unused}  # where documents cut an input off
    return zeros | made


@settings(max_examples=80, deadline=None, derandomize=True)
@given(cases, st.integers(2, 7))
def test_the_shifted_form_in_float64_is_the_definition(case, width):
    case = case | {"width": width}
    inputs = draw_inputs(case)
    with backends.using("torch"):
        same(judged(causal_conv1d, case, inputs, return_state=True), judged(reference, case, inputs), 1e-12)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_the_definition(path, case, dtype):
    inputs = draw_inputs(case | {"scale": min(case["scale"], 10.0)} if dtype == torch.float16 else case, dtype)
    exact = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    plain = judged(
        lambda *a, **k: tuple(o.to(dtype) for o in reference(*a, **k)), case, {k: v.to(dtype) for k, v in inputs.items()}
    )
    with backends.using(path):
        ours = judged(causal_conv1d, case, inputs, return_state=True)
    assert ours["out0"].dtype == ours["out1"].dtype == ours["dx"].dtype == dtype
    at_most_twice(ours, plain, exact, dtype)


@pytest.mark.parametrize("op", [reference, causal_conv1d])
def test_gradcheck(op):
    case = ONE | {"seqlen": 9}
    inputs = draw_inputs(case)
    run = runner(op, case, **({"return_state": True} if op is causal_conv1d else {}))
    assert torch.autograd.gradcheck(
        lambda *a: tuple(run(dict(zip(NAMES, a, strict=True)))), [inputs[k].requires_grad_() for k in NAMES]
    )


def test_pytorchs_depthwise_convolution_agrees():
    i = draw_inputs(ONE)
    peer = F.conv1d(F.pad(i["x"].transpose(1, 2), (3, 0)), i["weight"][:, None], i["bias"], groups=5).transpose(1, 2)
    assert relative_error(causal_conv1d(i["x"], i["weight"], i["bias"])[0], peer) < 1e-14
    assert relative_error(causal_conv1d(i["x"], i["weight"], i["bias"], silu=True)[0], F.silu(peer)) < 1e-14


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cut", [1, 2, 15, 18])
@pytest.mark.parametrize("documents", ["none", "some"])
def test_first_part_then_rest_with_its_state_is_the_whole(path, cut, documents):
    case = ONE | {"documents": documents, "seed": cut}
    i, starts = draw_inputs(case, torch.float32), draw_starts(case)
    run = lambda part, state: causal_conv1d(  # noqa: E731
        i["x"][:, part], i["weight"], i["bias"], silu=True, initial_state=state,
        starts=None if starts is None else starts[:, part], return_state=True,
    )  # fmt: skip
    with backends.using(path):
        whole, end = run(slice(None), i["initial_state"])
        head, between = run(slice(0, cut), i["initial_state"])
        tail, last = run(slice(cut, None), between)
    assert relative_error(torch.cat([head, tail], dim=1), whole) < 1e-6
    assert torch.equal(last, end)


@pytest.mark.parametrize("path", PATHS)
def test_token_by_token_is_the_whole(path):
    i = draw_inputs(ONE, torch.float32)
    state, out = i["initial_state"], []
    with backends.using(path):
        whole, end = causal_conv1d(i["x"], i["weight"], i["bias"], silu=True, initial_state=state, return_state=True)
        for t in range(19):
            y, state = causal_conv1d_step(i["x"][:, t], state, i["weight"], i["bias"], silu=True)
            out.append(y)
    assert relative_error(torch.stack(out, 1), whole) < 1e-6
    assert torch.equal(state, end)


@pytest.mark.parametrize("path", PATHS)
def test_packed_documents_are_the_documents_alone_even_beside_nan(path):
    i = draw_inputs(ONE | {"batch": 1, "seqlen": 36}, torch.float32)
    ends = torch.tensor([0, 1, 2, 17, 20, 36])
    i["x"][:, 2:17] = float("nan")
    with backends.using(path):
        packed, _ = causal_conv1d(i["x"], i["weight"], i["bias"], starts=starts_of(ends, 1, 36).to(DEVICE))
        for lo, hi in zip(ends[:-1], ends[1:], strict=True):
            alone, _ = causal_conv1d(i["x"][:, lo:hi], i["weight"], i["bias"])
            assert relative_error(packed[:, lo:hi], alone) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_views_are_read_where_they_lie(path):
    wide = torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    weight = torch.randn(4, 10, generator=torch.Generator().manual_seed(1)).to(DEVICE).t()
    views = [wide[..., 7:17], wide[:, :, ::2][..., :10], wide.transpose(1, 2)[:, :10].transpose(1, 2)]
    with backends.using(path):
        for view in views:
            made, want = (causal_conv1d(v, weight, silu=True)[0] for v in (view, view.contiguous()))
            assert made.is_contiguous()
            assert relative_error(made, want) < 1e-6


def test_causal_to_the_bit():
    i = draw_inputs(ONE)
    before = causal_conv1d(i["x"], i["weight"], i["bias"])[0]
    i["x"][:, 11] += 1
    after = causal_conv1d(i["x"], i["weight"], i["bias"])[0]
    assert torch.equal(before[:, :11], after[:, :11])
    assert torch.equal(before[:, 15:], after[:, 15:])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_in_is_non_finite_out_and_no_further(path, value):
    case = ONE | {"documents": "none"}
    i = draw_inputs(case, torch.float32)
    i["weight"].abs_()  # or SiLU turns -inf into 0
    i["x"][0, 5, 2], i["initial_state"][1, 2, 3] = value, value
    with backends.using(path):
        y, _ = runner(causal_conv1d, case)(i)
    bad = torch.zeros(2, 19, 5, dtype=torch.bool)
    bad[0, 5:9, 2], bad[1, 0:3, 3] = True, True
    assert torch.equal(~torch.isfinite(y).cpu(), bad)


@pytest.mark.parametrize("path", PATHS)
def test_runs_repeat_to_the_bit(path):
    inputs = draw_inputs(ONE | {"seqlen": 40}, torch.float32)
    with backends.using(path):
        one, two = (judged(causal_conv1d, ONE | {"seqlen": 40}, inputs, return_state=True) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", [ONE, ONE | {"documents": "none", "with_state": "none", "with_bias": False, "silu": False}])
def test_registered_as_one_op(path, case):
    i, starts = draw_inputs(case, torch.float32), draw_starts(case)
    leaves = [i["x"].requires_grad_(), i["weight"].requires_grad_()]
    leaves += [i["bias"].requires_grad_(), i["initial_state"].requires_grad_()] if case["with_bias"] else [None, None]
    with backends.using(path):
        checked = torch.library.opcheck(torch.ops.lcprobe.causal_conv1d_fwd.default, (*leaves, starts, case["silu"]))
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.skipif(not GPU and __import__("shutil").which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("path", PATHS)
def test_compiles_as_one_graph(path):
    inputs = draw_inputs(ONE, torch.float32)
    with backends.using(path):
        want = judged(causal_conv1d, ONE, inputs, return_state=True)
        compiled = torch.compile(causal_conv1d, fullgraph=True, backend="aot_eager")
        same(judged(compiled, ONE, inputs, return_state=True), want, 1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_autocast_leaves_dtypes_alone(path):
    case = ONE | {"with_state": "none"}
    inputs = draw_inputs(case, torch.bfloat16)
    with backends.using(path):
        want = judged(causal_conv1d, case, inputs, return_state=True)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            got = judged(causal_conv1d, case, inputs, return_state=True)
    assert {k: v.dtype for k, v in got.items()} == {k: v.dtype for k, v in want.items()}
    assert (got["out0"].dtype, got["dweight"].dtype) == (torch.bfloat16, torch.float32)
    assert all(torch.equal(got[k], want[k]) for k in want)


MUTATIONS = {
    "no bias": lambda i, s: ({**i, "bias": i["bias"] * 0}, s),
    "no reset": lambda i, s: (i, None),
    "no state": lambda i, s: ({**i, "initial_state": i["initial_state"] * 0}, s),
    "taps turned round": lambda i, s: ({**i, "weight": i["weight"].flip(1)}, s),
    "one tap less": lambda i, s: ({**i, "weight": i["weight"] * torch.tensor([0, 1, 1, 1], device=DEVICE)}, s),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(path, mutation):
    """Were a term missing, the tests above would fail: the error would be far beyond what any of them allows."""
    i, starts = draw_inputs(ONE, torch.float32), draw_starts(ONE)
    starts[:, :2] = False  # or no state is seen
    wrong, without = MUTATIONS[mutation](i, starts)
    run = lambda op, i, s: op(i["x"], i["weight"], i["bias"], silu=True, initial_state=i["initial_state"], starts=s)[0]  # noqa: E731
    with backends.using(path):
        ours = run(causal_conv1d, i, starts)
    assert relative_error(ours, run(reference, i, starts)) < 2e-6
    assert relative_error(ours, run(reference, wrong, without)) > 1e-2


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"weight": lambda t: t[:3]}, "weight: given shape (3, 4); allowed: (5, width >= 2)"),
        ({"weight": lambda t: t[:, :1]}, "weight: given shape (5, 1); allowed: (5, width >= 2)"),
        ({"bias": lambda t: t[:3]}, "bias: given shape (3,); allowed: (5,)"),
        ({"bias": lambda t: t.long()}, "bias: given torch.int64; allowed: a floating dtype"),
        ({"initial_state": lambda t: t[:, :2]}, "initial_state: given shape (2, 2, 5); allowed: (2, 3, 5)"),
        ({"starts": lambda t: t.long()}, "starts: given torch.int64; allowed: torch.bool"),
        ({"starts": lambda t: t[:, 1:]}, "starts: given shape (2, 18); allowed: (2, 19)"),
        ({"x": lambda t: t[:, :0]}, "x: given torch.float64 of shape (2, 0, 5); allowed: floating (batch, seqlen >= 1, channels)"),
        ({"x": lambda t: t.long()}, "x: given torch.int64 of shape (2, 19, 5); allowed: floating (batch, seqlen >= 1, channels)"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_that_names_it(change, line):
    given_ = draw_inputs(ONE) | {"starts": draw_starts(ONE)}
    x, weight, bias, state, starts = (change.get(k, lambda t: t)(given_[k]) for k in (*NAMES, "starts"))
    with pytest.raises(ArgumentError) as caught:
        causal_conv1d(x, weight, bias, initial_state=state, starts=starts)
    assert str(caught.value) == f"causal_conv1d: {line}"


@pytest.mark.gpu
def test_offsets_past_two_to_the_31():
    x = torch.randn(3, 1 << 17, 6144, device=DEVICE, dtype=torch.bfloat16)  # 2.4e9 elements
    weight = torch.randn(6144, 4, device=DEVICE)
    x.requires_grad_()
    y, _ = causal_conv1d(x, weight, silu=True)
    end = x.detach()[2:, -64:].requires_grad_()
    alone, _ = causal_conv1d(end, weight, silu=True)
    assert torch.equal(y[2:, -60:], alone[:, -60:])
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    (part,) = torch.autograd.grad(alone, end, torch.ones_like(alone))
    assert relative_error(dx[2:, -60:], part[:, -60:]) < 2e-2
