"""causal_conv1d: every path equals its definition, outputs, state and all gradients, whatever the shape, state and
documents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.causal_conv1d import causal_conv1d, causal_conv1d_step, reference
from lcprobe_kernels.packed import starts_of
from torch.nn import functional as F

from tests.kernels.judge import (
    DEVICE,
    DTYPES,
    GPU,
    PATHS,
    at_most_twice,
    draw_starts,
    outputs_and_gradients,
    relative_error,
    same,
    widened,
)

NAMES = ("x", "weight", "bias", "initial_state")
cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(
            st.integers(1, 2),
            st.sampled_from([1, 2, 3, 7, 15, 16, 17, 33]),
            st.sampled_from([1, 5, 64, 67]),
            st.integers(2, 4),
        ),  # (batch, seqlen, channels, width), on and off the blocks
        "seed": st.integers(0, 2**31 - 1),
        "with_state": st.booleans(),
        "with_bias": st.booleans(),
        "silu": st.booleans(),
        "documents": st.sampled_from(["none", "some", "one token each"]),
        "scale": st.sampled_from([1e-3, 1.0, 100.0]),
    }
)
CASE = {
    "shape": (2, 37, 5, 4),
    "seed": 3,
    "with_state": True,
    "with_bias": True,
    "silu": True,
    "documents": "some",
    "scale": 1.0,
}
STARTS = draw_starts("some", 2, 37, 3)
"""Where documents start in CASE."""


def draw_inputs(case, dtype=torch.float64):
    batch, seqlen, channels, width = case["shape"]
    gen = torch.Generator().manual_seed(case["seed"])
    sizes = [(batch, seqlen, channels), (channels, width), (channels,), (batch, width - 1, channels)]
    tensors = dict(zip(NAMES, (torch.randn(*s, generator=gen, dtype=torch.float64) for s in sizes), strict=True))
    tensors["x"] *= case["scale"]
    return {k: v.to(dtype).to(DEVICE) for k, v in tensors.items()}


def judged(op, case, inputs, **options):
    options = {"starts": draw_starts(case["documents"], *case["shape"][:2], case["seed"])} | options

    def run(i):
        return op(
            i["x"], i["weight"], i["bias"] if case["with_bias"] else None, silu=case["silu"],
            initial_state=i["initial_state"] if case["with_state"] else None, **options,
        )  # fmt: skip

    used = (
        {"x", "weight"}
        | ({"bias"} if case["with_bias"] else set())
        | ({"initial_state"} if case["with_state"] else set())
    )
    return outputs_and_gradients(run, inputs, used, case["seed"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(cases)
def test_shifted_products_in_float64_are_the_definition(case):
    inputs = draw_inputs(case)
    with backends.using("torch"):
        same(judged(causal_conv1d, case, inputs, return_state=True), judged(reference, case, inputs), 1e-11)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_the_definition(path, case, dtype):
    inputs = draw_inputs(case, dtype)
    exact = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    plain = judged(reference, case, widened(inputs))
    with backends.using(path):
        at_most_twice(judged(causal_conv1d, case, inputs, return_state=True), plain, exact)


@pytest.mark.parametrize("op", [reference, causal_conv1d])
def test_gradcheck(op):
    case, options = {**CASE, "shape": (2, 9, 3, 4)}, {} if op is reference else {"return_state": True}
    inputs, starts = draw_inputs(case), draw_starts("some", 2, 9, 3)
    assert starts is not None
    assert starts[:, 1:].any()

    def run(x, weight, bias, state):
        return op(x, weight, bias, silu=True, initial_state=state, starts=starts, **options)

    assert torch.autograd.gradcheck(run, [v.requires_grad_() for v in inputs.values()])


def test_pytorchs_depthwise_convolution_agrees():
    i = draw_inputs({**CASE, "documents": "none"})
    peer = F.conv1d(F.pad(i["x"].transpose(1, 2), (3, 0)), i["weight"][:, None], i["bias"], groups=5).transpose(1, 2)
    assert relative_error(causal_conv1d(i["x"], i["weight"], i["bias"])[0], peer) < 1e-12


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cut", [1, 2, 31, 36])
@pytest.mark.parametrize("documents", ["none", "some"])
def test_a_part_and_its_state_and_the_rest_are_the_whole(path, cut, documents):
    case = {**CASE, "documents": documents}
    i, starts = draw_inputs(case, torch.float32), draw_starts(case["documents"], *case["shape"][:2], case["seed"])
    part = lambda t, s: None if t is None else t[:, s]  # noqa: E731
    with backends.using(path):
        whole, end = causal_conv1d(i["x"], i["weight"], i["bias"], starts=starts, return_state=True)
        first, last = slice(0, cut), slice(cut, None)
        head, between = causal_conv1d(
            i["x"][:, first], i["weight"], i["bias"], starts=part(starts, first), return_state=True
        )
        tail, after = causal_conv1d(
            i["x"][:, last],
            i["weight"],
            i["bias"],
            initial_state=between,
            starts=part(starts, last),
            return_state=True,
        )
    assert relative_error(torch.cat([head, tail], 1), whole) < 1e-6
    assert torch.equal(after, end)


@pytest.mark.parametrize("path", PATHS)
def test_token_by_token_is_the_whole(path):
    i = draw_inputs({**CASE, "documents": "none"}, torch.float32)
    with backends.using(path):
        whole, end = causal_conv1d(
            i["x"], i["weight"], i["bias"], silu=True, initial_state=i["initial_state"], return_state=True
        )
        state, out = i["initial_state"], []
        for t in range(i["x"].shape[1]):
            y, state = causal_conv1d_step(i["x"][:, t], state, i["weight"], i["bias"], silu=True)
            out.append(y)
    assert relative_error(torch.stack(out, 1), whole) < 1e-6
    assert torch.equal(state, end)


@pytest.mark.parametrize("path", PATHS)
def test_packed_documents_are_the_documents_alone(path):
    i = draw_inputs({**CASE, "shape": (1, 40, 5, 4)}, torch.float32)
    ends = torch.tensor([0, 1, 2, 19, 33, 40])
    with backends.using(path):
        packed, _ = causal_conv1d(i["x"], i["weight"], i["bias"], silu=True, starts=starts_of(ends, 1, 40).to(DEVICE))
        for lo, hi in zip(ends[:-1], ends[1:], strict=True):
            alone = causal_conv1d(i["x"][:, lo:hi], i["weight"], i["bias"], silu=True)[0]
            assert relative_error(packed[:, lo:hi], alone) < 1e-6


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["x", "initial_state"])
def test_non_finite_in_is_non_finite_out(path, value, name):
    i = draw_inputs({**CASE, "documents": "none"}, torch.float32)
    i[name][0, 2, 1] = value
    with backends.using(path):
        y, _ = causal_conv1d(i["x"], i["weight"].abs(), i["bias"], initial_state=i["initial_state"])
    assert not torch.isfinite(y[0, 2 if name == "x" else 0, 1])
    assert torch.isfinite(y[1]).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_of_a_document_reaches_the_next_not_even_nan(path, value):
    case = {**CASE, "shape": (1, 37, 5, 4)}
    starts = starts_of(torch.tensor([0, 9, 14, 37]), 1, 37).to(DEVICE)

    def run(spoilt):
        inputs = draw_inputs(case, torch.float32)
        if spoilt:
            inputs["x"][:, 12] = value
        with backends.using(path):
            return judged(causal_conv1d, {**case, "with_state": False}, inputs, starts=starts, return_state=True)

    clean, spoilt = run(False), run(True)
    for name in ("out0", "dx"):
        for part in (slice(0, 9), slice(14, 37)):
            assert torch.equal(clean[name][:, part], spoilt[name][:, part]), name
    assert not torch.isfinite(spoilt["out0"][:, 12]).any()
    assert not torch.isfinite(spoilt["dweight"]).all()
    assert torch.equal(clean["out1"], spoilt["out1"])


@pytest.mark.parametrize("path", PATHS)
def test_slices_of_one_projection_are_read_where_they_lie(path):
    wide = torch.randn(2, 33, 70, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    x, weight = wide[..., 3:69], torch.randn(66, 4, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    with backends.using(path):
        assert torch.equal(causal_conv1d(x, weight)[0], causal_conv1d(x.contiguous(), weight)[0])


@pytest.mark.parametrize("path", PATHS)
def test_runs_repeat_to_the_bit(path):
    inputs = draw_inputs(CASE, torch.float32)
    with backends.using(path):
        one, two = (judged(causal_conv1d, CASE, inputs, return_state=True) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_registered_as_one_op():
    i = {k: v.requires_grad_() for k, v in draw_inputs(CASE, torch.float32).items()}
    for bias, state, starts, silu in (
        (i["bias"], i["initial_state"], STARTS, True),
        (None, None, None, False),
    ):
        arguments = (i["x"], i["weight"], bias, state, starts, silu, "torch")
        checked = torch.library.opcheck(torch.ops.lcprobe.causal_conv1d_fwd.default, arguments)
        assert set(checked.values()) == {"SUCCESS"}


def test_compiles_as_one_graph_and_autocast_leaves_dtypes_alone():
    case = {**CASE, "documents": "none"}
    inputs = draw_inputs(case, torch.float32)
    compiled = torch.compile(causal_conv1d, fullgraph=True, backend="aot_eager")
    same(
        judged(compiled, case, inputs, return_state=True),
        judged(causal_conv1d, case, inputs, return_state=True),
        1e-6,
    )
    narrow = draw_inputs(case, torch.bfloat16)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y, state = causal_conv1d(narrow["x"], inputs["weight"], return_state=True)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(y, causal_conv1d(narrow["x"], inputs["weight"])[0])


MUTATIONS = {
    "no bias": {"bias": None},
    "no SiLU": {"silu": False},
    "no state": {"initial_state": None},
    "no reset": {"starts": None},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(path, mutation):
    i, starts = draw_inputs(CASE, torch.float32), STARTS.clone()
    starts[:, :3] = False  # or nobody sees the state
    full = {"bias": i["bias"], "silu": True, "initial_state": i["initial_state"], "starts": starts}
    with backends.using(path):
        ours = causal_conv1d(i["x"], i["weight"], **full)[0]
    assert relative_error(ours, reference(i["x"], i["weight"], **full)[0]) < 2e-6
    assert relative_error(ours, reference(i["x"], i["weight"], **{**full, **MUTATIONS[mutation]})[0]) > 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device")
def test_offsets_past_two_to_the_31():
    x = torch.randn(3, 1 << 17, 6144, device=DEVICE, dtype=torch.bfloat16)  # 2.4e9 elements
    weight = torch.randn(6144, 4, device=DEVICE)
    y, _ = causal_conv1d(x, weight)
    alone, _ = causal_conv1d(x[2:, -64:], weight)
    assert torch.equal(y[2:, -60:], alone[:, -60:])
