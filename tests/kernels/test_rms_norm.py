"""rms_norm: equal to its definition in float64 with gate and groups, outputs and gradients; PyTorch's agrees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError
from lcprobe_kernels.rms_norm import reference, rms_norm
from torch.nn import functional as F


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.sampled_from([(6, 1), (6, 3), (1, 1), (8, 2)]), st.booleans(), st.sampled_from([1e-3, 1.0, 1e3]),
    st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_outputs_and_gradients_equal_the_definition(rows, shape, gated, scale, seed):
    d, groups = shape
    gen = torch.Generator().manual_seed(seed)
    x, gate = (torch.randn(rows, 2, d, generator=gen, dtype=torch.float64).mul_(scale).requires_grad_() for _ in range(2))
    weight = torch.randn(d, generator=gen, dtype=torch.float64, requires_grad=True)
    gate = gate if gated else None
    want = reference(x, weight, 1e-5, gate, groups)
    got = rms_norm(x, weight, 1e-5, gate=gate, n_groups=groups)
    leaves = [x, weight] + ([gate] if gated else [])
    dy = torch.randn(want.shape, generator=gen, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(want, leaves, dy), torch.autograd.grad(got, leaves, dy), strict=True):
        assert (a - b).abs().max() <= 1e-10 * (1 + a.abs().max())
    assert (got - want).abs().max() < 1e-10


def test_pytorchs_norm_agrees():
    x, w = torch.randn(4, 7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    assert (rms_norm(x, w, 1e-5) - F.rms_norm(x, (7,), w, 1e-5)).abs().max() < 1e-12


def test_bfloat16_comes_back_as_bfloat16_and_is_normed_in_float32():
    x, w = torch.randn(4, 64).bfloat16(), torch.ones(64)
    assert rms_norm(x, w, 1e-5).dtype == torch.bfloat16
    assert (rms_norm(x, w, 1e-5).float() - rms_norm(x.float(), w, 1e-5)).abs().max() < 0.02


def test_wrong_group_count_is_one_line():
    with pytest.raises(ArgumentError, match="^rms_norm: n_groups: given 4; allowed: a divisor of 6$"):
        rms_norm(torch.zeros(2, 6), torch.zeros(6), 1e-5, n_groups=4)
