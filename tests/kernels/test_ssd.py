"""ssd: every path equals the recurrence, outputs, state and all gradients, whatever the shape, state, decays and documents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.packed import starts_of
from lcprobe_kernels.ssd import reference, ssd, ssd_step

from tests.kernels.judge import DEVICE, DTYPES, GPU, PATHS, at_most_twice, outputs_and_gradients, relative_error, same

NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state")
SMALL = ("dt", "A", "D", "dt_bias", "initial_state")
"""Parameters and states stay float32 beside a narrow x."""
shapes = st.tuples(
    st.integers(1, 2),  # batch
    st.sampled_from([1, 2, 7, 16, 17, 33]),  # seqlen, on and off the chunk size
    st.sampled_from([(1, 1), (2, 1), (2, 2)] if not GPU else [(1, 1), (2, 1), (4, 2), (3, 3)]),  # (n_heads, n_groups)
    st.sampled_from([(3, 5), (4, 2), (1, 1), (5, 17)]),  # (head_dim, d_state)
)
cases = st.fixed_dictionaries(
    {
        "shape": shapes,
        "seed": st.integers(0, 2**31 - 1),
        "with_state": st.booleans(),
        "documents": st.sampled_from(["none", "some", "one token each"]),
        "limit": st.sampled_from([(0.0, float("inf")), (0.01, 0.5)]),
        "scale": st.sampled_from([0.1, 1.0, 10.0]),
        "plain": st.booleans(),  # without D and dt_bias
    }
)


def draw_inputs(shape, seed, dtype=torch.float64, scale=1.0):
    batch, seqlen, (h, g), (p, n) = shape
    gen = torch.Generator().manual_seed(seed)

    def r(*size):
        return torch.randn(*size, generator=gen, dtype=torch.float64)

    made = {
        "x": r(batch, seqlen, h, p) * scale,
        "dt": r(batch, seqlen, h) * scale,
        "A": -torch.rand(h, generator=gen, dtype=torch.float64) * 8 - 0.01,
        "B": r(batch, seqlen, g, n),
        "C": r(batch, seqlen, g, n),
        "D": r(h),
        "dt_bias": r(h),
        "initial_state": r(batch, h, p, n),
    }
    acc_dtype = torch.promote_types(dtype, torch.float32)
    return {k: v.to(acc_dtype if k in SMALL else dtype).to(DEVICE) for k, v in made.items()}


def draw_starts(documents, batch, seqlen, seed):
    if documents == "none":
        return None
    if documents == "one token each":
        return torch.ones(batch, seqlen, dtype=torch.bool, device=DEVICE)
    return (torch.rand(batch, seqlen, generator=torch.Generator().manual_seed(seed)) < 0.2).to(DEVICE)


def runner(op, case, **options):
    starts = draw_starts(case["documents"], case["shape"][0], case["shape"][1], case["seed"])

    def run(i):
        extra = {} if case["plain"] else {"D": i["D"], "dt_bias": i["dt_bias"]}
        state = i["initial_state"] if case["with_state"] else None
        five = [i[k] for k in ("x", "dt", "A", "B", "C")]
        return op(*five, **extra, dt_limit=case["limit"], initial_state=state, starts=starts, **options)

    return run


def judged(op, case, inputs, **options):
    unused = {"initial_state"} - ({"initial_state"} if case["with_state"] else set())
    unused |= {"D", "dt_bias"} if case["plain"] else set()
    return outputs_and_gradients(runner(op, case, **options), inputs, set(NAMES) - unused, case["seed"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(cases, st.sampled_from([1, 4, 16, None]))
def test_the_matrix_form_in_float64_is_the_recurrence(case, chunk):
    inputs = draw_inputs(case["shape"], case["seed"], scale=case["scale"])
    want = judged(reference, case, inputs)
    with backends.using("torch"):
        same(judged(ssd, case, inputs, chunk_size=chunk, return_state=True), want, 1e-9)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_the_recurrence(path, case, dtype):
    inputs = draw_inputs(case["shape"], case["seed"], dtype, case["scale"])
    exact = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    plain = judged(
        lambda *a, **k: tuple(o.to(dtype) for o in reference(*a, **k)),
        case,
        {k: v.to(dtype) for k, v in inputs.items()},
    )
    with backends.using(path):
        ours = judged(ssd, case, inputs, chunk_size=16, return_state=True)
    for name, value in ours.items():
        assert torch.isfinite(value).all() == torch.isfinite(exact[name]).all(), name
    with torch.no_grad():  # l = cumsum(dt A) is a float32 sum, whose rounding is an error of the exponent
        steps = torch.nn.functional.softplus(
            inputs["dt"] if case["plain"] else inputs["dt"] + inputs["dt_bias"]
        ).clamp(*case["limit"])
        largest = float((steps * inputs["A"]).sum(1).abs().max())
    products = torch.finfo(dtype).eps  # operands of products have x's dtype, also where the output stays float32
    at_most_twice(ours, plain, exact, slack=1e-7 * largest + products)


@pytest.mark.parametrize("path", PATHS)
def test_a_state_wider_than_one_program_holds(path):
    """The shapes of published models: Triton's walk over chunks takes d_state 128 in two parts."""
    inputs = draw_inputs((1, 141, (2, 1), (64, 128)), seed=11, dtype=torch.float32)
    case = {
        "shape": (1, 141),
        "seed": 12,
        "documents": "none",
        "with_state": True,
        "plain": False,
        "limit": (0.0, float("inf")),
    }
    inputs["A"] *= 0.02  # or the state is forgotten before the next chunk reads it
    want = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    with backends.using(path):
        same(judged(ssd, case, inputs, chunk_size=64, return_state=True), want, 1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_heads_that_lie_far_apart_are_read_where_they_are(path):
    """The third head begins 2^31 elements after the first; pages in between are never touched."""
    inputs = draw_inputs((1, 20, (3, 1), (4, 3)), seed=13, dtype=torch.float16)
    five = [inputs[k] for k in ("x", "dt", "A", "B", "C")]
    stride = 1 << 30
    far = torch.empty(2 * stride + 20 * 4, dtype=torch.float16, device=DEVICE).as_strided(
        (1, 20, 3, 4), (0, 4, stride, 1)
    )
    far.copy_(five[0])
    with backends.using(path):
        want, got = (ssd(x.requires_grad_(), *five[1:], chunk_size=16)[0] for x in (five[0], far))
        assert torch.equal(got, want)
        assert torch.equal(*(torch.autograd.grad(y, x, far.detach())[0] for y, x in ((got, far), (want, five[0]))))


@pytest.mark.parametrize("path", PATHS)
def test_tokens_that_lie_far_apart_are_read_where_they_are(path):
    """A chunk's last token begins 2^31 elements after its first."""
    inputs = draw_inputs((1, 129, (1, 1), (4, 3)), seed=13, dtype=torch.float16)
    five = [inputs[k] for k in ("x", "dt", "A", "B", "C")]
    stride = (1 << 24) + (1 << 18)
    far = torch.empty(129 * stride, dtype=torch.float16, device=DEVICE).as_strided((1, 129, 1, 4), (0, stride, 4, 1))
    far.copy_(five[0])
    with backends.using(path):
        assert torch.equal(ssd(far, *five[1:], chunk_size=128)[0], ssd(*five, chunk_size=128)[0])


@pytest.mark.parametrize("op", [reference, ssd])
def test_gradcheck(op):
    inputs = draw_inputs((2, 11, (2, 1), (2, 3)), seed=3)
    case = {
        "shape": (2, 11),
        "seed": 1,
        "documents": "some",
        "with_state": True,
        "plain": False,
        "limit": (0.0, float("inf")),
    }
    options = {"chunk_size": 4, "return_state": True} if op is ssd else {}
    run = runner(op, case, **options)
    assert torch.autograd.gradcheck(
        lambda *a: tuple(run(dict(zip(NAMES, a, strict=True)))), [inputs[k].requires_grad_() for k in NAMES]
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cut", [1, 8, 16, 29])
def test_a_half_and_its_state_and_the_other_half_are_the_whole(path, cut):
    inputs = draw_inputs((2, 30, (2, 1), (3, 4)), seed=cut, dtype=torch.float32)
    whole, state = _plain(path, inputs, slice(None), inputs["initial_state"])
    first, between = _plain(path, inputs, slice(0, cut), inputs["initial_state"])
    second, after = _plain(path, inputs, slice(cut, None), between)
    assert relative_error(torch.cat([first, second], 1), whole) < 2e-6
    assert relative_error(after, state) < 2e-6


@pytest.mark.parametrize("path", PATHS)
def test_packed_documents_are_the_documents_alone(path):
    inputs = draw_inputs((1, 36, (2, 1), (3, 4)), seed=5, dtype=torch.float32)
    ends = torch.tensor([0, 1, 2, 19, 20, 36])
    with backends.using(path):
        five = [inputs[k] for k in ("x", "dt", "A", "B", "C")]
        packed, _ = ssd(*five, starts=starts_of(ends, 1, 36).to(DEVICE), chunk_size=16)
        for lo, hi in zip(ends[:-1], ends[1:], strict=True):
            part = [t if t.dim() == 1 else t[:, lo:hi] for t in five]
            assert relative_error(packed[:, lo:hi], ssd(*part, chunk_size=16)[0]) < 2e-6


@pytest.mark.parametrize("path", PATHS)
def test_token_by_token_is_the_whole(path):
    inputs = draw_inputs((2, 9, (2, 1), (3, 4)), seed=6, dtype=torch.float32)
    whole, final = _plain(path, inputs, slice(None), inputs["initial_state"])
    state, out = inputs["initial_state"], []
    for t in range(9):
        y, state = ssd_step(
            *(inputs["x"][:, t], state, inputs["dt"][:, t], inputs["A"], inputs["B"][:, t], inputs["C"][:, t])
        )
        out.append(y)
    assert relative_error(torch.stack(out, 1), whole) < 2e-6
    assert relative_error(state, final) < 2e-6


@pytest.mark.parametrize("path", PATHS)
def test_slices_of_one_projection_are_read_where_they_lie(path):
    wide = torch.randn(2, 20, 2 * 4 + 2 * 3 + 2, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    x, B, C, dt = wide.split([8, 3, 3, 2], dim=-1)
    views = (x.unflatten(-1, (2, 4)), dt, -torch.ones(2, device=DEVICE), B[:, :, None], C[:, :, None])
    with backends.using(path):
        dense = ssd(*(v.contiguous() for v in views), chunk_size=16)[0]
        assert relative_error(ssd(*views, chunk_size=16)[0], dense) < 1e-6


def test_causal_to_the_bit():
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1)
    before = _plain("torch", inputs, slice(None), None)[0]
    for name in ("x", "dt", "B", "C"):
        inputs[name][:, 25] += 1
    assert torch.equal(_plain("torch", inputs, slice(None), None)[0][:, :25], before[:, :25])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["x", "dt", "B", "C", "initial_state", "A", "D"])
@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.bfloat16), (float("inf"), torch.float32)])
def test_non_finite_in_is_non_finite_out_from_its_token_to_its_documents_end(path, dtype, name, value):
    inputs = draw_inputs((2, 40, (4, 2), (4, 3)), seed=1, dtype=dtype)
    inputs["A"][:] = -1e-3
    starts = torch.zeros(2, 40, dtype=torch.bool, device=DEVICE)
    starts[:, [10, 24, 35]] = True  # two of them inside a chunk of 16
    whole = name in ("A", "D")
    at, end = {"initial_state": (0, 10)}.get(name, (0, 40) if whole else (12, 24))
    if whole:
        inputs[name][0] = value
    else:
        inputs[name][(0, 0) if name == "initial_state" else (0, at, 0)] = value
    heads = slice(0, 2) if name in ("B", "C") else slice(0, 1)
    if name == "C":
        end = at + 1

    def run(i):
        with backends.using(path):
            return ssd(
                *(i[k] for k in NAMES[:7]),
                initial_state=i["initial_state"],
                starts=starts,
                chunk_size=16,
                return_state=True,
            )

    want, want_state = run({k: v.nan_to_num(-0.5, -0.5) for k, v in inputs.items()})
    y, state = run(inputs)
    hit = torch.zeros(y.shape, dtype=torch.bool, device=DEVICE)
    hit[:, at:end, heads] = whole
    hit[0, at:end, heads] = True
    assert not torch.isfinite(y[hit]).any()
    assert torch.equal(y[~hit], want[~hit])
    lost = slice(0, 1) if name == "A" else slice(0, 0)
    assert not torch.isfinite(state[:, lost]).any()
    state[:, lost] = want_state[:, lost]
    assert torch.equal(state, want_state)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["x", "dt", "B", "initial_state"])
