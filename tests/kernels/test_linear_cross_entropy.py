"""linear_cross_entropy: the loss and gradients of materialised logits, on every path, without materialising them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.linear_cross_entropy import cpu, linear_cross_entropy, reference
from lcprobe_kernels.linear_cross_entropy.reference import of_logits
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.judge import DEVICE, DTYPES, GPU, PATHS, at_most_twice, outputs_and_gradients, relative_error, same

NAMES = ("hidden", "weight")
PLAIN = {"z_loss": 0.0, "soft_cap": None}
cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(
            st.sampled_from([1, 2, 5, 8, 11]), st.sampled_from([2, 3, 15, 16, 17, 40]), st.sampled_from([1, 3, 8])
        ),
        "seed": st.integers(0, 2**31 - 1),
        "ignored": st.sampled_from(["none", "some", "all"]),
        "weights": st.booleans(),
        "scale": st.sampled_from([0.1, 1.0, 30.0]),
        "z_loss": st.sampled_from([0.0, 1e-2]),
        "soft_cap": st.sampled_from([None, 5.0, 30.0]),
    }
)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces():
    """Pieces so small that a few rows are many chunks, and a row of the kernel has several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "CHUNK_ROWS", 3)
        if backends.find_spec("triton") is not None:
            from lcprobe_kernels.linear_cross_entropy import triton_loss

            patch.setattr(triton_loss, "CHUNK_BYTES", 400)
            patch.setattr(triton_loss, "VOCAB_BLOCK", 16)
        yield


def draw_inputs(shape, seed, dtype=torch.float64, scale=1.0):
    n, vocab, d = shape
    gen = torch.Generator().manual_seed(seed)
    tensors = {
        "hidden": torch.randn(n, d, generator=gen, dtype=torch.float64) * scale,
        "weight": torch.randn(vocab, d, generator=gen, dtype=torch.float64),
    }
    return {k: v.to(DEVICE, dtype) for k, v in tensors.items()}


def draw_targets(case):
    n, vocab, _ = case["shape"]
    gen = torch.Generator().manual_seed(case["seed"] + 1)
    targets = torch.randint(0, vocab, (n,), generator=gen)
    share = {"none": 0.0, "some": 0.4, "all": 1.0}[case["ignored"]]
    targets[torch.rand(n, generator=gen) < share] = -100
    weights = torch.rand(n, generator=gen, dtype=torch.float64) + 0.1 if case["weights"] else None
    return targets.to(DEVICE), None if weights is None else weights.to(DEVICE)


def float_softmax(hidden, weight, targets, weights, **options):
    """The yardstick: products in hidden's dtype, as any head of that dtype makes them, and everything after them in
    float32."""
    return of_logits((hidden @ weight.to(hidden.dtype).T).float(), targets, weights, ignore_index=-100, **options)


def judged(op, case, inputs):
    targets, weights = draw_targets(case)

    def run(i):
        w = None if weights is None else weights.to(torch.promote_types(i["hidden"].dtype, torch.float32))
        total, rows = op(i["hidden"], i["weight"], targets, w, z_loss=case["z_loss"], soft_cap=case["soft_cap"])
        return total * 3, rows  # a gradient from above is passed on

    return outputs_and_gradients(run, inputs, NAMES, case["seed"])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases)
def test_the_chunked_form_in_float64_is_that_of_all_logits(case):
    inputs = draw_inputs(case["shape"], case["seed"], scale=case["scale"])
    with backends.using("torch"):
        same(judged(linear_cross_entropy, case, inputs), judged(reference, case, inputs), 1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases)
def test_the_reference_is_plain_cross_entropy(case):
    inputs, (targets, weights) = draw_inputs(case["shape"], case["seed"], scale=case["scale"]), draw_targets(case)
    want = F.cross_entropy(inputs["hidden"] @ inputs["weight"].T, targets, reduction="none")
    total, rows = reference(**inputs, targets=targets, weights=weights)
    assert relative_error(rows, want) < 1e-12
    assert torch.allclose(total, (want if weights is None else want * weights).sum(), rtol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=45, deadline=None, derandomize=True)
