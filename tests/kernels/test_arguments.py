"""What an op is called with: wrong arguments are one line that names them, empty batches pass, derivatives it lacks
are refused."""

import math

import pytest
import torch
from lcprobe_kernels import ArgumentError, backends
from lcprobe_kernels.causal_conv1d import causal_conv1d, causal_conv1d_step
from lcprobe_kernels.linear_cross_entropy import linear_cross_entropy
from lcprobe_kernels.linear_recurrence import linear_recurrence, linear_recurrence_step
from lcprobe_kernels.rms_norm import add_rms_norm, rms_norm

from tests.kernels.judge import DEVICE, PATHS

GOOD = {
    "causal_conv1d": (causal_conv1d, {"x": (1, 3, 5), "weight": (5, 4)}, {}),
    "causal_conv1d_step": (causal_conv1d_step, {"x": (1, 5), "state": (1, 3, 5), "weight": (5, 4)}, {}),
    "linear_recurrence": (linear_recurrence, {"log_a": (2, 8, 3), "b": (2, 8, 3)}, {}),
    "linear_recurrence_step": (linear_recurrence_step, {"log_a": (2, 3), "b": (2, 3), "state": (2, 3)}, {}),
    "rms_norm": (rms_norm, {"x": (2, 6), "weight": (6,)}, {"eps": 1e-5}),
    "add_rms_norm": (add_rms_norm, {"x": (2, 6), "residual": (2, 6), "weight": (6,)}, {"eps": 1e-5}),
    "linear_cross_entropy": (
        linear_cross_entropy,
        {"hidden": (2, 4), "weight": (9, 4)},
        {"targets": torch.tensor([0, 8])},
    ),
}
"""Op by name: how it is called, with tensors of these shapes."""
FLOATS = "float16, bfloat16, float32 or float64"
F8 = torch.float8_e4m3fn


def zeros(*shape, dtype=torch.float32, device=None):
    return torch.zeros(shape, dtype=dtype, device=DEVICE if device is None else device)


def call(name, change=None):
    op, shapes, rest = GOOD[name]
    rest = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in rest.items()}
    return op(**({k: zeros(*shape) for k, shape in shapes.items()} | rest | (change or {})))


