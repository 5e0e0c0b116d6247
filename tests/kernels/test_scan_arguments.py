"""ssd and gated_linear_attention: what they refuse, each in one line, and what an empty batch gives."""

import pytest
import torch
from lcprobe_kernels import ArgumentError, backends
from lcprobe_kernels.gated_linear_attention import gated_linear_attention, gated_linear_attention_step
from lcprobe_kernels.ssd import ssd, ssd_step

from tests.kernels.gated_linear_attention_cases import FORMS, ours
from tests.kernels.gated_linear_attention_cases import draw_inputs as of_gla
from tests.kernels.gated_linear_attention_cases import judged as judged_gla
from tests.kernels.judge import DEVICE, PATHS
from tests.kernels.ssd_cases import NAMES
from tests.kernels.ssd_cases import draw_inputs as of_ssd
from tests.kernels.ssd_cases import judged as judged_ssd

FLOATING = "float16, bfloat16, float32 or float64"
WRONG_SSD = [
    ({"dt": lambda t: t[:, :7]}, "dt: given shape (2, 7, 2); allowed: (2, 8, 2)"),
    ({"dt": lambda t: t.tolist()}, "dt: given a list; allowed: a tensor"),
    ({"C": lambda t: t[..., :2]}, "C: given shape (2, 8, 1, 2); allowed: (2, 8, 1, 3)"),
    ({"A": lambda t: t[:1]}, "A: given shape (1,); allowed: (2,)"),
    ({"A": lambda t: -1.0}, "A: given a float; allowed: a tensor"),
    ({"B": lambda t: t.long()}, f"B: given torch.int64; allowed: {FLOATING}"),
    ({"B": lambda t: t[:, :, :0]}, "B: given shape (2, 8, 0, 3); allowed: (2, 8, n_groups, d_state >= 1), n_groups dividing 2"),
    ({"B": lambda t: t.expand(-1, -1, 3, -1)}, "B: given shape (2, 8, 3, 3); allowed: (2, 8, n_groups, d_state >= 1), n_groups dividing 2"),
    ({"B": lambda t: t[..., :0]}, "B: given shape (2, 8, 1, 0); allowed: (2, 8, n_groups, d_state >= 1), n_groups dividing 2"),
    ({"B": lambda t: t.to("meta")}, f"B: given on meta; allowed: on {DEVICE}, as x is"),
    ({"x": lambda t: t[:, :0]}, f"x: given torch.float64 of shape (2, 0, 2, 4); allowed: {FLOATING} (batch, seqlen >= 1, n_heads >= 1, head_dim >= 1)"),
    ({"x": lambda t: t[..., :0]}, f"x: given torch.float64 of shape (2, 8, 2, 0); allowed: {FLOATING} (batch, seqlen >= 1, n_heads >= 1, head_dim >= 1)"),
    ({"x": lambda t: t.to(torch.float8_e4m3fn)}, f"x: given torch.float8_e4m3fn of shape (2, 8, 2, 4); allowed: {FLOATING} (batch, seqlen >= 1, n_heads >= 1, head_dim >= 1)"),
    ({"x": lambda t: None}, "x: given None; allowed: a tensor"),
    ({"C": lambda t: t.to(torch.float8_e4m3fn)}, f"C: given torch.float8_e4m3fn; allowed: {FLOATING}"),
    ({"D": lambda t: t.to(torch.complex64)}, f"D: given torch.complex64; allowed: {FLOATING}"),
    ({"dt_bias": lambda t: t[None]}, "dt_bias: given shape (1, 2); allowed: (2,)"),
    ({"initial_state": lambda t: t.mT}, "initial_state: given shape (2, 2, 3, 4); allowed: (2, 2, 4, 3)"),
    ({"starts": torch.zeros(2, 8, device=DEVICE)}, "starts: given torch.float32; allowed: torch.bool"),
    ({"starts": torch.zeros(2, 7, dtype=torch.bool, device=DEVICE)}, "starts: given shape (2, 7); allowed: (2, 8)"),
    ({"starts": torch.zeros(2, 8, dtype=torch.bool, device="meta")}, f"starts: given on meta; allowed: on {DEVICE}, as x is"),
    ({"dt_limit": None}, "dt_limit: given None; allowed: (low, high), 0 <= low <= high"),
    ({"dt_limit": (0.0, 0.1, 1.0)}, "dt_limit: given (0.0, 0.1, 1.0); allowed: (low, high), 0 <= low <= high"),
    ({"dt_limit": (1.0, 0.1)}, "dt_limit: given (1.0, 0.1); allowed: (low, high), 0 <= low <= high"),
    ({"dt_limit": (float("nan"), 1.0)}, "dt_limit: given (nan, 1.0); allowed: (low, high), 0 <= low <= high"),
    ({"dt_limit": (0.0, float("nan"))}, "dt_limit: given (0.0, nan); allowed: (low, high), 0 <= low <= high"),
    ({"chunk_size": 16.0}, "chunk_size: given 16.0; allowed: an integer >= 1, or None"),
    ({"chunk_size": 0}, "chunk_size: given 0; allowed: an integer >= 1, or None"),
]  # fmt: skip
if DEVICE.type == "cpu":  # a GPU would have to be waited for
    WRONG_SSD.append(
        ({"A": lambda t: -t}, "A: given a positive number, which makes states grow; allowed: numbers <= 0")
    )


