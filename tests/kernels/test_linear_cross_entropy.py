"""linear_cross_entropy: the loss and gradients of materialised logits, without materialising them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import linear_cross_entropy as module
from lcprobe_kernels.linear_cross_entropy import linear_cross_entropy
from torch.nn import functional as F


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(2, 30), st.integers(1, 6), st.integers(0, 2**31 - 1), st.sampled_from([1.0, 30.0]))
def test_loss_and_gradients_equal_plain_cross_entropy(rows, vocab, d, seed, scale):
    gen = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, d, generator=gen, dtype=torch.float64).mul_(scale).requires_grad_()
    w = torch.randn(vocab, d, generator=gen, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,), generator=gen)
    weights = torch.rand(rows, generator=gen, dtype=torch.float64)
    each = F.cross_entropy(h @ w.T, targets, reduction="none")
    want = (each * weights).sum() * 3
    total, per_row = linear_cross_entropy(h, w, targets, weights)
    got = total * 3  # a gradient from above is passed on
    assert torch.allclose(got, want, rtol=1e-12)
    assert torch.allclose(per_row, each.detach(), rtol=1e-11, atol=1e-12)
    for a, b in zip(torch.autograd.grad(want, [h, w]), torch.autograd.grad(got, [h, w]), strict=True):
        assert (a - b).abs().max() <= 1e-10 * (1 + a.abs().max())


def test_chunks_of_rows_change_nothing(monkeypatch):
    h, w = torch.randn(10, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    targets, weights = torch.arange(10) % 9, torch.ones(10, dtype=torch.float64)
    whole = linear_cross_entropy(h, w, targets, weights)[0]
    monkeypatch.setattr(module, "ROWS", 3)
    assert torch.allclose(linear_cross_entropy(h, w, targets, weights)[0], whole, rtol=1e-13)


def test_no_row_is_a_loss_of_zero():
    total, rows = linear_cross_entropy(torch.zeros(0, 4), torch.zeros(9, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert total == 0
    assert rows.shape == (0,)
