"""linear_recurrence: every path equals the definition, outputs, state and all gradients, whatever the shape, decays
and documents."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.linear_recurrence import cpu, linear_recurrence, linear_recurrence_step, reference
from lcprobe_kernels.packed import starts_of

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

NAMES = ("log_a", "b", "initial_state")
cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(
            st.integers(1, 2), st.sampled_from([1, 2, 3, 7, 16, 17, 37]), st.sampled_from([1, 3, 4, 5, 9])
        ),
        "seed": st.integers(0, 2**31 - 1),
        "with_state": st.booleans(),
        "documents": st.sampled_from(["none", "some", "one token each"]),
        "decay": st.sampled_from(["mild", "none", "strong", "mixed"]),
        "scale": st.sampled_from([1e-3, 1.0, 1e3]),
    }
)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces():
    """Pieces so small that short sequences have many: segments and chunks on a CPU, tiles, channel blocks and parts
    in Triton."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "SEGMENT_ELEMENTS", 40)
        if backends.find_spec("triton") is not None:
            from lcprobe_kernels.linear_recurrence import triton_scan

            for name, value in {
                "TOKENS": 8,
                "CHANNELS": 8,
                "MIN_PART_TOKENS": 16,
                "MIN_PROGRAMS_PER_SM": 4,
                "TARGET_PROGRAMS_PER_SM": 8,
            }.items():
                patch.setattr(triton_scan, name, value)
        yield


def draw_inputs(shape, seed, dtype=torch.float64, scale=1.0, decay="mild"):
    gen = torch.Generator().manual_seed(seed)
    batch, _, d = shape
    log_a = -torch.rand(shape, generator=gen, dtype=torch.float64)
    extreme = torch.tensor([0.0, -50.0, -math.inf], dtype=torch.float64)
    log_a = {
        "mild": log_a,
        "none": log_a * 0,
        "strong": log_a * 50,
        "mixed": torch.where(log_a < -0.5, extreme[torch.randint(0, 3, shape, generator=gen)], log_a),
    }[decay]
    b = torch.randn(shape, generator=gen, dtype=torch.float64) * scale
    state = torch.randn(batch, d, generator=gen, dtype=torch.float64) * scale
    acc_dtype = torch.promote_types(dtype, torch.float32)
    return {"log_a": log_a.to(DEVICE, dtype), "b": b.to(DEVICE, dtype), "initial_state": state.to(DEVICE, acc_dtype)}


def judged(op, case, inputs, **options):
    options = {"starts": draw_starts(case["documents"], *case["shape"][:2], case["seed"])} | options

    def run(i):
        state = i["initial_state"] if case["with_state"] else None
        return op(i["log_a"], i["b"], initial_state=state, **options)

    wanted = set(NAMES) - (set() if case["with_state"] else {"initial_state"})
    return outputs_and_gradients(run, inputs, wanted, case["seed"])


def plain(path, inputs, part=slice(None), state=None, starts=None):
    with backends.using(path):
        return linear_recurrence(
            inputs["log_a"][:, part], inputs["b"][:, part], initial_state=state, starts=starts, return_state=True
        )


CASE = {"shape": (2, 37, 5), "seed": 4, "documents": "some", "with_state": True}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases)
def test_the_chunked_form_in_float64_is_the_recurrence(case):
    inputs = draw_inputs(case["shape"], case["seed"], scale=case["scale"], decay=case["decay"])
    with backends.using("torch"):
        same(judged(linear_recurrence, case, inputs, return_state=True), judged(reference, case, inputs), 1e-12)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(case=cases, dtype=st.sampled_from(DTYPES), wide_decay=st.booleans())
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_the_recurrence(path, case, dtype, wide_decay):
    scale = min(case["scale"], 10.0) if dtype == torch.float16 else case["scale"]
    inputs = draw_inputs(case["shape"], case["seed"], dtype, scale, case["decay"])
    if wide_decay:
        inputs["log_a"] = inputs["log_a"].float()
    exact = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    yardstick = judged(reference, case, widened(inputs))
    with backends.using(path):
        ours = judged(linear_recurrence, case, inputs, return_state=True)
    assert ours["out0"].dtype == ours["db"].dtype == dtype
    assert ours["out1"].dtype == torch.float32
    assert ours["dlog_a"].dtype == inputs["log_a"].dtype
    rounded = torch.finfo(dtype).eps if dtype != torch.float32 else 0.0  # dlog_a takes h as it went out, in b's dtype
    at_most_twice(ours, yardstick, exact, slack={"dlog_a": rounded})


