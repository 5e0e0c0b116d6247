"""gated_linear_attention: every form equal to its recurrence, outputs and all gradients, whatever shape, state,
documents and decay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.gated_linear_attention import cpu, gated_linear_attention_step, reference
from lcprobe_kernels.ssd import ssd
from torch.nn import functional as F

from tests.kernels.gated_linear_attention_cases import FORMS, draw_inputs, judged, ours
from tests.kernels.judge import DEVICE, DTYPES, at_most_twice, relative_error, same

DECAYS = ["weak", "middling", "mixed"]
shapes = st.tuples(
    st.integers(1, 2),  # batch
    st.integers(1, 37),  # seqlen, off the chunk size
    st.integers(1, 3),  # n_heads
    st.sampled_from([(3, 5), (4, 2), (1, 1), (2, 1)]),  # (d_k, d_v)
)
cases = {
    "form": st.sampled_from(FORMS),
    "shape": shapes,
    "decay": st.sampled_from(DECAYS),
    "per_head": st.booleans(),
    "with_state": st.booleans(),
    "documents": st.booleans(),
    "chunk": st.sampled_from([1, 4, 16, 64]),
    "seed": st.integers(0, 2**31 - 1),
}


@pytest.fixture(autouse=True)
def _torch_path():
    with backends.using("torch"):
        yield


@settings(max_examples=150, deadline=None, derandomize=True)
@given(**cases, small_segments=st.booleans())
def test_outputs_state_and_gradients_equal_the_recurrence(
    form, shape, decay, per_head, with_state, documents, chunk, seed, small_segments
):
    inputs, starts = draw_inputs(form, shape, seed, decay, per_head, with_state)
    starts = starts if documents else None
    with pytest.MonkeyPatch.context() as patch:
        if small_segments:
            patch.setattr(cpu, "CPU_ELEMENTS", 1)
        got = judged(ours(starts, chunk), inputs, seed)
    same(got, judged(lambda i: reference(**i, starts=starts), inputs, seed), 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(**cases)
def test_low_precision_is_at_most_twice_as_wrong_as_the_recurrence(
    dtype, form, shape, decay, per_head, with_state, documents, chunk, seed
):
    inputs, starts = draw_inputs(form, shape, seed, decay, per_head, with_state)
    rounded = {k: v.to(dtype) for k, v in inputs.items()}
    starts = starts if documents else None
    exact = judged(lambda i: reference(**i, starts=starts), {k: v.double() for k, v in rounded.items()}, seed)
    plain = judged(lambda i: reference(**i, starts=starts), rounded, seed)
    at_most_twice(judged(ours(starts, chunk), rounded, seed), plain, exact)


@pytest.mark.parametrize(
    ("form", "per_head"),
    [
        *((form, form in ("plain", "bonus")) for form in FORMS),
        *(pytest.param(form, form not in ("plain", "bonus"), marks=pytest.mark.slow) for form in FORMS),
    ],
)
def test_gradcheck(form, per_head):
    inputs, starts = draw_inputs(form, (1, 7, 2, (2, 3)), 3, per_head=per_head)
    starts[:, 4] = True
    leaves = [v.requires_grad_() for v in inputs.values()]
    for run in (ours(starts, 4), lambda i: reference(**i, starts=starts)):
        assert torch.autograd.gradcheck(lambda *a, run=run: run(dict(zip(inputs, a, strict=True))), leaves)


@pytest.mark.parametrize("form", FORMS)
def test_any_cut_carries_the_state_and_single_tokens_step_alike(form):
    inputs, _ = draw_inputs(form, (2, 23, 2, (3, 4)), 5)
    whole, final = ours(chunk=8)(inputs)
    along = {k: v for k, v in inputs.items() if k not in ("bonus", "initial_state")}
    rest = {k: v for k, v in inputs.items() if k == "bonus"}
    cuts = torch.randint(1, 23, (1,), generator=torch.Generator().manual_seed(1)).item()
    state, got = inputs["initial_state"], []
    for part in (slice(0, cuts), slice(cuts, 23)):
        o, state = ours(chunk=8)({k: v[:, part] for k, v in along.items()} | rest | {"initial_state": state})
        got.append(o)
    assert relative_error(torch.cat(got, 1), whole) < 1e-12
    assert relative_error(state, final) < 1e-12
    state, got = inputs["initial_state"], []
    for t in range(23):
        o, state = ours()({k: v[:, t : t + 1] for k, v in along.items()} | rest | {"initial_state": state})
        got.append(o)
    assert relative_error(torch.cat(got, 1), whole) < 1e-12
    state, got = inputs["initial_state"], []
    for t in range(23):
        o, state = gated_linear_attention_step(**{k: v[:, t] for k, v in along.items()}, **rest, state=state)
        got.append(o)
    assert relative_error(torch.stack(got, 1), whole) < 1e-12
    assert relative_error(state, final) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_documents_in_a_pack_equal_documents_alone(form):
    inputs, _ = draw_inputs(form, (1, 20, 2, (3, 4)), 6, with_state=False)
    lengths = [1, 7, 1, 11]
    starts = torch.zeros(1, 20, dtype=torch.bool, device=DEVICE)
    starts[0, [0, 1, 8, 9]] = True
    packed, final = ours(starts, 8)(inputs)
    alone, begin, state = [], 0, None
    for n in lengths:
        o, state = ours(chunk=8)({k: v if k == "bonus" else v[:, begin : begin + n] for k, v in inputs.items()})
        alone.append(o)
        begin += n
    assert relative_error(packed, torch.cat(alone, 1)) < 1e-12
    assert relative_error(final, state) < 1e-12


def test_half_precision_in_half_precision_out_and_the_state_in_float32():
    inputs, _ = draw_inputs("beta", (1, 9, 2, (4, 4)), 0)
    single = ("log_decay", "beta", "initial_state")  # parameters and states stay float32 beside bf16 activations
    mixed = {k: v.to(torch.float32 if k in single else torch.bfloat16) for k, v in inputs.items()}
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        o, state = ours()(mixed)
    exact, _ = ours()({k: v.float() for k, v in mixed.items()})
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(o, exact.bfloat16())  # autocast changed nothing inside


@pytest.mark.parametrize("form", FORMS)
def test_backward_under_autocast_is_the_same(form):
    inputs, _ = draw_inputs(form, (1, 9, 2, (4, 4)), 0)
    inputs = {name: x.float().requires_grad_() for name, x in inputs.items()}
    o, _ = ours()(inputs)
    outside = torch.autograd.grad(o.square().sum(), list(inputs.values()), retain_graph=True)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        inside = torch.autograd.grad(o.square().sum(), list(inputs.values()))
    assert all(map(torch.equal, outside, inside))


def test_scalar_decay_is_mamba2s_ssd():
    inputs, starts = draw_inputs("plain", (2, 40, 3, (4, 5)), 7, per_head=True, with_state=False)
    dt, A = inputs["log_decay"][..., 0] * 3 + 1, torch.tensor([-0.1, -1.0, -8.0], dtype=torch.float64, device=DEVICE)
    wide = F.softplus(dt)
    y, _ = ssd(inputs["v"], dt, A, inputs["k"], inputs["q"], starts=starts)
    changed = inputs | {"log_decay": (wide * A)[..., None], "v": inputs["v"] * wide[..., None]}
    assert relative_error(ours(starts, scale=1.0)(changed)[0], y) < 1e-12


def test_forgetting_everything_at_once_is_exact():
    inputs, starts = draw_inputs("plain", (1, 30, 2, (3, 4)), 8)
    reset = inputs["log_decay"].masked_fill(starts[..., None, None], float("-inf"))
    same(
        judged(ours(), inputs | {"log_decay": reset}, 1),
        judged(ours(starts), inputs | {"log_decay": reset}, 1),
        1e-12,
    )


@pytest.mark.parametrize("per_head", [False, True])
def test_weak_decay_after_strong_ones_keeps_its_precision(per_head):
    """Differences of running sums would lose it: 40 tokens of -80 leave a sum whose float32 step is 2e-4."""
    inputs, _ = draw_inputs("plain", (1, 64, 1, (4, 4)), 9, "weak", per_head, with_state=False)
    inputs["log_decay"][:, :40] = -80.0
    single = {k: v.float() for k, v in inputs.items()}
    assert relative_error(ours()(single)[0], reference(**{k: v.double() for k, v in single.items()})[0]) < 2e-6


@pytest.mark.parametrize(
    ("form", "name"),
    [(form, name) for form in FORMS for name in ("q", "k", "v", "log_decay", "initial_state")]
    + [("beta", "beta"), ("erase", "erase"), ("ab", "a"), ("ab", "b"), ("bonus", "bonus")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.skipif(DEVICE.type != "cpu", reason="promised on a CPU only")
def test_non_finite_in_is_non_finite_out_from_its_token_to_its_documents_end(form, name, value, monkeypatch):
    monkeypatch.setattr(cpu, "CPU_ELEMENTS", 1)  # a segment a chunk
    inputs, _ = draw_inputs(form, (2, 40, 2, (3, 4)), 1)
    starts = torch.zeros(2, 40, dtype=torch.bool)
    starts[:, [10, 24, 35]] = True
    # nothing to decay there, yet it is not dropped in silence
    first = name in ("log_decay", "erase", "a") and form != "bonus"
    at, end = {"initial_state": (0, 10), "q": (12, 13), "bonus": (0, 40)}.get(name, (10 if first else 12, 24))
    if name == "bonus":
        inputs[name][0] = value
    else:
        inputs[name][(0, 0) if name == "initial_state" else (0, at, 0)] = value
    want, want_state = ours(starts, 16)({k: v.nan_to_num(0.5, 0.5) for k, v in inputs.items()})
    o, state = ours(starts, 16)(inputs)
    hit = torch.zeros(2, 40, 2, dtype=torch.bool)
    hit[: 2 if name == "bonus" else 1, at:end, 0] = True
    if form == "bonus" and name == "log_decay":
        hit[0, at, 0] = False  # o_t reads the state before its decay
    assert not torch.isfinite(o[hit]).any()
    assert torch.equal(o[~hit], want[~hit])
    assert torch.equal(state, want_state)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.skipif(DEVICE.type != "cpu", reason="promised on a CPU only")
def test_a_decay_to_zero_in_some_channels_keeps_nan_in_the_others(form):
    inputs, _ = draw_inputs(form, (1, 24, 2, (3, 4)), 1)
    inputs["k"][0, 12, 0] = float("nan")
    inputs["log_decay"][0, 16, 0, 1] = float("-inf")
    o = ours(chunk=16)(inputs)[0]
    assert o[0, 13:, 0].isnan().all()
    assert o[0, :12].isfinite().all()
    assert o[0, :, 1].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_a_state_that_is_not_finite_says_so_at_the_end_and_in_gradients(form):
    """Where the recurrence's gradient is not finite neither is ours; ours may be so in more places."""
    for name in ("k", "log_decay"):
        inputs, _ = draw_inputs(form, (1, 40, 2, (3, 4)), 1)
        inputs[name][0, 20, 0] = float("nan")
        got = judged(ours(chunk=16), inputs, 1)
        assert not torch.isfinite(got["out1"][0, 0]).any()
        for key, value in judged(lambda i: reference(**i), inputs, 1).items():
            assert torch.isfinite(value[torch.isfinite(got[key])]).all(), key