WRONG = [
    ("causal_conv1d", {"x": [1.0]}, "x: given a list; allowed: a tensor"),
    ("causal_conv1d", {"x": zeros(1, 0, 5)}, f"x: given torch.float32 of shape (1, 0, 5); allowed: {FLOATS} (batch, seqlen >= 1, channels >= 1)"),
    ("causal_conv1d", {"x": zeros(1, 3, 0)}, f"x: given torch.float32 of shape (1, 3, 0); allowed: {FLOATS} (batch, seqlen >= 1, channels >= 1)"),
    ("causal_conv1d", {"x": zeros(1, 3, 5, dtype=F8)}, f"x: given torch.float8_e4m3fn of shape (1, 3, 5); allowed: {FLOATS} (batch, seqlen >= 1, channels >= 1)"),
    ("causal_conv1d", {"weight": None}, "weight: given None; allowed: a tensor"),
    ("causal_conv1d", {"weight": zeros(4, 3)}, "weight: given shape (4, 3); allowed: (5, width >= 2)"),
    ("causal_conv1d", {"weight": zeros(5, 1)}, "weight: given shape (5, 1); allowed: (5, width >= 2)"),
    ("causal_conv1d", {"weight": zeros(5, 4, dtype=F8)}, f"weight: given torch.float8_e4m3fn; allowed: {FLOATS}"),
    ("causal_conv1d", {"bias": zeros(4)}, "bias: given shape (4,); allowed: (5,)"),
    ("causal_conv1d", {"bias": zeros(5, dtype=torch.int64)}, f"bias: given torch.int64; allowed: {FLOATS}"),
    ("causal_conv1d", {"bias": 0.0}, "bias: given a float; allowed: a tensor"),
    ("causal_conv1d", {"initial_state": zeros(1, 4, 5)}, "initial_state: given shape (1, 4, 5); allowed: (1, 3, 5)"),
    ("causal_conv1d", {"starts": zeros(1, 3)}, "starts: given torch.float32; allowed: torch.bool"),
    ("causal_conv1d", {"starts": [[True, False, True]]}, "starts: given a list; allowed: a tensor"),
    ("causal_conv1d", {"starts": zeros(3, dtype=torch.bool)}, "starts: given shape (3,); allowed: (1, 3)"),
    ("causal_conv1d", {"starts": zeros(1, 3, dtype=torch.bool, device="meta")}, f"starts: given on meta; allowed: on {zeros(1).device}, as x is"),
    ("causal_conv1d", {"silu": "yes"}, "silu: given 'yes'; allowed: True or False"),
    ("causal_conv1d", {"return_state": 1}, "return_state: given 1; allowed: True or False"),
    ("causal_conv1d_step", {"x": zeros(1, 3, 5)}, f"x: given torch.float32 of shape (1, 3, 5); allowed: {FLOATS} (batch, channels >= 1)"),
    ("causal_conv1d_step", {"x": None}, "x: given None; allowed: a tensor"),
    ("causal_conv1d_step", {"state": None}, "state: given None; allowed: a tensor"),
    ("causal_conv1d_step", {"state": zeros(1, 2, 5)}, "initial_state: given shape (1, 2, 5); allowed: (1, 3, 5)"),
    ("linear_recurrence", {"b": zeros(2, 0, 3)}, f"b: given torch.float32 of shape (2, 0, 3); allowed: {FLOATS} (batch, seqlen >= 1, d >= 1)"),
    ("linear_recurrence", {"b": zeros(2, 8, 3, dtype=F8)}, f"b: given torch.float8_e4m3fn of shape (2, 8, 3); allowed: {FLOATS} (batch, seqlen >= 1, d >= 1)"),
    ("linear_recurrence", {"log_a": zeros(2, 7, 3)}, "log_a: given shape (2, 7, 3); allowed: (2, 8, 3)"),
    ("linear_recurrence", {"log_a": zeros(2, 8, 3, dtype=torch.int64)}, f"log_a: given torch.int64; allowed: {FLOATS}"),
    ("linear_recurrence", {"log_a": -1.0}, "log_a: given a float; allowed: a tensor"),
    ("linear_recurrence", {"log_a": zeros(2, 8, 3, device="meta")}, f"log_a: given on meta; allowed: on {zeros(1).device}, as b is"),
    ("linear_recurrence", {"initial_state": zeros(2, 2)}, "initial_state: given shape (2, 2); allowed: (2, 3)"),
    ("linear_recurrence", {"initial_state": zeros(2, 3, dtype=F8)}, f"initial_state: given torch.float8_e4m3fn; allowed: {FLOATS}"),
    ("linear_recurrence", {"starts": zeros(2, 8)}, "starts: given torch.float32; allowed: torch.bool"),
    ("linear_recurrence", {"starts": zeros(8, dtype=torch.bool)}, "starts: given shape (8,); allowed: (2, 8)"),
    ("linear_recurrence", {"starts": zeros(2, 8, dtype=torch.bool, device="meta")}, f"starts: given on meta; allowed: on {zeros(1).device}, as b is"),
    ("linear_recurrence_step", {"b": zeros(2, 8, 3)}, f"b: given torch.float32 of shape (2, 8, 3); allowed: {FLOATS} (batch, d >= 1)"),
    ("linear_recurrence_step", {"log_a": None}, "log_a: given None; allowed: a tensor"),
    ("linear_recurrence_step", {"log_a": zeros(2, 4)}, "log_a: given shape (2, 4); allowed: (2, 3)"),
    ("linear_recurrence_step", {"state": None}, "state: given None; allowed: a tensor"),
    ("rms_norm", {"x": 1.0}, "x: given a float; allowed: a tensor"),
    ("rms_norm", {"x": zeros(2, 6, dtype=torch.int64)}, f"x: given torch.int64 of shape (2, 6); allowed: {FLOATS} (..., d >= 1)"),
    ("rms_norm", {"x": zeros(2, 6, dtype=F8)}, f"x: given torch.float8_e4m3fn of shape (2, 6); allowed: {FLOATS} (..., d >= 1)"),
    ("rms_norm", {"x": zeros(2, 0)}, f"x: given torch.float32 of shape (2, 0); allowed: {FLOATS} (..., d >= 1)"),
    ("rms_norm", {"x": zeros()}, f"x: given torch.float32 of shape (); allowed: {FLOATS} (..., d >= 1)"),
    ("rms_norm", {"weight": zeros(5)}, "weight: given shape (5,); allowed: (6,)"),
    ("rms_norm", {"weight": None}, "weight: given None; allowed: a tensor"),
    ("rms_norm", {"weight": zeros(6, dtype=torch.int64)}, f"weight: given torch.int64; allowed: {FLOATS}"),
    ("rms_norm", {"weight": zeros(6, device="meta")}, f"weight: given on meta; allowed: on {zeros(1).device}, as x is"),
    ("rms_norm", {"gate": zeros(2, 5)}, "gate: given shape (2, 5); allowed: (2, 6)"),
    ("rms_norm", {"n_groups": 4}, "n_groups: given 4; allowed: a divisor of 6"),
    ("rms_norm", {"n_groups": 2.0}, "n_groups: given 2.0; allowed: a divisor of 6"),
    ("rms_norm", {"n_groups": 0}, "n_groups: given 0; allowed: a divisor of 6"),
    ("rms_norm", {"eps": None}, "eps: given None; allowed: a number >= 0"),
    ("rms_norm", {"eps": math.nan}, "eps: given nan; allowed: a number >= 0"),
    ("rms_norm", {"eps": -1e-5}, "eps: given -1e-05; allowed: a number >= 0"),
    ("rms_norm", {"zero_centred": None}, "zero_centred: given None; allowed: True or False"),
    ("add_rms_norm", {"residual": None}, "residual: given None; allowed: a tensor"),
    ("add_rms_norm", {"residual": zeros(2, 5)}, "residual: given shape (2, 5); allowed: (2, 6)"),
    ("linear_cross_entropy", {"hidden": zeros(1, 2, 4)}, f"hidden: given torch.float32 of shape (1, 2, 4); allowed: {FLOATS} (n, d >= 1)"),
    ("linear_cross_entropy", {"hidden": None}, "hidden: given None; allowed: a tensor"),
    ("linear_cross_entropy", {"weight": zeros(9, 3)}, "weight: given shape (9, 3); allowed: (vocab >= 1, 4)"),
    ("linear_cross_entropy", {"weight": zeros(0, 4)}, "weight: given shape (0, 4); allowed: (vocab >= 1, 4)"),
    ("linear_cross_entropy", {"weight": zeros(9, 4, dtype=F8)}, f"weight: given torch.float8_e4m3fn; allowed: {FLOATS}"),
    ("linear_cross_entropy", {"targets": zeros(3, dtype=torch.int64)}, "targets: given shape (3,); allowed: (2,)"),
    ("linear_cross_entropy", {"targets": [0, 8]}, "targets: given a list; allowed: a tensor"),
    ("linear_cross_entropy", {"targets": zeros(2, dtype=torch.int32)}, "targets: given torch.int32; allowed: torch.int64"),
    ("linear_cross_entropy", {"weights": zeros(2, dtype=torch.int64)}, f"weights: given torch.int64; allowed: {FLOATS}"),
    ("linear_cross_entropy", {"ignore_index": None}, "ignore_index: given None; allowed: a whole number"),
    ("linear_cross_entropy", {"soft_cap": 0.0}, "soft_cap: given 0.0; allowed: a number > 0, or None"),
    ("linear_cross_entropy", {"z_loss": -1.0}, "z_loss: given -1.0; allowed: a number >= 0"),
    ("linear_cross_entropy", {"z_loss": None}, "z_loss: given None; allowed: a number >= 0"),
]  # fmt: skip
RENAMED = {"add_rms_norm": "rms_norm", ("causal_conv1d_step", "initial_state"): "causal_conv1d"}


