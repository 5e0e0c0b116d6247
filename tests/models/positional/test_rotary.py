"""Rotary and absolute encodings, in addition to their equations and peers (test_oracles): shifts, limits, precision,
gradients."""

import math

import pytest
import torch
from lcprobe_kernels.attention import DocumentNumbers

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.token_context import TokenContext
from tests.models.initialised import initialised

D, KV, GROUP = 16, 2, 2
SHAPE = HeadShape(KV * GROUP, KV, D, 12, context_length=64)


def encoding_of(name, **settings):
    choice = choose(POSITIONAL, {"type": name, **settings}, "positional")
    return initialised(choice.create(SHAPE).double(), 3)


def scores(encoding, q, k, positions):
    """(batch, n_heads, n, n) scores before the softmax, scale included, every key visible to every query."""
    where = TokenContext(positions)
    x = torch.zeros(q.shape[0], q.shape[1], SHAPE.d_model, dtype=q.dtype)
    terms = encoding.token_terms(x, where, None)
    if not encoding.caches_raw_keys:
        q, k = encoding.on_qk(q, k, where, terms)
    (call,) = encoding.calls(q, Keys(k, k, positions, where))
    scale = q.shape[3] ** -0.5 if call.scale is None else call.scale
    return torch.einsum("bihd,bjhd->bhij", call.q, call.k.repeat_interleave(GROUP, 2)) * scale


def drawn(n=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(2, n, h, D, generator=g, dtype=torch.float64) for h in (KV * GROUP, KV))


@pytest.mark.parametrize("name", ["rope", "prope", "hope", "xpos", "pope", "selective_rope"])
@pytest.mark.parametrize("shift", [1, 2**20])
def test_scores_depend_on_distance_only(name, shift):
    encoding, (q, k) = encoding_of(name), drawn()
    assert encoding.relative
    at = torch.arange(q.shape[1])
    near, far = scores(encoding, q, k, at), scores(encoding, q, k, at + shift)
    assert (near - far).abs().max() < 1e-8


def test_float32_angles_would_be_too_coarse():
    """Why angles are float64: at position one million, float32 angles are off by far more than the tolerance
    above."""
    theta = 10000.0 ** (-torch.arange(0, D, 2).double() / D)
    exact, rough = 2.0**20 * theta, (torch.tensor(2.0**20 + 1) * theta.float()).double() - theta.float().double()
    assert ((exact.cos() - rough.cos()).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["rope", "prope", "hope", "xpos", "pope", "fope"])
def test_a_bfloat16_model_rotates_as_a_float32_one_does(name):
    encoding, (q, k) = encoding_of(name), drawn()
    at = torch.arange(1_000_000, 1_000_000 + q.shape[1])
    low = scores(encoding.bfloat16(), q.bfloat16(), k.bfloat16(), at).double()
    exact = scores(encoding_of(name), q.bfloat16().double(), k.bfloat16().double(), at)
    assert (low - exact).abs().max() < 0.15, "the rounding of queries and keys, not of angles"


def test_limits_that_are_rope():
    q, k = drawn()
    at = torch.arange(q.shape[1])
    rope = scores(encoding_of("rope"), q, k, at)
    torch.testing.assert_close(scores(encoding_of("prope", fraction=1.0), q, k, at), rope, rtol=0, atol=0)
    torch.testing.assert_close(scores(encoding_of("hope", length=10**6), q, k, at), rope, rtol=0, atol=0)
    torch.testing.assert_close(scores(encoding_of("selective_rope"), q, k, at), rope, rtol=1e-12, atol=1e-12)
    none = scores(encoding_of("none"), q, k, at)
    torch.testing.assert_close(scores(encoding_of("prope", fraction=0.0), q, k, at), none, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [{"scale": 3.0}, {"scale": 1.0, "gamma": 0.01}, {"scale": 40.0}])