def test_a_state_that_is_not_finite_says_so_at_the_end(path, name):
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs[name].view(1, -1)[0, 0 if name == "initial_state" else inputs[name][0, :5].numel()] = float("nan")
    y, state = _plain(path, inputs, slice(None), inputs["initial_state"])
    assert not torch.isfinite(y[0, 6:, 0]).all(dim=-1).any()
    assert not torch.isfinite(state[0, 0]).all()


@pytest.mark.parametrize("path", PATHS)
def test_a_limit_lets_a_step_size_that_is_nan_through(path):
    """minimum and maximum of many languages would give the limit instead."""
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs["dt"][0, 20, 0] = float("nan")
    case = {
        "shape": (1, 40),
        "seed": 4,
        "documents": "none",
        "with_state": True,
        "plain": False,
        "limit": (0.01, 0.5),
    }
    with backends.using(path):
        made = judged(ssd, case, inputs, chunk_size=16, return_state=True)
    assert torch.isnan(made["out0"][0, 20:, 0]).all()
    assert torch.isnan(made["out1"][0, 0]).all()
    assert torch.isnan(made["ddt"][0, 20, 0])
    assert torch.isfinite(made["out0"][0, :, 1]).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["x", "dt", "B"])
def test_gradients_through_a_non_finite_token_are_no_finite_garbage(path, name):
    """Where the recurrence's gradient is not finite neither is ours; ours may be so in more places."""
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs[name][0, 20] = float("nan")
    case = {
        "shape": (1, 40),
        "seed": 4,
        "documents": "none",
        "with_state": True,
        "plain": False,
        "limit": (0.0, float("inf")),
    }
    want = judged(reference, case, inputs)
    with backends.using(path):
        got = judged(ssd, case, inputs, chunk_size=16, return_state=True)
    for key, value in want.items():
        assert torch.isfinite(value[torch.isfinite(got[key])]).all(), key