@given(case=cases, dtype=st.sampled_from(DTYPES), wide_weight=st.booleans())
def test_a_narrow_dtype_costs_at_most_twice_what_it_costs_all_logits(path, case, dtype, wide_weight):
    inputs = draw_inputs(case["shape"], case["seed"], dtype, case["scale"])
    if wide_weight:  # as under autocast: rounded where it is multiplied, its gradient float32
        inputs["weight"] = inputs["weight"].float()
    exact = judged(reference, case, {k: v.double() for k, v in inputs.items()})
    plain = judged(float_softmax, case, inputs)
    with backends.using(path):
        ours = judged(linear_cross_entropy, case, inputs)
    assert ours["out0"].dtype == ours["out1"].dtype == torch.float32
    assert (ours["dhidden"].dtype, ours["dweight"].dtype) == (dtype, inputs["weight"].dtype)
    rounded = torch.finfo(dtype).eps if dtype != torch.float32 else 0.0  # the gradient of logits is of hidden's dtype
    at_most_twice(ours, plain, exact, slack={"dhidden": rounded, "dweight": rounded})


def test_gradcheck():
    inputs = draw_inputs((7, 9, 3), seed=3)
    targets = torch.tensor([0, 8, -100, 3, 3, 1, 2], device=DEVICE)
    weights = torch.arange(1.0, 8.0, dtype=torch.float64, device=DEVICE)
    for op in (reference, linear_cross_entropy):
        assert torch.autograd.gradcheck(
            lambda h, w: op(h, w, targets, weights, z_loss=0.1, soft_cap=2.0)[0],
            [v.requires_grad_() for v in inputs.values()],
        )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_no_tensor_grows_with_rows_times_vocabulary(path, soft_cap, monkeypatch):
    """The largest tensor besides the gradient of weight, for a vocabulary eight times as large: counted, not
    timed."""
    if path == "triton":
        from lcprobe_kernels.linear_cross_entropy import triton_loss as module
    else:
        module = cpu
    monkeypatch.setattr(cpu, "CHUNK_ROWS", 512)
    sizes = {"CHUNK_BYTES": 4 * 8192, "VOCAB_BLOCK": 1024} if path == "triton" else {"CHUNK_LOGITS": 8192}
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    largest = {}
    for vocab in (512, 4096):
        inputs = draw_inputs((48, vocab, 4), 0, torch.float32)
        targets, weights = torch.arange(48, device=DEVICE), torch.ones(48, device=DEVICE)
        with Largest(but=(vocab, 4)) as seen:
            module.forward(*inputs.values(), targets, weights, -100, 0.0, soft_cap, True, True)
        largest[vocab] = seen.numbers
    assert largest[4096] == largest[512] == 8192 < 48 * 512


class Largest(TorchDispatchMode):
    """Numbers of the largest floating tensor that operations return; those of shape `but`, either way round, do not
    count."""

    def __init__(self, but):
        super().__init__()
        self.but, self.numbers = {tuple(but), tuple(but[::-1])}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            numbers = (
                isinstance(t, torch.Tensor) and t.is_floating_point()
            )  # the interpreter copies storages, as bytes
            if numbers and tuple(t.shape) not in self.but:
                self.numbers = max(self.numbers, t.numel())
        return out


@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_computed_where_they_are_wanted_only(path):
    inputs = draw_inputs((5, 9, 3), 0, torch.float32)
    targets, weights = torch.arange(5, device=DEVICE), torch.ones(5, device=DEVICE)
    run = torch.ops.lcprobe.linear_cross_entropy_fwd
    with backends.using(path):
        for wants in ((False, False), (True, False), (False, True)):
            _, _, d_hidden, d_weight = run(*inputs.values(), targets, weights, -100, 0.0, None, *wants)
            assert [d_hidden.numel() > 0, d_weight.numel() > 0] == list(wants)
        total, _ = linear_cross_entropy(inputs["hidden"].requires_grad_(), inputs["weight"], targets)
        assert [t.numel() > 0 for t in total.grad_fn.saved_tensors] == [True, False]
        with torch.no_grad():
            assert not linear_cross_entropy(inputs["hidden"], inputs["weight"], targets)[0].requires_grad


