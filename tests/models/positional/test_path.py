"""Encodings outside the attention op, against their papers' definitions a query and a key at a time in float64, and peers' code."""

import sys

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from lcprobe.choices import build, choose
from lcprobe.errors import ConfigError
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.where import Where

D_MODEL, D = 6, 4
KINDS = [
    {"type": "cope", "max_position": 4},
    {"type": "stick_breaking"},
    {"type": "stick_breaking", "attend_current": True, "remainder": True},
    {"type": "path", "rank": 3},
    {"type": "dape", "width": 5},
    {"type": "dape", "base": "alibi", "width": 5},
]
NAMES = ["_".join(str(v) for v in kind.values()) for kind in KINDS]


def encoding_of(mapping, n_heads=4, dtype=torch.float64):
    choice = choose(POSITIONAL, mapping, "x")
    made = choice.made_by(choice.config, HeadShape(n_heads, n_heads // 2, D, D_MODEL, 16)).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return made


def drawn(seqlen, n_heads=4, batch=2):
    g = torch.Generator().manual_seed(0)
    shapes = [(n_heads, D), (n_heads // 2, D), (n_heads // 2, D), (D_MODEL,)]
    return [torch.randn(batch, seqlen, *shape, generator=g, dtype=torch.float64) for shape in shapes]


def run(encoding, q, k, v, x, at=None, window=None):
    at = Where(torch.arange(q.shape[1])) if at is None else at
    terms = encoding.token_terms(x, at, None)
    return encoding.attend(q, Keys(k, v, at.positions, at, terms, window=window, consecutive=at.consecutive))[0]


def softmaxed(score, q, v, window):
    """score(h, i, j) -> (batch,), over the keys that query i sees."""
    out = torch.empty_like(q)
    for h in range(q.shape[2]):
        for i in range(q.shape[1]):
            first = 0 if window is None else max(0, i - window + 1)
            weights = torch.stack([score(h, i, j) for j in range(first, i + 1)], dim=1).softmax(1)
            out[:, i, h] = (weights[..., None] * v[:, first : i + 1, h // 2]).sum(1)
    return out


def dot(q, k, h, i, j):
    return (q[:, i, h] * k[:, j, h // 2]).sum(-1) / D**0.5


def dense_cope(e, inputs, window):
    q, k, v, _ = inputs

    def score(h, i, j):
        count = torch.stack([dot(q, k, h, i, t).sigmoid() for t in range(j, i + 1)]).sum(0).clamp(max=e.config.max_position - 1)
        low = count.floor().long()
        ends = [(q[:, i, h] * e.embedding[at]).sum(-1) for at in (low, (low + 1).clamp(max=e.config.max_position - 1))]
        return dot(q, k, h, i, j) + (1 - (count - low)) * ends[0] + (count - low) * ends[1]

    return softmaxed(score, q, v, window)


def dense_stick_breaking(e, inputs, window):
    q, k, v, _ = inputs
    out = torch.zeros_like(q)
    for h in range(q.shape[2]):
        for i in range(q.shape[1]):
            left = torch.ones(q.shape[0], dtype=q.dtype)
            first = 0 if window is None else max(0, i - window + 1)
            for j in range(i if e.config.attend_current else i - 1, first - 1, -1):
                share = torch.sigmoid(dot(q, k, h, i, j))
                out[:, i, h] += (left * share)[:, None] * v[:, j, h // 2]
                left = left * (1 - share)
            if e.config.remainder:
                out[:, i, h] += left[:, None] * v[:, i, h // 2]
    return out


def directions(e, x):
    """w (batch, seqlen, n_kv_heads, d) and beta (batch, seqlen, n_kv_heads)."""
    raw = x @ e.down.T @ e.up.T
    taps = e.config.d_conv
    padded = F.pad(raw, (0, 0, taps - 1, 0))
    w = F.silu(torch.stack([padded[:, t : t + x.shape[1]] * e.conv_weight[:, t] for t in range(taps)]).sum(0))
    w = w.view(*x.shape[:2], -1, D)
    return w / (w.square().sum(-1, keepdim=True) + 1e-6).sqrt(), 2 * torch.sigmoid(x @ e.beta_weight.T + e.beta_bias)


def dense_path(e, inputs, window):
    q, k, v, x = inputs
    w, beta = directions(e, x)
    scores = {}
    for h in range(q.shape[2]):
        for i in range(q.shape[1]):
            at = q[:, i, h]
            for j in range(i, -1 if window is None else max(-1, i - window), -1):
                scores[h, i, j] = (at * k[:, j, h // 2]).sum(-1) / D**0.5
                at = at - beta[:, j, h // 2, None] * (at * w[:, j, h // 2]).sum(-1, keepdim=True) * w[:, j, h // 2]
    return softmaxed(lambda h, i, j: scores[h, i, j], q, v, window)


def dense_dape(e, inputs, window):
    q, k, v, _ = inputs

    def score(h, i, j):
        heads = q.shape[2]
        if e.config.base == "alibi":
            bias = [torch.tensor(-(2.0 ** (-8 * (g + 1) / heads)) * (i - j)).double() for g in range(heads)]
        else:
            bias = [-e.base.raw1[g].exp() * torch.log(1 + e.base.raw2[g].exp() * (i - j)) for g in range(heads)]
        both = torch.stack([*(dot(q, k, g, i, j) for g in range(heads)), *(b.expand(q.shape[0]) for b in bias)], dim=-1)
        made = F.leaky_relu(both @ e.in_weight.T + e.in_bias, 0.01) @ e.out_weight.T + e.out_bias
        return dot(q, k, h, i, j) + bias[h] + made[:, h]

    return softmaxed(score, q, v, window)


DENSE = {"cope": dense_cope, "stick_breaking": dense_stick_breaking, "path": dense_path, "dape": dense_dape}


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_equals_its_definition(kind, window):
    e, inputs = encoding_of(kind), drawn(14)
    with torch.no_grad():
        assert (run(e, *inputs, window=window) - DENSE[kind["type"]](e, inputs, window)).abs().max() < 1e-13


def test_path_over_chunks_equals_its_definition(monkeypatch):
    monkeypatch.setattr("lcprobe.models.positional.path.CHUNK", 8)
    e, inputs = encoding_of({"type": "path", "rank": 3}, n_heads=2), drawn(45, n_heads=2, batch=1)
    with torch.no_grad():
        whole = dense_path(e, inputs, None)
        assert (run(e, *inputs) - whole).abs().max() < 1e-13
        q, k, v, x = inputs
        at = Where(torch.arange(45))
        terms = e.token_terms(x, at, None)
        for seqlen in (1, 7, 8, 30):
            late, _ = e.attend(q[:, -seqlen:], Keys(k, v, at.positions, at, terms))
            assert (late - whole[:, -seqlen:]).abs().max() < 1e-13


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_blocks_of_queries_change_nothing(kind, monkeypatch):
    if kind["type"] == "path":
        monkeypatch.setattr("lcprobe.models.positional.path.CHUNK", 8)
    e, inputs = encoding_of(kind), [t.requires_grad_() for t in drawn(37)]
    leaves = [*inputs[:3], *e.parameters()]
    whole = run(e, *inputs)
    grads = torch.autograd.grad(whole.square().sum(), leaves)
    monkeypatch.setattr(sys.modules["lcprobe_kernels.attention.blockwise"], "BLOCK", 1)
    parts = run(e, *inputs)
    assert (parts - whole).abs().max() < 1e-13
    for a, b in zip(grads, torch.autograd.grad(parts.square().sum(), leaves), strict=True):
        assert (a - b).abs().max() < 1e-9 * (1 + a.abs().max())


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_gradients(kind, monkeypatch):
    if kind["type"] == "path":
        monkeypatch.setattr("lcprobe.models.positional.path.CHUNK", 3)
    e, inputs = encoding_of(kind, n_heads=2), drawn(6, n_heads=2, batch=1)
    names = [n for n, _ in e.named_parameters()]
    e.forward = lambda *given: run(e, *given)

    def output(q, k, v, x, *values):
        return torch.func.functional_call(e, dict(zip(names, values, strict=True)), (q, k, v, x))

    assert gradcheck(output, [t.detach().clone().requires_grad_() for t in (*inputs[:3], inputs[3], *e.parameters())])


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_shifted_positions_change_nothing(kind):
    e, inputs = encoding_of(kind), drawn(14)
    assert e.relative
    assert torch.equal(run(e, *inputs), run(e, *inputs, at=Where(torch.arange(14) + 10**6)))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_bfloat16_models_round_their_inputs_alone(kind):
    """Scores, counts, products and sums are float32 or wider: far from float64 only by the inputs' and output's rounding."""
    e, low = encoding_of(kind), encoding_of(kind, dtype=torch.bfloat16)
    inputs = [t.bfloat16() for t in drawn(200)]
    with torch.no_grad():
        for a, b in zip(e.parameters(), low.parameters(), strict=True):
            a.copy_(b)
        with torch.autocast("cpu", torch.bfloat16):
            given = run(low, *inputs)
        exact = run(e, *(t.double() for t in inputs))
    assert given.dtype == torch.bfloat16
    assert (given - exact).abs().max() < 2**-8 * exact.abs().max()


def test_path_equals_the_naive_form_of_flash_linear_attention():
    naive = pytest.importorskip("fla.ops.path_attn.naive")
    e, (q, k, v, x) = encoding_of({"type": "path", "rank": 3}), drawn(150)
    w, beta = directions(e, x)
    theirs = naive.naive_path_attn(q, k, v, w, beta, torch.zeros(q.shape[:3]), D**-0.5)
    assert (run(e, q, k, v, x) - theirs).abs().max() < 1e-3


def test_stick_breaking_equals_the_naive_form_of_flash_linear_attention():
    naive = pytest.importorskip("fla.ops.stickbreaking_attn.naive")
    q, k, v, x = drawn(30)
    k, v = (t.repeat_interleave(2, 2) for t in (k, v))
    e = encoding_of({"type": "stick_breaking"})
    assert (run(e, q, k, v, x) - naive.naive_stickbreaking_attn(q, k, v)[0]).abs().max() < 1e-6


def test_a_sink_needs_a_softmax():
    with pytest.raises(ConfigError, match=r"a\.sink_logit: given True; allowed: false with stick_breaking"):
        build(AttentionConfig, {"sink_logit": True, "positional": {"type": "stick_breaking"}}, "a")