def test_later_tokens_change_nothing_before_them():
    inputs, _ = draw_inputs("ab", (1, 40, 2, (3, 4)), 1)
    before = ours(chunk=16)(inputs)[0]
    for name in ("q", "k", "v", "a", "b"):
        inputs[name][:, 25] += 1
    inputs["log_decay"][:, 25] -= 1
    assert torch.equal(ours(chunk=16)(inputs)[0][:, :25], before[:, :25])


def test_strided_inputs_and_no_inputs_changed():
    inputs, starts = draw_inputs("ab", (2, 11, 3, (4, 2)), 2)
    turned = {k: v.transpose(1, 2).contiguous().transpose(1, 2) for k, v in inputs.items()}
    assert not turned["q"].is_contiguous()
    kept = {k: v.clone() for k, v in inputs.items()}
    same(judged(ours(starts, 4), turned, 1), judged(ours(starts, 4), inputs, 1), 1e-12)
    assert all(torch.equal(kept[k], v) for k, v in inputs.items())


MUTATIONS = {
    "decay": ("plain", lambda i: i | {"log_decay": i["log_decay"] * 0}),
    "bonus": ("bonus", lambda i: i | {"bonus": i["bonus"] * 0 + 1}),
    "bonus read before the update": ("bonus", lambda i: {k: v for k, v in i.items() if k != "bonus"}),
    "beta": ("beta", lambda i: i | {"beta": i["beta"] * 0 + 1}),
    "correction": (
        "beta",
        lambda i: {k: v for k, v in i.items() if k != "beta"} | {"v": i["v"] * i["beta"][..., None]},
    ),
    "erase": ("erase", lambda i: i | {"erase": i["erase"].mean(-1, keepdim=True).expand(i["q"].shape)}),
    "a and b": ("ab", lambda i: {k: v for k, v in i.items() if k not in ("a", "b")}),
    "a for b": ("ab", lambda i: i | {"a": i["b"], "b": i["a"]}),
    "initial state": ("plain", lambda i: i | {"initial_state": i["initial_state"] * 0}),
    "scale": ("plain", lambda i: i | {"scale": 1.0}),
}