@pytest.mark.parametrize(
    ("name", "change", "line"), WRONG, ids=[f"{n}-{next(iter(c))}-{i}" for i, (n, c, _) in enumerate(WRONG)]
)
def test_a_wrong_argument_is_one_line_that_names_it(name, change, line):
    with pytest.raises(ArgumentError) as caught:
        call(name, change)
    op_name = RENAMED.get((name, line.split(":")[0]), RENAMED.get(name, name))
    assert str(caught.value) == f"{op_name}: {line}"


@pytest.mark.skipif(DEVICE.type != "cpu", reason="on a GPU a target out of range is a loss of NaN")
@pytest.mark.parametrize(("targets", "first"), [([0, 9], 9), ([-1, -100], -1)])
def test_a_target_out_of_range_is_refused(targets, first):
    with pytest.raises(ArgumentError) as caught:
        call("linear_cross_entropy", {"targets": torch.tensor(targets)})
    assert str(caught.value) == f"linear_cross_entropy: targets: given {first}; allowed: 0 to 8, or ignore_index -100"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", GOOD)
def test_an_empty_batch_is_an_empty_result_with_gradients(path, name):
    op, shapes, rest = GOOD[name]
    batched = {"x", "b", "log_a", "state", "hidden", "residual"}
    leaves = {k: zeros(*(0, *s[1:]) if k in batched else s).requires_grad_() for k, s in shapes.items()}
    if "targets" in rest:
        rest = {"targets": zeros(0, dtype=torch.int64)}
    with backends.using(path):
        result = op(**leaves, **rest)
        outputs = [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]
        grads = torch.autograd.grad(sum(t.sum() for t in outputs), list(leaves.values()), allow_unused=True)
    assert all(t.numel() == 0 or (name == "linear_cross_entropy" and not t.any()) for t in outputs)
    assert not any(g.any() for g in grads if g is not None)
    assert [tuple(g.shape) for g in grads if g is not None] == [
        tuple(v.shape) for v, g in zip(leaves.values(), grads, strict=True) if g is not None
    ]