@pytest.mark.parametrize("path", PATHS)
def test_no_row_is_a_loss_of_zero_with_gradients_of_zero(path):
    hidden, weight = (torch.zeros(n, 4, device=DEVICE, requires_grad=True) for n in (0, 9))
    with backends.using(path):
        total, rows = linear_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64, device=DEVICE))
    total.backward()
    assert total == 0
    assert rows.shape == (0,)
    assert torch.equal(weight.grad, torch.zeros(9, 4, device=DEVICE))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_in_is_non_finite_out(path, value):
    case = {"shape": (5, 40, 3), "seed": 1, "ignored": "none", "weights": True, **PLAIN}
    for name, at in (("hidden", 2), ("weight", 20)):
        inputs = draw_inputs(case["shape"], 1, torch.float32)
        inputs["hidden"].abs_()
        inputs[name][at, 1] = value
        with backends.using(path):
            results = judged(linear_cross_entropy, case, inputs)
        assert not torch.isfinite(results["dweight" if name == "hidden" else "dhidden"]).all()
        if name == "hidden":
            assert not torch.isfinite(results["out0"])
            assert torch.isfinite(results["out1"]).tolist() == [i != at for i in range(5)]
        elif value != -math.inf:  # a logit of -inf has probability 0
            assert not torch.isfinite(results["out1"]).any()


@pytest.mark.parametrize("path", PATHS)
def test_what_is_ignored_may_be_nan(path):
    inputs = draw_inputs((5, 40, 3), 1, torch.float32)
    targets = torch.tensor([1, -100, 39, -100, 0], device=DEVICE)
    for value in (0.0, math.nan, math.inf):
        inputs["hidden"][1] = value
        leaves = [v.clone().requires_grad_() for v in inputs.values()]
        with backends.using(path):
            total, rows = linear_cross_entropy(*leaves, targets, z_loss=0.1)
            results = [total, rows, *torch.autograd.grad(total, leaves)]
        if value == 0.0:
            want = results
        assert all(torch.equal(a, b) for a, b in zip(results, want, strict=True))
    assert rows[1] == 0
    assert not results[2][1].any()


@pytest.mark.parametrize("path", PATHS)
def test_far_logits_neither_overflow_nor_vanish(path):
    hidden = torch.tensor([[300.0], [-300.0]], device=DEVICE, requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], device=DEVICE)
    with backends.using(path):
        total, rows = linear_cross_entropy(hidden, weight, torch.tensor([0, 0], device=DEVICE))
    total.backward()
    assert rows.tolist() == [0.0, 600.0]
    assert hidden.grad[:, 0].tolist() == [0.0, -2.0]


@pytest.mark.parametrize("path", PATHS)
def test_tokens_that_cannot_occur_leave_the_others_alone(path):
    """Logits of -inf, as many as fill the kernel's first blocks: probability 0."""
    hidden, weight = torch.ones(2, 1, device=DEVICE), torch.zeros(40, 1, device=DEVICE)
    weight[:35] = -math.inf
    with backends.using(path):
        _, rows = linear_cross_entropy(hidden, weight, torch.tensor([36, 39], device=DEVICE))
    assert torch.allclose(rows, torch.tensor(5.0, device=DEVICE).log().expand(2))


@pytest.mark.parametrize("path", PATHS)
def test_views_are_read_where_they_lie_and_runs_repeat_to_the_bit(path):
    wide = draw_inputs((11, 40, 8), 4, torch.float32)
    turned = {k: v.T.contiguous().T for k, v in wide.items()} | {"hidden": torch.cat([wide["hidden"]] * 2, 1)[:, 8:]}
    case = {"shape": (11, 40, 8), "seed": 4, "ignored": "some", "weights": True, "z_loss": 0.1, "soft_cap": 5.0}
    targets, weights = draw_targets(case)
    with backends.using(path):
        one, two = (judged(linear_cross_entropy, case, wide) for _ in range(2))
        assert all(torch.equal(one[k], two[k]) for k in one)
        strided = (torch.stack([t, t], 1)[:, 0] for t in (targets, weights.float()))
        total, rows = linear_cross_entropy(turned["hidden"], turned["weight"], *strided, z_loss=0.1, soft_cap=5.0)
    assert relative_error(total * 3, one["out0"]) < 1e-6
    assert relative_error(rows, one["out1"]) < 1e-6


