"""ssd: equal to its recurrence in float64, outputs and all gradients, whatever the shape, state and documents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError
from lcprobe_kernels.ssd import reference, ssd
from torch.nn import functional as F

shapes = st.tuples(
    st.integers(1, 3),  # batch
    st.integers(1, 70),  # seqlen, off the chunk size
    st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]),  # (n_heads, n_groups)
    st.sampled_from([(3, 5), (4, 2), (1, 1)]),  # (head_dim, d_state)
)


def draw_inputs(shape, seed, dtype=torch.float64, scale=1.0):
    batch, seqlen, (h, g), (p, n) = shape
    gen = torch.Generator().manual_seed(seed)

    def r(*size):
        return torch.randn(*size, generator=gen, dtype=torch.float64)

    made = {
        "x": r(batch, seqlen, h, p),
        "dt": r(batch, seqlen, h) * scale,
        "A": -torch.rand(h, generator=gen, dtype=torch.float64) * 8 - 0.01,
        "B": r(batch, seqlen, g, n),
        "C": r(batch, seqlen, g, n),
        "D": r(h),
        "dt_bias": r(h),
        "initial_state": r(batch, h, p, n),
    }
    starts = torch.rand(batch, seqlen, generator=gen) < 0.15
    return {k: v.to(dtype) for k, v in made.items()}, starts


def by_recurrence(i, starts, limit, with_state):
    dt = F.softplus(i["dt"] + i["dt_bias"]).clamp(*limit)
    y, state = reference(i["x"], dt, i["A"], i["B"], i["C"], i["initial_state"] if with_state else None, starts)
    return y + i["D"][:, None] * i["x"], state


def by_chunks(i, starts, limit, with_state, chunk_size):
    initial = i["initial_state"] if with_state else None
    return ssd(
        *(i[k] for k in ("x", "dt", "A", "B", "C", "D", "dt_bias")),
        dt_limit=limit,
        initial_state=initial,
        starts=starts,
        chunk_size=chunk_size,
        return_state=True,
    )


def grads(run, inputs, seed):
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    y, state = run(leaves)
    gen = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=gen, dtype=torch.float64).to(t.dtype) for t in (y, state)]
    total = (y * weights[0]).sum() + (state * weights[1]).sum()
    total.backward()
    made = {"y": y.detach(), "state": state.detach()}
    return made | {f"d{k}": v.grad for k, v in leaves.items() if v.grad is not None}


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    chunk=st.sampled_from([1, 4, 16, 64]),
    seed=st.integers(0, 2**31 - 1),
    with_state=st.booleans(),
    documents=st.booleans(),
    limit=st.sampled_from([(0.0, float("inf")), (0.01, 0.5)]),
    scale=st.sampled_from([1.0, 10.0]),
)
def test_outputs_state_and_gradients_equal_the_recurrence(shape, chunk, seed, with_state, documents, limit, scale):
    inputs, starts = draw_inputs(shape, seed, scale=scale)
    starts = starts if documents else None
    want = grads(lambda i: by_recurrence(i, starts, limit, with_state), inputs, seed)
    got = grads(lambda i: by_chunks(i, starts, limit, with_state, chunk), inputs, seed)
    assert want.keys() == got.keys()
    for name, value in want.items():
        bound = 1e-9 * (1 + value.abs().max())
        assert (got[name] - value).abs().max() <= bound, name


@settings(max_examples=20, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**31 - 1))
def test_float32_is_as_good_as_the_recurrence_in_float32(shape, seed):
    inputs, _ = draw_inputs(shape, seed)
    single = {k: v.float() for k, v in inputs.items()}
    exact = grads(lambda i: by_recurrence(i, None, (0.0, float("inf")), True), inputs, seed)
    plain = grads(lambda i: by_recurrence(i, None, (0.0, float("inf")), True), single, seed)
    ours = grads(lambda i: by_chunks(i, None, (0.0, float("inf")), True, 16), single, seed)
    for name, value in exact.items():
        # dA adds up every token, each a difference of sums over its chunk: some more units in the last place
        floor = (1e-5 if name == "dA" else 4e-6) * float(value.abs().max() + 1)
        assert float((ours[name] - value).abs().max()) <= 2 * float((plain[name] - value).abs().max()) + floor, name


def test_gradcheck():
    inputs, starts = draw_inputs((2, 11, (2, 1), (2, 3)), seed=3)
    names = ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state")
    leaves = [inputs[k].requires_grad_() for k in names]

    def run(*args):
        i = dict(zip(names, args, strict=True))
        return by_chunks(i, starts, (0.0, float("inf")), True, 4)

    assert torch.autograd.gradcheck(run, leaves)


def test_causal_to_the_bit():
    inputs, _ = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1)
    run = lambda i: by_chunks(i, None, (0.0, float("inf")), False, 16)[0]  # noqa: E731
    before = run(inputs)
    inputs["x"][:, 25] += 1
    inputs["dt"][:, 25] += 1
    assert torch.equal(run(inputs)[:, :25], before[:, :25])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_in_is_non_finite_out(value):
    inputs, _ = draw_inputs((1, 20, (2, 1), (4, 3)), seed=1)
    inputs["x"][0, 5, 0, 0] = value
    y, _ = by_chunks(inputs, None, (0.0, float("inf")), False, 8)
    assert not torch.isfinite(y[0, 5:, 0]).all(dim=-1).any()


def test_extreme_decays_stay_finite():
    inputs, _ = draw_inputs((1, 130, (2, 1), (4, 3)), seed=2, dtype=torch.float32)
    for dt in (-30.0, 30.0):
        inputs["dt"][:] = dt
        inputs["A"][:] = torch.tensor([-1e-6, -16.0])
        assert torch.isfinite(by_chunks(inputs, None, (0.0, float("inf")), True, 64)[0]).all()


def test_wrong_shape_is_one_line_that_names_the_argument():
    inputs, _ = draw_inputs((2, 8, (2, 1), (4, 3)), seed=0)
    with pytest.raises(ArgumentError) as caught:
        ssd(inputs["x"], inputs["dt"][:, :7], inputs["A"], inputs["B"], inputs["C"])
    assert str(caught.value) == "ssd: dt: given shape (2, 7, 2); allowed: (2, 8, 2)"
