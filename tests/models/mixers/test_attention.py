"""Attention against a plain softmax in float64: causal, windowed, grouped; rotary angles at position one million."""

import math

import pytest
import torch

from lcprobe.models.mixers.attention import Attention, AttentionConfig
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.rope import RoPE, RoPEConfig
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build


def plain_attention(layer: Attention, x, window):
    """softmax over an explicit score matrix, one head at a time; rotary by complex multiplication."""
    seqlen, hd, r = x.shape[1], layer.head_dim, layer.positional.rotary_dim
    q, k, v = (
        t.unflatten(-1, (-1, hd))
        for t in (x @ layer.in_proj.weight.T).split(
            [layer.n_heads * hd, layer.n_kv_heads * hd, layer.n_kv_heads * hd], dim=-1
        )
    )
    position = torch.arange(seqlen, dtype=torch.float64)
    angle = position[:, None] * layer.positional.base ** (-torch.arange(0, r, 2, dtype=torch.float64) / r)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]

    def rotate(t):
        pairs = torch.complex(t[..., : r // 2], t[..., r // 2 : r]) * turn
        return torch.cat([pairs.real, pairs.imag, t[..., r:]], dim=-1)

    q, k = rotate(q), rotate(k)
    heads = []
    for h in range(layer.n_heads):
        kv = h // (layer.n_heads // layer.n_kv_heads)
        scores = q[:, :, h] @ k[:, :, kv].transpose(1, 2) / math.sqrt(hd)
        for i in range(seqlen):
            for j in range(seqlen):
                if j > i or (window and i - j >= window):
                    scores[:, i, j] = -torch.inf
        heads.append(scores.softmax(-1) @ v[:, :, kv])
    return torch.cat(heads, dim=-1) @ layer.out_proj.weight.T


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_equals_a_plain_softmax(window, n_heads, n_kv_heads):
    torch.manual_seed(0)
    settings = {"head_dim": 8, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "window": window}
    config = build(AttentionConfig, {**settings, "positional": {"type": "rope", "fraction": 0.5}}, "attention")
    layer = Attention(config, 12).double()
    x = torch.randn(2, 19, 12, dtype=torch.float64)
    y, _ = layer(x, TokenContext(torch.arange(19)))
    assert (y - plain_attention(layer, x, window)).abs().max() < 1e-12


def test_rotary_scores_depend_on_distance_only_at_position_one_million():
    rope = RoPE(RoPEConfig(), HeadShape(1, 1, 64, 64))
    q = torch.randn(1, 2, 1, 64)

    def score(first):
        rotated, _ = rope.on_qk(q, q, TokenContext(torch.tensor([first, first + 3])), None)
        return float((rotated[0, 0, 0] * rotated[0, 1, 0]).sum())

    assert abs(score(1_000_000) - score(0)) < 2e-4


def test_rotary_tables_are_float32_under_bfloat16():
    rope = RoPE(RoPEConfig(), HeadShape(1, 1, 8, 8))
    x = torch.randn(1, 3, 1, 8)
    at = TokenContext(torch.tensor([999_999, 1_000_000, 1_000_001]))
    exact, low = (rope.on_qk(t, t, at, None)[0] for t in (x.double(), x.bfloat16()))
    assert low.dtype == torch.bfloat16
    assert (low.double() - exact).abs().max() < 0.03  # the rounding of x itself, not of the angle