def test_registered_as_ops():
    inputs = [v.requires_grad_() for v in draw_inputs((5, 9, 3), 7, torch.float32).values()]
    targets, weights = torch.arange(5, device=DEVICE), torch.ones(5, device=DEVICE)
    checked = torch.library.opcheck(
        torch.ops.lcprobe.linear_cross_entropy_fwd.default, (*inputs, targets, weights, -100, 0.1, 5.0, True, True)
    )
    assert set(checked.values()) == {"SUCCESS"}
    narrow = [v.detach().bfloat16() for v in inputs]
    checked = torch.library.opcheck(torch.ops.lcprobe.linear_cross_entropy_bwd.default, (torch.tensor(2.0), *narrow))
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.skipif(
    not GPU and __import__("shutil").which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
def test_compiles_as_one_graph():
    inputs = draw_inputs((5, 17, 3), 7, torch.float32)
    case = {"shape": (5, 17, 3), "seed": 4, "ignored": "some", "weights": False, "z_loss": 0.1, "soft_cap": 5.0}
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    same(judged(compiled, case, inputs), judged(linear_cross_entropy, case, inputs), 1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_autocast_leaves_dtypes_alone(path):
    hidden, weight = draw_inputs((5, 17, 3), 7, torch.float32).values()
    targets = torch.arange(5, device=DEVICE)
    with backends.using(path):
        want = linear_cross_entropy(hidden, weight, targets)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            got = linear_cross_entropy(hidden, weight, targets)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_narrow_gradient_is_scaled_by_an_unrounded_factor():
    """1/3 in bfloat16 is off by 0.1 %, for all gradients the same way: more than their own rounding on average."""
    inputs = [v.requires_grad_() for v in draw_inputs((64, 17, 8), 7, torch.bfloat16).values()]
    targets = torch.arange(64, device=DEVICE) % 17
    whole, third = (torch.autograd.grad(linear_cross_entropy(*inputs, targets)[0] / k, inputs) for k in (1, 3))
    for a, b in zip(whole, third, strict=True):
        assert abs(float(b.double().abs().sum() * 3 / a.double().abs().sum()) - 1) < 5e-4


CASE = {"shape": (8, 17, 3), "seed": 4, "ignored": "some", "weights": True, "z_loss": 0.05, "soft_cap": 5.0}
MUTATIONS = {
    "no z-loss": {"z_loss": 0.0},
    "no soft cap": {"soft_cap": None},
    "nothing ignored": {"ignored": "none"},
    "no weights": {"weights": False},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_sees_what_is_left_out(path, mutation):
    """Were a term missing, the tests above would fail: the error would be far beyond what any of them allows,
    gradients included."""
    inputs = draw_inputs(CASE["shape"], 2, torch.float32, scale=2.0)
    with backends.using(path):
        ours = judged(linear_cross_entropy, CASE, inputs)
    same(ours, judged(reference, CASE, inputs), 2e-6)
    wrong = judged(reference, CASE | MUTATIONS[mutation], inputs)
    assert all(relative_error(ours[k], wrong[k]) > 1e-2 for k in ("out0", "dhidden", "dweight"))


@pytest.mark.skipif(backends.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("target", [9, -1])
def test_in_triton_a_target_out_of_range_is_a_loss_of_nan(target):
    hidden, weight = torch.zeros(2, 4, device=DEVICE), torch.zeros(9, 4, device=DEVICE)
    with backends.using("triton"):
        _, rows = linear_cross_entropy(hidden, weight, torch.tensor([0, target], device=DEVICE))
    assert torch.isfinite(rows).tolist() == [True, False]


@pytest.mark.gpu
def test_more_than_two_to_the_31_logits(monkeypatch):
    from lcprobe_kernels.linear_cross_entropy import triton_loss

    monkeypatch.setattr(
        triton_loss, "CHUNK_BYTES", 1 << 33
    )  # all 3.3e9 in one chunk: offsets of the kernel pass 2^31
    monkeypatch.setattr(triton_loss, "VOCAB_BLOCK", 4096)
    hidden = torch.randn(1 << 16, 64, device=DEVICE, dtype=torch.bfloat16)
    weight = torch.randn(50288, 64, device=DEVICE, dtype=torch.bfloat16)
    targets = torch.randint(0, 50288, (1 << 16,), device=DEVICE)
    _, rows = linear_cross_entropy(hidden, weight, targets)
    _, want = reference(hidden[-64:].float(), weight.float(), targets[-64:])
    assert relative_error(rows[-64:], want) < 1e-2