@pytest.mark.parametrize("name", [*MUTATIONS, "boundary reset"])
def test_the_comparison_sees_every_term(name):
    form, change = MUTATIONS.get(name, ("ab", lambda i: i))
    inputs, starts = draw_inputs(form, (2, 20, 2, (3, 4)), 4)
    here = None if name == "boundary reset" else starts
    want = dict(zip("os", reference(**inputs, starts=starts), strict=True))
    same(dict(zip("os", ours(starts)(inputs), strict=True)), want, 1e-9)
    with pytest.raises(AssertionError):
        same(dict(zip("os", ours(here)(change(inputs)), strict=True)), want, 1e-2)


@pytest.mark.parametrize("name", ["_corners", "solve", "kept"])
def test_the_comparison_sees_every_step_of_the_matrix_form(name, monkeypatch):
    inputs, starts = draw_inputs("beta", (1, 20, 2, (3, 4)), 4)
    want = judged(lambda i: reference(**i, starts=starts), inputs, 0)
    same(judged(ours(starts, 8), inputs, 0), want, 1e-9)
    if name == "_corners":  # blocks are not joined
        real = cpu._corners
        monkeypatch.setattr(
            cpu, "_corners", lambda scores, s: real(scores, s) if s < 4 else torch.empty_like(real(scores, s)).zero_()
        )
    elif name == "solve":
        monkeypatch.setattr(torch.linalg, "solve_triangular", lambda A, B, **_: B.clone())
    else:
        real_halve = cpu._halve
        monkeypatch.setattr(cpu, "_halve", lambda *a: (torch.ones_like((halved := real_halve(*a))[0]), halved[1]))
    with pytest.raises(AssertionError):
        same(judged(ours(starts, 8), inputs, 0), want, 1e-2)


