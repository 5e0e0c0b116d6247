"""Encodings outside the attention op, in addition to their equations and peers (test_oracles): chunks, blocks,
gradients."""

import sys

import pytest
import torch
from torch.autograd import gradcheck

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from validation.oracles.cases import equation_inputs
from validation.oracles.encodings import FORMULAS

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
    encoding = choice.create(HeadShape(n_heads, n_heads // 2, D, D_MODEL, 16)).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(encoding.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return encoding


def drawn(seqlen, n_heads=4, batch=2):
    g = torch.Generator().manual_seed(0)
    shapes = [(n_heads, D), (n_heads // 2, D), (n_heads // 2, D), (D_MODEL,)]
    return [torch.randn(batch, seqlen, *shape, generator=g, dtype=torch.float64) for shape in shapes]


def run(encoding, q, k, v, x, at=None, window=None):
    at = TokenContext(torch.arange(q.shape[1])) if at is None else at
    terms = encoding.token_terms(x, at, None)
    return encoding.attend(q, Keys(k, v, at.positions, at, terms, window=window, consecutive=at.consecutive))[0]


def test_path_over_chunks_equals_its_definition(monkeypatch):
    monkeypatch.setattr("lcprobe.models.positional.path.KEYS_PER_CHUNK", 8)
    e, inputs = encoding_of({"type": "path", "rank": 3}, n_heads=2), drawn(45, n_heads=2, batch=1)
    with torch.no_grad():
        whole = FORMULAS["path"](equation_inputs(e, inputs))
        assert (run(e, *inputs) - whole).abs().max() < 1e-13
        q, k, v, x = inputs
        at = TokenContext(torch.arange(45))
        terms = e.token_terms(x, at, None)
        for seqlen in (1, 7, 8, 30):
            late, _ = e.attend(q[:, -seqlen:], Keys(k, v, at.positions, at, terms))
            assert (late - whole[:, -seqlen:]).abs().max() < 1e-13


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_blocks_of_queries_change_nothing(kind, monkeypatch):
    if kind["type"] == "path":
        monkeypatch.setattr("lcprobe.models.positional.path.KEYS_PER_CHUNK", 8)
    e, inputs = encoding_of(kind), [t.requires_grad_() for t in drawn(37)]
    leaves = [*inputs[:3], *e.parameters()]
    whole = run(e, *inputs)
    grads = torch.autograd.grad(whole.square().sum(), leaves)
    monkeypatch.setattr(sys.modules["lcprobe_kernels.attention.blockwise"], "SCORES_PER_BLOCK", 1)
    parts = run(e, *inputs)
    assert (parts - whole).abs().max() < 1e-13
    for a, b in zip(grads, torch.autograd.grad(parts.square().sum(), leaves), strict=True):
        assert (a - b).abs().max() < 1e-9 * (1 + a.abs().max())


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_gradients(kind, monkeypatch):
    if kind["type"] == "path":
        monkeypatch.setattr("lcprobe.models.positional.path.KEYS_PER_CHUNK", 3)
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
    assert torch.equal(run(e, *inputs), run(e, *inputs, at=TokenContext(torch.arange(14) + 10**6)))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_bfloat16_models_round_only_inputs_and_outputs(kind):
    """Scores, counts, products and sums are float32 or wider: they differ from float64 only by the rounding of inputs
    and output."""
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


def test_a_sink_needs_a_softmax():
    with pytest.raises(ConfigError, match=r"a\.sink_logit: given True; allowed: false with stick_breaking"):
        build(AttentionConfig, {"sink_logit": True, "positional": {"type": "stick_breaking"}}, "a")