@pytest.mark.parametrize("path", PATHS)
def test_many_parts_of_a_long_sequence(path):
    case = {**CASE, "shape": (1, 150, 3)}
    for documents in ("none", "some"):
        case["documents"] = documents
        inputs = draw_inputs(case["shape"], 3, torch.float32)
        inputs["log_a"] *= 0.02  # so that a state outlives many parts
        want = judged(reference, case, {k: v.double() for k, v in inputs.items()})
        with backends.using(path):
            same(judged(linear_recurrence, case, inputs, return_state=True), want, 3e-6)


@pytest.mark.parametrize("op", [reference, linear_recurrence])
def test_gradcheck(op):
    inputs = draw_inputs((2, 11, 3), seed=3)
    starts = draw_starts("some", 2, 11, 1)
    options = {"return_state": True} if op is linear_recurrence else {}
    assert torch.autograd.gradcheck(
        lambda log_a, b, state: op(log_a, b, initial_state=state, starts=starts, **options),
        [inputs[k].requires_grad_() for k in NAMES],
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cut", [1, 8, 16, 36])
def test_a_half_and_its_state_and_the_other_half_are_the_whole(path, cut):
    inputs = draw_inputs((2, 37, 5), seed=cut, dtype=torch.float32)
    whole, state = plain(path, inputs, state=inputs["initial_state"])
    first, between = plain(path, inputs, slice(0, cut), inputs["initial_state"])
    second, after = plain(path, inputs, slice(cut, None), between)
    assert relative_error(torch.cat([first, second], 1), whole) < 1e-6
    assert relative_error(after, state) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_packed_documents_are_the_documents_alone(path):
    inputs = draw_inputs((1, 37, 5), seed=5, dtype=torch.float32)
    ends = torch.tensor([0, 1, 2, 19, 20, 37])
    packed, _ = plain(path, inputs, starts=starts_of(ends, 1, 37).to(DEVICE))
    for lo, hi in zip(ends[:-1], ends[1:], strict=True):
        assert relative_error(packed[:, lo:hi], plain(path, inputs, slice(lo, hi))[0]) < 1e-6


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("lo", "at", "hi"), [(0, 6, 9), (9, 10, 14)])
def test_nothing_of_a_document_reaches_the_next_not_even_nan(path, value, lo, at, hi):
    starts = starts_of(torch.tensor([0, 9, 14, 37]), 1, 37).to(DEVICE)
    case = {**CASE, "shape": (1, 37, 5)}

    def run(spoilt):
        inputs = draw_inputs((1, 37, 5), seed=5, dtype=torch.float32)
        inputs["log_a"][:, [11, 15]] = -math.inf  # a product of decays that is exactly 0 is no reset
        if spoilt:
            inputs["b"][:, at] = value
            inputs["log_a"][:, hi] = math.nan  # of a first token, which is not looked at
        with backends.using(path):
            return judged(linear_recurrence, case, inputs, starts=starts, return_state=True)

    clean, spoilt = run(False), run(True)
    for name in ("out0", "dlog_a", "db"):
        for part in (slice(0, lo), slice(hi, 37)):
            assert torch.equal(clean[name][:, part], spoilt[name][:, part]), name
    assert not torch.isfinite(spoilt["out0"][:, at : min(hi, 11)]).any()
    assert torch.equal(clean["out1"], spoilt["out1"])
    assert torch.equal(clean["dinitial_state"], spoilt["dinitial_state"])


@pytest.mark.parametrize("path", PATHS)
def test_token_by_token_is_the_whole(path):
    inputs = draw_inputs((2, 9, 5), seed=6, dtype=torch.float32)
    whole, final = plain(path, inputs, state=inputs["initial_state"])
    state, out = inputs["initial_state"], []
    for t in range(9):
        h, state = linear_recurrence_step(inputs["log_a"][:, t], inputs["b"][:, t], state)
        out.append(h)
    assert relative_error(torch.stack(out, 1), whole) < 1e-6
    assert relative_error(state, final) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_slices_of_one_projection_are_read_where_they_lie(path):
    both = torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    log_a, b = both[..., :6].abs().neg(), both[..., 6:]
    with backends.using(path):
        dense = linear_recurrence(log_a, b.contiguous())[0]
        assert torch.equal(linear_recurrence(log_a, b)[0], dense)
        turned = b.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(linear_recurrence(log_a, turned)[0], dense)


