"""ssd: every path equals the recurrence, outputs, state and all gradients, whatever the shape, state, decays and
documents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.packed import starts_of
from lcprobe_kernels.ssd import reference, ssd, ssd_step
from lcprobe_kernels.ssd.tiles import chunk_that_fits, columns_that_fit, needs

from tests.kernels.judge import DEVICE, DTYPES, GPU, PATHS, at_most_twice, draw_starts, relative_error, same
from tests.kernels.ssd_cases import CASE, NAMES, draw_inputs, judged, run_path, runner

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


@settings(max_examples=80, deadline=None, derandomize=True)
@given(cases, st.sampled_from([1, 4, 16, None]))
def test_the_matrix_form_in_float64_is_the_recurrence(case, chunk):
    inputs = draw_inputs(case["shape"], case["seed"], scale=case["scale"])
    want = judged(reference, case, inputs)
    with backends.using("torch"):
        same(judged(ssd, case, inputs, chunk_size=chunk, return_state=True), want, 1e-9)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("state", [False, True])
def test_fixed_decays_change_no_other_gradient(path, state):
    """Where neither dt nor A nor dt_bias needs a gradient, theirs are not computed on a CPU."""
    inputs = {k: v.float().to(DEVICE) for k, v in draw_inputs((2, 40, (4, 2), (3, 5)), 7).items()}

    def gradients(names):
        leaves = {k: v.detach().clone().requires_grad_(k in names) for k, v in inputs.items()}
        with backends.using(path):
            initial = leaves["initial_state"] if state else None
            y, final = ssd(*(leaves[k] for k in NAMES[:7]), initial_state=initial, chunk_size=16, return_state=True)
        (y.square().sum() + final.square().sum()).backward()
        return {k: v.grad for k, v in leaves.items()}

    others = {"x", "B", "C", "D", *(["initial_state"] if state else [])}
    every, fixed = gradients(set(NAMES)), gradients(others)
    assert {k for k, v in fixed.items() if v is not None} == others
    assert all(torch.equal(fixed[k], every[k]) for k in others)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=12, deadline=None, derandomize=True)
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
    slack = dict.fromkeys(ours, 1e-7 * largest + products)
    # dA is a sum of differences that may cancel: of the share of every pair of tokens, times the steps between them
    terms = float((exact["dx"] * inputs["x"]).abs().sum() * steps.sum(1).max())
    slack["dA"] += torch.finfo(torch.float32).eps * terms / max(float(exact["dA"].abs().max()), 1e-30)
    at_most_twice(ours, plain, exact, slack)


@pytest.mark.parametrize("path", PATHS)
def test_a_state_wider_than_one_program_holds(path):
    """The shapes of published models: Triton's walk over chunks takes d_state 128 in two parts."""
    inputs = draw_inputs((1, 141, (2, 1), (64, 128)), seed=11, dtype=torch.float32)
    case = CASE | {"shape": (1, 141), "seed": 12}
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
    case = CASE | {"shape": (2, 11), "seed": 1, "documents": "some"}
    options = {"chunk_size": 4, "return_state": True} if op is ssd else {}
    run = runner(op, case, **options)
    assert torch.autograd.gradcheck(
        lambda *a: tuple(run(dict(zip(NAMES, a, strict=True)))), [inputs[k].requires_grad_() for k in NAMES]
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cut", [1, 8, 16, 29])
def test_a_half_and_its_state_and_the_other_half_are_the_whole(path, cut):
    inputs = draw_inputs((2, 30, (2, 1), (3, 4)), seed=cut, dtype=torch.float32)
    whole, state = run_path(path, inputs, slice(None), inputs["initial_state"])
    first, between = run_path(path, inputs, slice(0, cut), inputs["initial_state"])
    second, after = run_path(path, inputs, slice(cut, None), between)
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
    whole, final = run_path(path, inputs, slice(None), inputs["initial_state"])
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
    before = run_path("torch", inputs, slice(None), None)[0]
    for name in ("x", "dt", "B", "C"):
        inputs[name][:, 25] += 1
    assert torch.equal(run_path("torch", inputs, slice(None), None)[0][:, :25], before[:, :25])


@pytest.mark.parametrize("path", PATHS)
def test_runs_repeat_to_the_bit(path):
    inputs = draw_inputs((2, 33, (4, 2), (3, 5)), seed=4, dtype=torch.float32)
    case = CASE | {"shape": (2, 33), "seed": 4, "documents": "some"}
    with backends.using(path):
        one, two = (judged(ssd, case, inputs, chunk_size=16, return_state=True) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_registered_as_one_op():
    inputs = draw_inputs((2, 19, (2, 1), (3, 4)), seed=7, dtype=torch.float32)
    arguments = [inputs[k].requires_grad_() for k in NAMES]
    checked = torch.library.opcheck(
        torch.ops.lcprobe.ssd_fwd.default,
        (*arguments, draw_starts("some", 2, 19, 0), 0.0, float("inf"), 8, True, "torch"),
    )
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.skipif(
    not GPU and __import__("shutil").which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend):
    inputs = draw_inputs((2, 19, (2, 1), (3, 4)), seed=7, dtype=torch.float32)
    case = CASE | {"shape": (2, 19), "seed": 4, "documents": "some"}
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


def test_backward_under_autocast_is_the_same():
    inputs = draw_inputs((1, 20, (2, 1), (3, 4)), seed=7, dtype=torch.float32)
    five = [inputs[k].requires_grad_() for k in ("x", "dt", "A", "B", "C")]
    y, _ = ssd(*five)
    outside = torch.autograd.grad(y.square().sum(), five, retain_graph=True)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        inside = torch.autograd.grad(y.square().sum(), five)
    assert all(map(torch.equal, outside, inside))


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
    case = CASE | {"shape": (1, 24), "seed": 4, "with_state": False, "plain": True}
    with backends.using(path):
        got = judged(ssd, case, inputs, chunk_size=16, return_state=True)["dB"]
    want = judged(reference, case, inputs)["dB"]
    steps = torch.nn.functional.softplus(inputs["dt"])[..., None]
    assert relative_error(got, want) < 5e-6
    assert relative_error(got, want / steps) > 1e-2


@pytest.mark.skipif(backends.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("programs", [1, 4])
def test_a_program_that_sums_over_several_heads(programs, monkeypatch):
    """As at every real size: three heads in one program of dB and dC, or two and one, over two chunks."""
    from lcprobe_kernels.ssd import triton_bwd

    monkeypatch.setattr(triton_bwd, "MIN_PROGRAMS", programs)
    inputs = draw_inputs((1, 20, (3, 1), (3, 5)), seed=14, dtype=torch.float32)
    inputs["A"] *= 0.02
    case = CASE | {"shape": (1, 20), "seed": 4, "documents": "some"}
    want = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    with backends.using("triton"):
        same(judged(ssd, case, inputs, chunk_size=16, return_state=True), want, 1e-5)


@pytest.mark.skipif(backends.find_spec("triton") is None, reason="triton is not installed")
def test_a_chunk_whose_rows_are_taken_in_parts(monkeypatch):
    """As at every real size: dx and the scan walk over 32 tokens in two parts."""
    from lcprobe_kernels.ssd import triton_bwd, triton_fwd

    assert triton_bwd.ROWS_FLOAT32 < 32
    monkeypatch.setattr(triton_fwd, "TOKENS", 16)
    inputs = draw_inputs((1, 40, (2, 1), (3, 5)), seed=15, dtype=torch.float32)
    inputs["A"] *= 0.02
    case = CASE | {"shape": (1, 40), "seed": 4, "documents": "some"}
    want = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    with backends.using("triton"):
        same(judged(ssd, case, inputs, chunk_size=32, return_state=True), want, 1e-5)


@pytest.mark.skipif(backends.find_spec("triton") is None, reason="triton is not installed")
def test_bf16_products_with_a_state_keep_the_states_low_bits():
    """States of 1 + k / 1024, whose differences alone are read: rounded to bf16 they would all be 1."""
    generator, state = torch.Generator().manual_seed(0), (1, 1, 2, 2)  # head_dim 2, d_state 2
    near_one, dfinal = (1 + torch.randint(0, 64, state, generator=generator) / 1024 for _ in range(2))
    signs = torch.tensor([1.0, -1.0]).expand(1, 20, 1, 2)
    five = [signs, torch.full((1, 20, 1), -12.0), torch.zeros(1), signs, signs]  # steps of 6e-6: the state stays

    def results(op, dtype, wide, **options):
        x, dt, A, B, C = (
            t.to(DEVICE, d).requires_grad_() for t, d in zip(five, (dtype, wide, wide, dtype, dtype), strict=True)
        )
        initial = near_one.to(DEVICE, wide)
        y, final = op(x, dt, A, B, C, initial_state=initial, **options)
        read = torch.autograd.grad(y, [C, A], signs.to(y), retain_graph=True)
        written = torch.autograd.grad(final, [x, B], dfinal.to(final))
        return {"y": y.detach(), "dC": read[0], "dA": read[1], "dx": written[0], "dB": written[1]}

    with backends.using("triton"):
        ours = results(ssd, torch.bfloat16, torch.float32, chunk_size=16, return_state=True)
    for name, want in results(reference, torch.float64, torch.float64).items():
        assert relative_error(ours[name], want) < 2e-2, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [101_376, 166_912, 232_448])
def test_tiles_are_those_that_the_shared_memory_holds(dtype, limit):
    for head_dim, d_state in ((64, 128), (64, 256), (128, 128), (3, 5), (256, 256)):
        q = chunk_that_fits(256, limit, head_dim, dtype)
        n = columns_that_fit(q, limit, head_dim, d_state, dtype)
        assert needs(q, n, head_dim, dtype) <= limit
        assert 16 <= q <= (32 if dtype == torch.float32 else 128)
    if dtype != torch.float32:  # the published shapes: chunks of 128 on an A100 and an H100, of 64 on an RTX or L4
        for head_dim in (64, 128):
            assert chunk_that_fits(256, limit, head_dim, dtype) == (64 if limit < 110_000 else 128)
    assert chunk_that_fits(20, limit, 64, dtype) == 16


@pytest.mark.gpu
def test_offsets_past_two_to_the_31():
    x = torch.randn(3, 1 << 16, 128, 96, device=DEVICE, dtype=torch.bfloat16)  # 2.4e9 elements
    dt, B = (torch.randn(3, 1 << 16, k, device=DEVICE, dtype=torch.bfloat16) for k in (128, 16))
    A = -torch.ones(128, device=DEVICE)
    y, _ = ssd(x, dt, A, B[:, :, None], B[:, :, None])
    alone, _ = ssd(x[2:, -256:], dt[2:, -256:], A, B[2:, -256:, None], B[2:, -256:, None])
    assert relative_error(y[2:, -64:], alone[:, -64:]) < 2e-2