SMOOTH = [n for n in GOOD if not n.endswith("step")]


@pytest.mark.parametrize("name", SMOOTH)
def test_forward_mode_is_refused_and_not_zero(name):
    op, shapes, rest = GOOD[name]
    given = {k: torch.ones(shape, dtype=torch.float64, device=DEVICE) for k, shape in shapes.items()}
    rest = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in rest.items()}
    op_name = RENAMED.get(name, name)
    for tangent in given:

        def run(t, tangent=tangent):
            result = op(**given | {tangent: t}, **rest)
            return result if isinstance(result, torch.Tensor) else result[0]

        with pytest.raises(
            ArgumentError, match=rf"^{op_name}: given a forward-mode tangent \(jvp\); allowed: reverse mode"
        ):
            torch.func.jvp(run, (given[tangent],), (given[tangent],))


@pytest.mark.parametrize("name", SMOOTH)
def test_a_second_derivative_is_refused_and_not_zero(name):
    op, shapes, rest = GOOD[name]
    leaves = {
        k: torch.ones(shape, dtype=torch.float64, device=DEVICE).requires_grad_() for k, shape in shapes.items()
    }
    rest = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in rest.items()}
    result = op(**leaves, **rest)
    result = result if isinstance(result, torch.Tensor) else result[0]
    once = torch.autograd.grad(result.square().sum(), list(leaves.values()), create_graph=True)
    for gradient in once:
        with pytest.raises(
            ArgumentError, match=rf"^{RENAMED.get(name, name)}: given a second derivative; allowed: one"
        ):
            torch.autograd.grad(gradient.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