@pytest.mark.parametrize("path", PATHS)
def test_causal_to_the_bit(path):
    inputs = draw_inputs((1, 40, 5), seed=1, dtype=torch.float32)
    before = plain(path, inputs)[0]
    inputs["b"][:, 25] += 1
    inputs["log_a"][:, 25] -= 1
    assert torch.equal(plain(path, inputs)[0][:, :25], before[:, :25])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_in_is_non_finite_out(path, name, value):
    inputs = draw_inputs((1, 40, 5), seed=1, dtype=torch.float32)
    at = 0 if name == "initial_state" else 5
    inputs[name].view(-1, 5)[at, 2] = value
    h, state = plain(path, inputs, state=inputs["initial_state"])
    assert not torch.isfinite(h[0, at:, 2]).any()
    assert not torch.isfinite(state[0, 2])
    assert torch.isfinite(h[0, :, 3]).all()


@pytest.mark.parametrize("path", PATHS)
def test_a_decay_of_zero_forgets_exactly(path):
    inputs = draw_inputs((1, 40, 5), seed=2, dtype=torch.float32, scale=1e30)
    inputs["log_a"][:, 20] = -math.inf
    h, _ = plain(path, inputs)
    assert torch.equal(h[:, 20], inputs["b"][:, 20])
    assert relative_error(h[:, 20:], plain(path, inputs, slice(20, None))[0]) < 1e-6
    assert torch.isfinite(h).all()


@pytest.mark.parametrize("path", PATHS)
def test_runs_repeat_to_the_bit(path):
    inputs = draw_inputs((2, 37, 5), seed=4, dtype=torch.float32)
    with backends.using(path):
        one, two = (judged(linear_recurrence, CASE, inputs, return_state=True) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_registered_as_one_op():
    inputs = draw_inputs((2, 19, 3), seed=7, dtype=torch.float32)
    arguments = [inputs[k].requires_grad_() for k in NAMES]
    for starts in (None, draw_starts("some", 2, 19, 0)):
        checked = torch.library.opcheck(torch.ops.lcprobe.linear_recurrence_fwd.default, (*arguments, starts, True))
        assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.skipif(
    not GPU and __import__("shutil").which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
def test_compiles_as_one_graph():
    inputs = draw_inputs((2, 37, 5), seed=7, dtype=torch.float32)
    want = judged(linear_recurrence, CASE, inputs, return_state=True)
    compiled = torch.compile(linear_recurrence, fullgraph=True, backend="aot_eager")
    same(judged(compiled, CASE, inputs, return_state=True), want, 1e-6)


def test_autocast_leaves_dtypes_alone():
    inputs = draw_inputs((1, 20, 3), seed=7, dtype=torch.bfloat16)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        h, state = linear_recurrence(inputs["log_a"], inputs["b"], return_state=True)
    assert (h.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(h, linear_recurrence(inputs["log_a"], inputs["b"])[0])


MUTATIONS = {
    "no decay": lambda i, s: ({**i, "log_a": i["log_a"] * 0}, s),
    "a decay late by one token": lambda i, s: ({**i, "log_a": i["log_a"].roll(1, 1)}, s),
    "no reset": lambda i, s: (i, None),
    "a reset late by one token": lambda i, s: (i, s.roll(1, 1)),
    "no state": lambda i, s: ({**i, "initial_state": i["initial_state"] * 0}, s),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(path, mutation):
    """Were a term missing, the tests above would fail: the error would be far beyond what any of them allows,
    gradients included."""
    inputs, starts = draw_inputs((1, 24, 5), seed=8, dtype=torch.float32), draw_starts("some", 1, 24, 1)
    starts[:, 0] = False
    wrong, without = MUTATIONS[mutation](inputs, starts)

    def run(op, i, s, **options):
        given = lambda v: op(v["log_a"], v["b"], initial_state=v["initial_state"], starts=s, **options)  # noqa: E731
        return outputs_and_gradients(given, i, NAMES, 3)

    with backends.using(path):
        ours = run(linear_recurrence, inputs, starts, return_state=True)
    same(ours, run(reference, inputs, starts), 2e-6)
    mutated = run(reference, wrong, without)
    assert relative_error(ours["out0"], mutated["out0"]) > 1e-2
    assert relative_error(ours["dlog_a"], mutated["dlog_a"]) > 1e-2


@pytest.mark.gpu
def test_offsets_past_two_to_the_31(monkeypatch):
    from lcprobe_kernels.linear_recurrence import triton_scan

    for name, value in {"TOKENS": 16, "CHANNELS": 128, "MIN_PART_TOKENS": 256, "MIN_PROGRAMS_PER_SM": 2}.items():
        monkeypatch.setattr(triton_scan, name, value)
    b = torch.randn(1, 1 << 20, 2560, device=DEVICE, dtype=torch.bfloat16)  # 2.7e9 elements in one row
    log_a = torch.full_like(b, -0.1)
    h, _ = linear_recurrence(log_a, b)
    assert relative_error(h[:, -64:], linear_recurrence(log_a[:, -512:], b[:, -512:])[0][:, -64:]) < 2e-2