@pytest.mark.parametrize("path", PATHS)
def test_extreme_decays_stay_finite(path):
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=2, dtype=torch.float32)
    for dt in (-30.0, 30.0):
        inputs["dt"][:] = dt
        inputs["A"][:] = torch.tensor([-1e-6, -16.0])
        assert torch.isfinite(_plain(path, inputs, slice(None), None)[0]).all()


@pytest.mark.parametrize("path", PATHS)
def test_runs_repeat_to_the_bit(path):
    inputs = draw_inputs((2, 33, (4, 2), (3, 5)), seed=4, dtype=torch.float32)
    case = {
        "shape": (2, 33),
        "seed": 4,
        "documents": "some",
        "with_state": True,
        "plain": False,
        "limit": (0.0, float("inf")),
    }
    with backends.using(path):
        one, two = (judged(ssd, case, inputs, chunk_size=16, return_state=True) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_registered_as_one_op():
    inputs = draw_inputs((2, 19, (2, 1), (3, 4)), seed=7, dtype=torch.float32)
    arguments = [inputs[k].requires_grad_() for k in NAMES]
    checked = torch.library.opcheck(
        torch.ops.lcprobe.ssd_fwd.default, (*arguments, draw_starts("some", 2, 19, 0), 0.0, float("inf"), 8, True)
    )
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.skipif(
    not GPU and __import__("shutil").which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend):
    inputs = draw_inputs((2, 19, (2, 1), (3, 4)), seed=7, dtype=torch.float32)
    case = {
        "shape": (2, 19),
        "seed": 4,
        "documents": "some",
        "with_state": True,
        "plain": False,
        "limit": (0.0, float("inf")),
    }
    want = judged(ssd, case, inputs, return_state=True)
    compiled = torch.compile(ssd, fullgraph=True, backend=backend)
    same(judged(compiled, case, inputs, return_state=True), want, 1e-6)


def test_autocast_leaves_dtypes_alone():
    inputs = draw_inputs((1, 20, (2, 1), (3, 4)), seed=7, dtype=torch.bfloat16)
    five = [inputs[k] for k in ("x", "dt", "A", "B", "C")]
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y, state = ssd(*five, return_state=True)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, ssd(*five)[0])


