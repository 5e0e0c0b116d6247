"""ssd with NaN, infinity and extreme decays: what they reach, on every path, in outputs, state and gradients."""

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.ssd import reference, ssd

from tests.kernels.judge import DEVICE, PATHS
from tests.kernels.ssd_cases import CASE, NAMES, draw_inputs, judged, run_path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("value", "dtype", "name"),
    [
        *((float("inf"), torch.float32, name) for name in ("x", "dt", "B", "C", "initial_state", "A", "D")),
        *((float("nan"), torch.bfloat16, name) for name in ("x", "B", "initial_state")),
        *(pytest.param(float("nan"), torch.bfloat16, name, marks=pytest.mark.slow) for name in ("dt", "C", "A", "D")),
    ],
)
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
@pytest.mark.parametrize("name", ["x", "dt", "B"])
def test_nan_in_a_document_that_ends_inside_a_chunk_stays_out_of_the_state(path, name):
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs[name][0, 5, 0] = float("nan")
    starts = torch.zeros(1, 40, dtype=torch.bool, device=DEVICE)
    starts[:, 10] = True
    with backends.using(path):
        y, state = ssd(*(inputs[k] for k in NAMES[:7]), starts=starts, chunk_size=16, return_state=True)
    assert y[0, 10:].isfinite().all()
    assert state.isfinite().all()
    assert not y[0, 5:10, 0].isfinite().all(-1).any()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["x", "dt", "B", "initial_state"])
def test_a_state_that_is_not_finite_says_so_at_the_end(path, name):
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs[name].view(1, -1)[0, 0 if name == "initial_state" else inputs[name][0, :5].numel()] = float("nan")
    y, state = run_path(path, inputs, slice(None), inputs["initial_state"])
    assert not torch.isfinite(y[0, 6:, 0]).all(dim=-1).any()
    assert not torch.isfinite(state[0, 0]).all()


@pytest.mark.parametrize("path", PATHS)
def test_a_limit_lets_a_step_size_that_is_nan_through(path):
    """minimum and maximum of many languages would give the limit instead."""
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs["dt"][0, 20, 0] = float("nan")
    case = CASE | {"shape": (1, 40), "seed": 4, "limit": (0.01, 0.5)}
    with backends.using(path):
        results = judged(ssd, case, inputs, chunk_size=16, return_state=True)
    assert torch.isnan(results["out0"][0, 20:, 0]).all()
    assert torch.isnan(results["out1"][0, 0]).all()
    assert torch.isnan(results["ddt"][0, 20, 0])
    assert torch.isfinite(results["out0"][0, :, 1]).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["x", "dt", "B"])
def test_gradients_through_a_non_finite_token_are_no_finite_garbage(path, name):
    """Where the recurrence's gradient is not finite neither is ours; ours may be so in more places."""
    inputs = draw_inputs((1, 40, (2, 1), (4, 3)), seed=1, dtype=torch.float32)
    inputs[name][0, 20] = float("nan")
    case = CASE | {"shape": (1, 40), "seed": 4}
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
        assert torch.isfinite(run_path(path, inputs, slice(None), None)[0]).all()


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