@pytest.mark.parametrize(("change", "line"), WRONG_SSD)
def test_a_wrong_argument_of_ssd_is_one_line_that_names_it(change, line):
    inputs = of_ssd((2, 8, (2, 1), (4, 3)), seed=0)
    given = {k: change.get(k, lambda t: t)(inputs[k]) for k in NAMES} | {
        k: v for k, v in change.items() if k not in NAMES
    }
    with pytest.raises(ArgumentError) as caught:
        ssd(**given)
    assert str(caught.value) == f"ssd: {line}"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"x": lambda t: t[:, None]}, "x: given shape (2, 1, 2, 4); allowed: (batch, n_heads, head_dim)"),
        ({"dt": lambda t: None}, "dt: given None; allowed: a tensor"),
        ({"B": lambda t: t[:, 0]}, "B: given shape (2, 3); allowed: (batch, n_groups, d_state)"),
        ({"state": lambda t: None}, "state: given None; allowed: a tensor"),
    ],
)
def test_a_wrong_argument_of_a_step_is_one_line_that_names_it(change, line):
    inputs = of_ssd((2, 8, (2, 1), (4, 3)), seed=0)
    given = {
        "state": inputs["initial_state"],
        **{k: inputs[k][:, 0] if k != "A" else inputs[k] for k in ("x", "dt", "A", "B", "C")},
    }
    with pytest.raises(ArgumentError) as caught:
        ssd_step(**{k: change.get(k, lambda t: t)(v) for k, v in given.items()})
    assert str(caught.value) == f"ssd_step: {line}"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("seqlen", [1, 20])
def test_ssd_of_an_empty_batch_gives_empty_outputs(path, seqlen):
    inputs = of_ssd((0, seqlen, (2, 1), (4, 3)), seed=0, dtype=torch.float32)
    case = {
        "shape": (0, seqlen),
        "seed": 4,
        "documents": "some",
        "with_state": True,
        "plain": False,
        "limit": (0.0, float("inf")),
    }
    with backends.using(path):
        results = judged_ssd(ssd, case, inputs, chunk_size=16, return_state=True)
    assert {k: tuple(results[k].shape) for k in ("out0", "out1")} == {"out0": (0, seqlen, 2, 4), "out1": (0, 2, 4, 3)}
    assert all(torch.equal(results[f"d{k}"], torch.zeros_like(inputs[k])) for k in NAMES)


