"""packed: cumulative lengths are the same packs as starts, for every op that takes them, and impossible ones are
refused."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError, backends
from lcprobe_kernels.causal_conv1d import causal_conv1d
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from lcprobe_kernels.linear_recurrence import linear_recurrence
from lcprobe_kernels.packed import starts_of
from lcprobe_kernels.ssd import ssd

from tests.kernels.judge import DEVICE, PATHS, outputs_and_gradients

SHAPES = {
    "causal_conv1d": {"x": (2, 12, 3), "weight": (3, 4)},
    "linear_recurrence": {"log_a": (2, 12, 3), "b": (2, 12, 3)},
    "ssd": {"x": (2, 12, 2, 3), "dt": (2, 12, 2), "A": (2,), "B": (2, 12, 1, 4), "C": (2, 12, 1, 4)},
    "gated_linear_attention": {
        "q": (2, 12, 1, 3),
        "k": (2, 12, 1, 3),
        "v": (2, 12, 1, 2),
        "log_decay": (2, 12, 1, 3),
    },
}
OPS = {
    "causal_conv1d": causal_conv1d,
    "linear_recurrence": linear_recurrence,
    "ssd": ssd,
    "gated_linear_attention": gated_linear_attention,
}
STATES = {
    "causal_conv1d": (2, 3, 3),
    "linear_recurrence": (2, 3),
    "ssd": (2, 2, 3, 4),
    "gated_linear_attention": (2, 1, 3, 2),
}
ENDS = [0, 1, 5, 12, 23, 24]


def draw_inputs(name) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    tensors = {k: torch.randn(shape, generator=generator) for k, shape in SHAPES[name].items()}
    return {k: (-v.abs() if k in ("A", "log_a", "log_decay") else v).to(DEVICE) for k, v in tensors.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", OPS)
def test_cumulative_lengths_are_starts(path, name):
    inputs, ends = draw_inputs(name), torch.tensor(ENDS, dtype=torch.int32, device=DEVICE)
    starts = torch.zeros(24, dtype=torch.bool, device=DEVICE)
    starts[[0, 1, 5, 12, 23]] = True

    def run(**pack):
        return outputs_and_gradients(lambda i: OPS[name](**i, **pack, return_state=True), inputs, inputs, 3)

    with backends.using(path):
        want, got = run(starts=starts.view(2, 12)), run(cu_seqlens=ends)
        without = run()
    assert all(torch.equal(got[k], want[k]) for k in want)
    assert not torch.equal(got["out0"], without["out0"])


@pytest.mark.parametrize("name", OPS)
def test_one_form_at_a_time_and_no_state_that_nobody_would_see(name):
    inputs, ends = draw_inputs(name), torch.tensor(ENDS, device=DEVICE)
    state = torch.zeros(STATES[name], device=DEVICE)
    meta = f"on meta; allowed: on {state.device}, as the input is"
    for given_too, line in (
        ({"starts": starts_of(ends, 2, 12)}, "starts, cu_seqlens: given both; allowed: one of them, or none"),
        ({"initial_state": state}, "cu_seqlens: given with an initial state; allowed: no initial state (every document starts from zeros), or starts"),
        ({"cu_seqlens": ENDS}, "cu_seqlens: given a list; allowed: a tensor"),
        ({"cu_seqlens": ends.to("meta")}, f"cu_seqlens: given {meta}"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError) as caught:
            OPS[name](**inputs, **({"cu_seqlens": ends} | given_too))
        assert str(caught.value) == f"{name}: {line}"


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ([0, 4, 8], "starts_of: cu_seqlens: given a list; allowed: a tensor"),
        (torch.tensor([0.0, 4, 8]), "cu_seqlens: given torch.float32 of shape (3,); allowed: int32 or int64 (n_documents + 1,)"),
        (torch.tensor([[0, 8]]), "cu_seqlens: given torch.int64 of shape (1, 2); allowed: int32 or int64 (n_documents + 1,)"),
        (torch.tensor([], dtype=torch.int64), "cu_seqlens: given torch.int64 of shape (0,); allowed: int32 or int64 (n_documents + 1,)"),
        (torch.tensor([1, 4, 8]), "cu_seqlens: given lengths from 1 to 8; allowed: from 0 to 8, 2 rows of 4"),
        (torch.tensor([0, 4, 7]), "cu_seqlens: given lengths from 0 to 7; allowed: from 0 to 8, 2 rows of 4"),
        (torch.tensor([0, 6, 4, 8]), "cu_seqlens: given 4 after 6; allowed: increasing lengths"),
        (torch.tensor([0, 4, 4, 8]), "cu_seqlens: given 4 after 4; allowed: increasing lengths"),
        (torch.tensor([0, 3, 6, 8]), "cu_seqlens: given a document from 3 to 6; allowed: documents inside one row; a row ends at 4"),
    ],
)  # fmt: skip
def test_impossible_lengths_are_one_line(ends, line):
    with pytest.raises(ArgumentError) as caught:
        starts_of(ends, 2, 4)
    assert str(caught.value) == line


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=0, max_size=3))
def test_starts_and_cumulative_lengths_are_each_others_inverse(rows):
    starts = torch.tensor(rows, dtype=torch.bool, device=DEVICE).view(-1, 5)
    starts[:, 0] = True  # where cumulative lengths cannot say otherwise
    ends = torch.cat([starts.flatten().nonzero()[:, 0], torch.tensor([starts.numel()], device=DEVICE)])
    assert torch.equal(starts_of(ends, len(rows), 5), starts)


def test_cumulative_lengths_compile_into_one_graph():
    inputs, ends = draw_inputs("linear_recurrence"), torch.tensor(ENDS, device=DEVICE)
    compiled = torch.compile(linear_recurrence, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**inputs, cu_seqlens=ends)[0], linear_recurrence(**inputs, cu_seqlens=ends)[0])