MUTATIONS = {
    "no decay": lambda i, s: ({**i, "A": i["A"] * 0}, s),
    "no D": lambda i, s: ({**i, "D": i["D"] * 0}, s),
    "no bias": lambda i, s: ({**i, "dt_bias": i["dt_bias"] * 0}, s),
    "no reset": lambda i, s: (i, None),
    "no state": lambda i, s: ({**i, "initial_state": i["initial_state"] * 0}, s),
    "B and C exchanged": lambda i, s: ({**i, "B": i["C"], "C": i["B"]}, s),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(path, mutation):
    """Were a term missing, the tests above would fail: the error would be far beyond what any of them allows."""
    inputs, starts = draw_inputs((1, 24, (2, 1), (3, 4)), seed=8, dtype=torch.float32), draw_starts("some", 1, 24, 1)
    inputs["A"] *= 0.02  # or the decay hides what the state brings
    wrong, without = MUTATIONS[mutation](inputs, starts)
    run = lambda op, i, s, **k: op(*(i[n] for n in NAMES[:7]), initial_state=i["initial_state"], starts=s, **k)[0]  # noqa: E731
    with backends.using(path):
        ours = run(ssd, inputs, starts, chunk_size=16)
    assert relative_error(ours, run(reference, inputs, starts)) < 2e-6
    assert relative_error(ours, run(reference, wrong, without)) > 1e-2


@pytest.mark.parametrize("path", PATHS)
def test_the_step_size_counts_in_the_gradient_of_b(path):
    inputs = draw_inputs((1, 24, (1, 1), (3, 4)), seed=9, dtype=torch.float32)
    case = {
        "shape": (1, 24),
        "seed": 4,
        "documents": "none",
        "with_state": False,
        "plain": True,
        "limit": (0.0, float("inf")),
    }
    with backends.using(path):
        found = judged(ssd, case, inputs, chunk_size=16, return_state=True)["dB"]
    want = judged(reference, case, inputs)["dB"]
    steps = torch.nn.functional.softplus(inputs["dt"])[..., None]
    assert relative_error(found, want) < 5e-6
    assert relative_error(found, want / steps) > 1e-2


@pytest.mark.gpu
def test_offsets_past_two_to_the_31():
    x = torch.randn(3, 1 << 16, 128, 96, device=DEVICE, dtype=torch.bfloat16)  # 2.4e9 elements
    dt, B = (torch.randn(3, 1 << 16, k, device=DEVICE, dtype=torch.bfloat16) for k in (128, 16))
    A = -torch.ones(128, device=DEVICE)
    y, _ = ssd(x, dt, A, B[:, :, None], B[:, :, None])
    alone, _ = ssd(x[2:, -256:], dt[2:, -256:], A, B[2:, -256:, None], B[2:, -256:, None])
    assert relative_error(y[2:, -64:], alone[:, -64:]) < 2e-2


def _plain(path, inputs, part, state):
    with backends.using(path):
        sliced = [inputs[k][:, part] if inputs[k].dim() > 1 else inputs[k] for k in ("x", "dt", "A", "B", "C")]
        y, after = ssd(*sliced, initial_state=state, chunk_size=16, return_state=True)
    return y, after


@pytest.mark.parametrize("seqlen", [1, 2, 10, 64])
def test_a_nan_in_a_sequence_of_one_chunk_stays_behind_its_token(seqlen):
    inputs = draw_inputs((2, seqlen, (2, 1), (3, 5)), seed=3, dtype=torch.float32)
    inputs["x"][0, seqlen // 2, 0, 0] = float("nan")
    given = [inputs[n] for n in ("x", "dt", "A", "B", "C")]
    with backends.using("torch"):
        y, _ = ssd(*given)
    want, _ = reference(*given)
    assert torch.equal(y.isnan(), want.isnan())
    assert y.isnan().any()