def test_ssd_refuses_forward_mode_and_a_second_derivative():
    """Zeros would come out of a jvp otherwise, in silence."""
    inputs = of_ssd((1, 9, (2, 1), (4, 3)), seed=0)
    run = lambda x: ssd(x, *(inputs[k] for k in NAMES[1:5]))[0]  # noqa: E731
    x = inputs["x"]
    with pytest.raises(ArgumentError, match=r"^ssd: given a forward-mode tangent \(jvp\); allowed: reverse mode"):
        torch.func.jvp(run, (x,), (torch.ones_like(x),))
    (first,) = torch.autograd.grad(run(x.requires_grad_()).square().sum(), x, create_graph=True)
    with pytest.raises(ArgumentError, match=r"^ssd: given a second derivative; allowed: one derivative"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i | {"k": i["k"][:, :4]}, "k: given shape (2, 4, 2, 3); allowed: (2, 5, 2, 3)"),
        (lambda i: i | {"q": i["q"].int()}, "q: given torch.int32 of shape (2, 5, 2, 3); allowed: float16, bfloat16, float32 or float64 (batch, seqlen >= 1, n_heads >= 1, d_k >= 1)"),
        (lambda i: i | {"v": i["v"].float()}, "v: given torch.float32; allowed: torch.float64"),
        (lambda i: i | {"log_decay": i["log_decay"][..., :2]}, "log_decay: given shape (2, 5, 2, 2); allowed: (2, 5, 2, 3) or (2, 5, 2, 1)"),
        (lambda i: i | {"beta": i["q"][..., 0], "bonus": i["q"][0, 0]}, "corrections: given bonus with beta; allowed: one of bonus, beta, erase and (a, b), or none"),
        (lambda i: i | {"a": i["q"]}, "a, b: given a without b; allowed: both or neither"),
        (lambda i: i | {"chunk_size": 24}, "chunk_size: given 24; allowed: a power of two"),
        (lambda i: i | {"chunk_size": 16.0}, "chunk_size: given 16.0; allowed: a power of two"),
        (lambda i: i | {"scale": "1"}, "scale: given '1'; allowed: a number, or None"),
        (lambda i: i | {"q": None}, "q: given None; allowed: a tensor"),
        (lambda i: i | {"k": i["k"].tolist()}, "k: given a list; allowed: a tensor"),
        (lambda i: i | {"log_decay": -0.1}, "log_decay: given a float; allowed: a tensor"),
        (lambda i: i | {"v": i["v"][..., :0]}, "v: given shape (2, 5, 2, 0); allowed: (2, 5, 2, d_v >= 1)"),
        (lambda i: i | {"q": i["q"][:, :0]}, "q: given torch.float64 of shape (2, 0, 2, 3); allowed: float16, bfloat16, float32 or float64 (batch, seqlen >= 1, n_heads >= 1, d_k >= 1)"),
        (lambda i: i | {"beta": i["q"][..., 0].to(torch.float8_e4m3fn)}, "beta: given torch.float8_e4m3fn; allowed: float16, bfloat16, float32 or float64"),
        (lambda i: i | {"starts": torch.zeros(2, 4, dtype=torch.bool)}, "starts: given shape (2, 4); allowed: (2, 5)"),
        (lambda i: i | {"starts": torch.zeros(2, 5, dtype=torch.bool, device="meta")}, "starts: given on meta; allowed: on cpu, as q is"),
        (lambda i: i | {"starts": torch.zeros(2, 5)}, "starts: given torch.float32; allowed: torch.bool"),
        (lambda i: i | {"erase": i["q"][..., 0]}, "erase: given shape (2, 5, 2); allowed: (2, 5, 2, 3)"),
        (lambda i: i | {"beta": i["q"]}, "beta: given shape (2, 5, 2, 3); allowed: (2, 5, 2)"),
        (lambda i: i | {"initial_state": i["initial_state"].to("meta")}, "initial_state: given on meta; allowed: on cpu, as q is"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_gated_linear_attention_is_one_line_that_names_it(change, message):
    inputs, _ = of_gla("plain", (2, 5, 2, (3, 4)), 0)
    with pytest.raises(ArgumentError) as caught:
        gated_linear_attention(**change({k: v.cpu() for k, v in inputs.items()}))
    assert str(caught.value) == f"gated_linear_attention: {message}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seqlen", [1, 9])
def test_gated_linear_attention_of_an_empty_batch_gives_empty_outputs(form, seqlen):
    inputs, starts = of_gla(form, (0, seqlen, 2, (3, 4)), 0)
    results = judged_gla(ours(starts, 4), inputs, 1)
    assert {k: tuple(results[k].shape) for k in ("out0", "out1")} == {"out0": (0, seqlen, 2, 4), "out1": (0, 2, 3, 4)}
    assert all(torch.equal(results[f"d{k}"], torch.zeros_like(v)) for k, v in inputs.items())


def test_gated_linear_attention_refuses_forward_mode_and_a_second_derivative():
    """Zeros would come out of a jvp otherwise, in silence."""
    inputs, _ = of_gla("plain", (1, 9, 2, (3, 4)), 0)
    q = inputs.pop("q")
    run = lambda q: gated_linear_attention(q, **inputs)[0]  # noqa: E731
    with pytest.raises(
        ArgumentError, match=r"^gated_linear_attention: given a forward-mode tangent \(jvp\); allowed: reverse mode"
    ):
        torch.func.jvp(run, (q,), (torch.ones_like(q),))
    (first,) = torch.autograd.grad(run(q.requires_grad_()).square().sum(), q, create_graph=True)
    with pytest.raises(
        ArgumentError, match=r"^gated_linear_attention: given a second derivative; allowed: one derivative"
    ):
        first.sum().backward()


def test_a_step_with_a_sequence_is_refused():
    inputs, _ = of_gla("plain", (2, 5, 2, (3, 4)), 0)
    state = inputs.pop("initial_state")
    with pytest.raises(
        ArgumentError,
        match=r"^gated_linear_attention_step: q: given shape \(2, 5, 2, 3\); allowed: \(batch, n_heads, d\)$",
    ):
        gated_linear_attention_step(**inputs, state=state)