@pytest.mark.parametrize(
    "form", [form if form in ("bonus", "ab") else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
def test_opcheck(form):
    """All forms are one of two for the op: with a and b, or without; and with o from before the update, or after."""
    inputs, _ = draw_inputs(form, (1, 5, 2, (2, 3)), 0)
    w = inputs["log_decay"].exp()
    given = [inputs["q"], inputs["k"], inputs["v"], w, inputs.get("a"), inputs.get("b"), inputs["initial_state"]]
    given = [None if x is None else x.clone().requires_grad_() for x in given]
    torch.library.opcheck(torch.ops.lcprobe.gated_linear_attention_fwd.default, (*given, form != "bonus", 2))
    o = torch.randn_like(inputs["v"])
    entering = inputs["initial_state"][None]
    given = [None if x is None else x.detach() for x in given[:-1]]
    torch.library.opcheck(
        torch.ops.lcprobe.gated_linear_attention_bwd.default, (o, None, *given, entering, form != "bonus", 2)
    )


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_whole_forward_and_backward(backend):
    inputs, starts = draw_inputs("beta", (1, 9, 2, (2, 3)), 0)
    compiled = torch.compile(ours(starts, 4), fullgraph=True, backend=backend)
    same(judged(compiled, inputs, 1), judged(ours(starts, 4), inputs, 1), 1e-10)
