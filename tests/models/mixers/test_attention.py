"""Attention against a plain softmax in float64: causal, windowed, grouped; rotary angles at position one million."""

import math
from dataclasses import replace

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.mixers.attention import Attention, AttentionConfig
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
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


def test_a_soft_cap_bounds_scores_and_is_refused_where_scores_are_no_products():
    """Gemma 2's formula, written out; and with a temperature inside it and ALiBi outside."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 9, 2, 8, dtype=torch.float64) * 3 for _ in range(3))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * 8**-0.5
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    for name in ("none", "alibi"):
        encoding = POSITIONAL.convert({"type": name}, "positional").create(HeadShape(2, 2, 8, 16))
        bias = encoding.bias((torch.arange(9)[:, None] - torch.arange(9)).clamp(0))
        want = 1.5 * torch.tanh(scores / 1.5) + (0.0 if bias is None else bias)
        want = torch.einsum("bhij,bjhd->bihd", want.masked_fill(future, float("-inf")).softmax(-1), v)
        keys = Keys(k, v, torch.arange(9), TokenContext(torch.arange(9)), soft_cap=1.5)
        assert (encoding.attend(q, keys)[0] - want).abs().max() < 1e-12
        assert (encoding.attend(q, replace(keys, consecutive=False))[0] - want).abs().max() < 1e-12
    for name in ("cope", "path"):
        with pytest.raises(ConfigError, match=f"soft_cap: given 30.0; allowed: null with {name}"):
            build(AttentionConfig, {"soft_cap": 30.0, "positional": {"type": name}}, "attention").check("attention")
