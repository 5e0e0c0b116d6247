"""Temperatures multiply encoded q . k and nothing else: against the softmax of separately computed scores, in
float64."""

import math

import pytest
import torch

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.attention import Attention, AttentionConfig
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys, PositionalEncoding
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from tests.models.contract_cases import ENCODINGS
from tests.models.initialised import initialised
from tests.toys import registered

H, KV, D, D_MODEL, L, N = 4, 2, 8, 12, 8, 23
IN_LAYERS = {name: cls for name, cls in ENCODINGS.items() if cls.family != "absolute"}
LINEAR = [name for name, cls in IN_LAYERS.items() if cls.linear and cls.carry_name is None]
"""Encodings that take a temperature; those with a carry between layers (TAPE) have tests of their own."""
NOT_LINEAR = [name for name, cls in IN_LAYERS.items() if not cls.linear]
FACTORS = {
    "ssmax": lambda n: 0.43 * n.log(),
    "logn": lambda n: (n.log() / math.log(L)).clamp_min(1),
}


def encoding_of(name) -> PositionalEncoding:
    with registered():
        encoding = choose(POSITIONAL, {"type": name}, "positional").create(HeadShape(H, KV, D, D_MODEL, L)).double()
    with torch.no_grad():
        for i, p in enumerate(encoding.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return encoding


def drawn(n=N):
    g = torch.Generator().manual_seed(0)
    shapes = [(H, D), (KV, D), (KV, D), (D_MODEL,)]
    return [torch.randn(2, n, *shape, generator=g, dtype=torch.float64) for shape in shapes]


def keys_of(encoding, q, k, v, x, positions=None):
    where = TokenContext(torch.arange(q.shape[1]) if positions is None else positions, consecutive=positions is None)
    terms = encoding.token_terms(x, where, None)
    if not encoding.caches_raw_keys:
        q, k = encoding.on_qk(q, k, where, terms)
    return q, Keys(k, v, where.positions, where, terms, consecutive=where.consecutive)


def scores(encoding, q, keys):
    """(batch, n_heads, n, n), computed from the encoding: one-hot values give the weights, and lse the normaliser."""
    n = q.shape[1]
    eye = torch.eye(n, dtype=q.dtype)[None, :, None].expand(q.shape[0], n, KV, n)
    weights, lse = encoding.attend(q, Keys(**{**vars(keys), "v": eye.contiguous()}), return_lse=True)
    assert lse is not None
    return (weights.clamp_min(1e-300).log() + lse[..., None]).transpose(1, 2)


def softmaxed(all_scores, v):
    n = v.shape[1]
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
    weights = all_scores.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("bhij,bjhd->bihd", weights, v.repeat_interleave(H // KV, 2))


@torch.no_grad()
@pytest.mark.parametrize("positions", [None, torch.arange(N) * 3 + torch.arange(N) % 3])
@pytest.mark.parametrize("name", LINEAR)
def test_a_factor_multiplies_content_scores_only(name, positions):
    """softmax(a (S - S0) + S0): S0, the terms added to content scores, are the scores of zero queries, except in
    polar encodings."""
    e, (q, k, v, x) = encoding_of(name), drawn()
    a = torch.rand(2, N, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    q, keys = keys_of(e, q, k, v, x, positions)
    whole = scores(e, q, keys)
    added = torch.zeros_like(whole) if e.family == "polar" else scores(e, q * 0, keys)
    want = softmaxed(a.transpose(1, 2)[..., None] * (whole - added) + added, v)
    got, _ = e.attend(q, keys.scaled_by(a))
    plain, _ = e.attend(q, keys)
    assert (got - want).abs().max() < 1e-11
    assert (got - plain).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("temperature", FACTORS)
@pytest.mark.parametrize("name", ["none", "rope", "pope"])
def test_a_layer_multiplies_scores_by_its_temperature(name, temperature):
    config = {
        "positional": {"type": name},
        "temperature": {"type": temperature},
        "n_heads": H,
        "n_kv_heads": KV,
        "head_dim": D,
    }
    layer = initialised(Attention(build(AttentionConfig, {**config, "context_length": L}, "a"), D_MODEL).double())
    x = drawn()[3]
    q, k, v = layer.in_proj(x).unflatten(-1, (-1, D)).split([H, KV, KV], dim=2)
    k_all = k.repeat_interleave(H // KV, 2)
    distance = torch.arange(N)[:, None] - torch.arange(N)
    if name == "pope":
        turns = distance[..., None] * 10000.0 ** (-torch.arange(D).double() / D)
        soft = torch.nn.functional.softplus
        s = torch.einsum("bihm,bjhm,ijm->bhij", soft(q), soft(k_all), turns.cos()) * D**-0.5
    else:
        theta = 10000.0 ** (-torch.arange(0, D, 2).double() / D) * (name == "rope")
        a, b = (torch.complex(t[..., : D // 2], t[..., D // 2 :]) for t in (q, k_all))
        turns = torch.polar(torch.ones(N, N, D // 2, dtype=torch.float64), distance[..., None] * theta)
        s = torch.einsum("bihm,bjhm,ijm->bhij", a, b.conj(), turns).real * D**-0.5
    factor = FACTORS[temperature](torch.arange(1, N + 1).double())[:, None]
    want = layer.out_proj(softmaxed(s * factor, v).flatten(2))
    assert (layer(x, TokenContext(torch.arange(N)))[0] - want).abs().max() < 1e-12


def model_of(name, temperature=None):
    attention = {"n_heads": 2, "head_dim": D, "positional": {"type": name}, "temperature": temperature}
    sizes = {
        "layout": "attention x 2",
        "d_model": 16,
        "vocab_size": 32,
        "context_length": L,
        "mixers": {"attention": attention},
    }
    return LanguageModel(build(ModelConfig, sizes, "model")).initialise(3).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["rope", "pope", "alibi", "path"])
def test_post_hoc_logn_equals_trained_logn(name):
    ids = torch.randint(0, 32, (2, N), generator=torch.Generator().manual_seed(0))
    choice = choose(EXTENSIONS, {"type": "logn"}, "pe.extend")
    afterwards = extended(model_of(name), choice.create(), ExtensionContext(L, 4.0))
    assert torch.equal(afterwards.hidden(ids)[0], model_of(name, {"type": "logn"}).hidden(ids)[0])


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_temperatures_are_refused_by_encodings_that_are_not_linear(name):
    for temperature in FACTORS:
        with pytest.raises(
            ConfigError, match=rf"a\.temperature: given '{temperature}'; allowed: null with {name}"
        ) as caught:
            build(AttentionConfig, {"temperature": {"type": temperature}, "positional": {"type": name}}, "a")
        assert "\n" not in str(caught.value)
    for method in ("temperature", "logn"):
        choice = choose(EXTENSIONS, {"type": method}, "pe.extend")
        with pytest.raises(ConfigError, match="not a softmax of q . k plus a bias"):
            extended(model_of(name), choice.create(), ExtensionContext(L, 4.0))