@pytest.mark.parametrize("drawn_positions", [False, True])
def test_xpos_is_finite_and_accurate_where_its_factors_overflow(dtype, settings, drawn_positions):
    """zeta^(-n / scale) over these chunks, e^(250 / 3 * 1.25) and more, overflows float32; compared with float64."""
    n = 250
    q, k = drawn(n)
    at = torch.arange(n) * (3 if drawn_positions else 1) + 1000
    documents = (torch.arange(n) // 90).expand(2, -1)
    factor = torch.linspace(0.5, 1.5, n, dtype=torch.float64)[None, :, None]

    def run(x, kind, one_block):
        encoding = encoding_of("xpos", **settings).to(kind)
        if one_block:
            encoding._reach = lambda dtype: 10**9
        where = TokenContext(at, consecutive=not drawn_positions)
        a, b = (t.to(dtype).to(kind) for t in x)
        keys = Keys(
            b,
            b,
            at,
            where,
            documents=DocumentNumbers(documents, documents),
            consecutive=where.consecutive,
            factor=factor,
        )
        y, lse = encoding.attend(a, keys, return_lse=True)
        late = Keys(
            b, b, at, TokenContext(at[-60:], consecutive=not drawn_positions), consecutive=not drawn_positions
        )
        return y.double(), lse.double(), encoding.attend(a[:, -60:], late)[0].double()

    got, exact = run((q, k), dtype, False), run((q, k), torch.float64, settings["scale"] > 2)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.06, torch.float16: 0.01}[dtype]
    for one, want in zip(got, exact, strict=True):
        assert one.isfinite().all()
        assert (one - want).abs().max() < tolerance


@pytest.mark.parametrize("settings", [{"scale": 0.001}, {"gamma": 1e-4}])
def test_xpos_that_decays_within_a_token_is_refused(settings):
    with pytest.raises(ConfigError, match=">= 1|>= 0.01"):
        encoding_of("xpos", **settings)


def test_fope_without_noise_is_hope():
    ours, (q, k) = encoding_of("fope", gain=0.0), drawn()
    at = torch.arange(q.shape[1])
    torch.testing.assert_close(scores(ours, q, k, at), scores(encoding_of("hope"), q, k, at), rtol=1e-12, atol=1e-12)
    theta = 10000.0 ** (-torch.arange(0, D, 2).double() / D)
    assert ours.pairs == (theta >= 2 * math.pi / 64).sum() < D // 2


@pytest.mark.parametrize("name", ["pope", "selective_rope", "fope"])
def test_gradients_of_learned_terms(name):
    ours, (q, k) = encoding_of(name), drawn(n=5)
    x = torch.randn(2, 5, SHAPE.d_model, dtype=torch.float64)
    names = [n for n, _ in ours.named_parameters()]
    if name == "pope":
        ours.phase.data.uniform_(-5, -1)

    def whole(*values):
        for own, value in zip(names, values, strict=True):
            delattr(ours, own) if own in dict(ours.named_parameters()) else None
            setattr(ours, own, value)
        where = TokenContext(torch.arange(5))
        qq, kk = q, k
        if not ours.caches_raw_keys:
            qq, kk = ours.on_qk(q, k, where, ours.token_terms(x, where, None))
        return ours.attend(qq, Keys(kk, kk, where.positions, where))[0]

    values = [p.detach().clone().requires_grad_() for _, p in ours.named_parameters()]
    assert torch.autograd.gradcheck(whole, values)


def test_learned_and_sinusoidal_positions_equal_their_formulas():
    x = torch.zeros(1, 4, SHAPE.d_model, dtype=torch.float64)
    where = TokenContext(torch.tensor([3, 4, 5, 6]))
    learned = encoding_of("learned", max_length=7)
    torch.testing.assert_close(learned.on_embedding(x, where)[0], learned.rows[3:7].detach())
    waves = encoding_of("sinusoidal")
    with torch.no_grad():
        waves.scale.fill_(1.0)
    got = waves.on_embedding(x, where)[0].detach()
    for row, t in enumerate((3, 4, 5, 6)):
        for m in range(SHAPE.d_model // 2):
            angle = t * 10000.0 ** (-2 * m / SHAPE.d_model)
            assert abs(float(got[row, m]) - math.sin(angle)) < 1e-12
            assert abs(float(got[row, m + SHAPE.d_model // 2]) - math.cos(angle)) < 1e-12
