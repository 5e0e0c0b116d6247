"""Gates, in addition to their equations and peers (test_oracles): limits, shifts, gradients, precision of sums."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.models.mixers.attention import Attention, AttentionConfig
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build

D_MODEL, SEQLEN = 6, 17


def encoding_of(name, n_heads=4, dtype=torch.float64, **settings):
    choice = choose(POSITIONAL, {"type": name, **settings}, "x")
    encoding = choice.create(HeadShape(n_heads, n_heads // 2, 4, D_MODEL, 16)).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(encoding.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return encoding


def drawn(n_heads=4, seqlen=SEQLEN):
    g = torch.Generator().manual_seed(0)
    shapes = [(n_heads, 4), (n_heads // 2, 4), (n_heads // 2, 4), (D_MODEL,)]
    return [torch.randn(2, seqlen, *shape, generator=g, dtype=torch.float64) for shape in shapes]


def run(encoding, q, k, v, x, at=None, window=None):
    at = TokenContext(torch.arange(q.shape[1])) if at is None else at
    terms = encoding.token_terms(x, at, None)
    return encoding.attend(q, Keys(k, v, at.positions, at, terms, window=window), return_lse=True)[0]


def test_cable_is_fox_with_negated_gates():
    fox, cable, inputs = encoding_of("fox"), encoding_of("cable"), drawn()
    with torch.no_grad():
        for a, b in zip(fox.parameters(), cable.parameters(), strict=True):
            b.copy_(-a)
    assert (run(fox, *inputs) - run(cable, *inputs)).abs().max() < 1e-14


def test_open_gates_equal_no_encoding():
    e, (q, k, v, x) = encoding_of("fox"), drawn()
    with torch.no_grad():
        e.gate_bias.fill_(1000.0)
    assert (run(e, q, k, v, x) - run(encoding_of("none"), q, k, v, x)).abs().max() < 1e-14


@pytest.mark.parametrize("name", ["fox", "cable"])
def test_gradients_of_gates(name):
    e, inputs = encoding_of(name, n_heads=2), drawn(n_heads=2, seqlen=7)
    e.forward = lambda *given: run(e, *given)
    names = e.no_decay

    def output(x, *values):
        return torch.func.functional_call(e, dict(zip(names, values, strict=True)), (*inputs[:3], x))

    values = [t.detach().clone().requires_grad_() for t in (inputs[3], *e.parameters())]
    assert gradcheck(output, values)


@pytest.mark.parametrize("name", ["fox", "cable"])
def test_a_document_shift_or_drawn_positions_change_nothing(name):
    e, inputs = encoding_of(name), drawn()
    plain = run(e, *inputs)
    assert e.relative
    assert torch.equal(plain, run(e, *inputs, at=TokenContext(torch.arange(SEQLEN) + 10**6)))
    assert torch.equal(plain, run(e, *inputs, at=TokenContext(torch.arange(SEQLEN) ** 2, consecutive=False)))


def test_sums_are_precise_in_a_bfloat16_model_after_a_hundred_thousand_tokens():
    """Differences of neighbouring sums, where the sums themselves exceed the precision of float32."""
    e = encoding_of("fox", dtype=torch.bfloat16)
    x = torch.randn(1, 131_072, D_MODEL, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        terms = e.token_terms(x, TokenContext(torch.arange(x.shape[1])), None)
    z = x[:, -5:].double() @ e.gate_weight.double().T + e.gate_bias.double()
    steps = torch.diff(terms[:, -6:], dim=1)
    assert terms.abs().max() > 5e4
    assert (steps - F.logsigmoid(z)).abs().max() < 1e-5


def test_initial_gates_match_the_release():
    given = {"head_dim": 4, "positional": {"type": "fox", "initial_bias": 3.0}}
    config = build(AttentionConfig, given, "attention")
    layer = Attention(config, 400)
    for name, deviation, mean in (("gate_weight", 0.02, 0.0), ("gate_bias", 0.0, 3.0)):
        value = torch.empty(getattr(layer.positional, name).shape, dtype=torch.float64)
        layer.encoding.init_parameter(name, value, torch.Generator().manual_seed(0))
        assert math.isclose(value.std(correction=0), deviation, abs_tol=5e-4)
        assert math.isclose(value.mean(), mean, abs_tol=5e-4)
