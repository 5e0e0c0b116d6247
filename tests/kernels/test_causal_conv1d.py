"""causal_conv1d: equal to its definition in float64, with state, documents and gradients; a peer agrees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError
from lcprobe_kernels.causal_conv1d import causal_conv1d, reference
from torch.nn import functional as F


def draw_inputs(batch, seqlen, channels, width, seed):
    gen = torch.Generator().manual_seed(seed)
    sizes = [(batch, seqlen, channels), (channels, width), (channels,), (batch, width - 1, channels)]
    tensors = [torch.randn(*s, generator=gen, dtype=torch.float64, requires_grad=True) for s in sizes]
    return tensors, torch.rand(batch, seqlen, generator=gen) < 0.2


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(2, 4),
    st.integers(0, 2**31 - 1),
    st.booleans(),
    st.booleans(),
)
def test_outputs_and_gradients_equal_the_definition(batch, seqlen, channels, width, seed, with_state, documents):
    (x, w, b, s), starts = draw_inputs(batch, seqlen, channels, width, seed)
    state, marks = (s if with_state else None), (starts if documents else None)
    want = F.silu(reference(x, w, b, state, marks))
    got, _ = causal_conv1d(x, w, b, silu=True, initial_state=state, starts=marks)
    assert (got - want).abs().max() < 1e-12
    leaves = [x, w, b] + ([s] if with_state else [])
    dy = torch.randn_like(want)
    for name, a, c in zip("xwbs", torch.autograd.grad(want, leaves, dy), torch.autograd.grad(got, leaves, dy), strict=False):
        assert (a - c).abs().max() < 1e-11, name


def test_pytorchs_depthwise_convolution_agrees():
    (x, w, b, _), _ = draw_inputs(2, 17, 5, 4, seed=0)
    peer = F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), w[:, None], b, groups=5).transpose(1, 2)
    assert (causal_conv1d(x, w, b)[0] - peer).abs().max() < 1e-12


@given(st.integers(1, 15), st.integers(0, 2**31 - 1), st.booleans())
@settings(max_examples=20, deadline=None)
def test_first_part_then_rest_with_its_state_is_the_whole(cut, seed, documents):
    (x, w, b, _), starts = draw_inputs(2, 16, 3, 4, seed)
    marks = starts if documents else None
    whole, end = causal_conv1d(x, w, b, starts=marks, return_state=True)
    part = None if marks is None else marks[:, :cut]
    rest = None if marks is None else marks[:, cut:]
    head, state = causal_conv1d(x[:, :cut], w, b, starts=part, return_state=True)
    tail, last = causal_conv1d(x[:, cut:], w, b, initial_state=state, starts=rest, return_state=True)
    assert (torch.cat([head, tail], dim=1) - whole).abs().max() < 1e-12
    assert (last - end).abs().max() < 1e-12


def test_wrong_shape_is_one_line_that_names_the_argument():
    with pytest.raises(ArgumentError, match=r"^causal_conv1d: weight: given shape \(4, 3\); allowed: \(5, 3\)$"):
        causal_conv1d(torch.zeros(1, 2, 5), torch.zeros(4, 3))
