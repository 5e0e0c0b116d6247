"""TAPE against its equations, one query and key at a time with complex numbers in float64, in whole models whose
layers pass the carry on; and its properties: RoPE at initialisation, shifts, rotations, chunks, documents."""

import sys
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.positional.tape import TAPE
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build, plain

D_MODEL, VOCAB, SEQLEN = 16, 40, 13
ENCODINGS = {
    "small": {"type": "tape", "width": 3},
    "half": {"type": "tape", "width": 3, "fraction": 0.5},
    "other": {"type": "tape", "width": 3, "base": 100.0},
}
CASES = [
    ("attention x 3", "small", {}),
    ("attention+mlp x 2", "tape", {"n_kv_heads": 1}),
    ("attention, mamba2+mlp, attention", "half", {"n_heads": 4, "n_kv_heads": 2}),
    ("attention x 3", "[small+window4, small]", {}),
    ("attention x 4", "[small, other]", {}),
    ("attention x 3", "small, rope, small", {}),
    ("attention x 2", "small+sink", {}),
]


def model_of(layout="attention x 3", positional="small", drawn=True, dtype=torch.float64, **attention):
    mixers = {"attention": {"head_dim": 8, **attention}, "mamba2": {"head_dim": 8, "d_state": 4}}
    sizes = {
        "layout": layout,
        "d_model": D_MODEL,
        "d_ff": 24,
        "vocab_size": VOCAB,
        "initializer_range": 1.0,
        "mixers": mixers,
    }
    config = {**sizes, "positional": positional, "encodings": ENCODINGS}
    model = LanguageModel(build(ModelConfig, config, "model")).initialise(2)
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if drawn and (".positional." in name or "sink_logit" in name):
                p.copy_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
            elif "in_proj" in name:  # scores that differ
                p.mul_(2)
    return model.to(dtype).eval()


def tokens_of(seed, batch=2, seqlen=SEQLEN):
    return torch.randint(0, VOCAB, (batch, seqlen), generator=torch.Generator().manual_seed(seed))


def normed(x, weight, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def paired(x, pairs):
    """(..., head_dim) -> (..., pairs) complex, dimension m with m + pairs, and the dimensions that are not
    rotated."""
    return torch.complex(x[..., :pairs], x[..., pairs : 2 * pairs]), x[..., 2 * pairs :]


def attended(layer, x, e, a):
    """One attention layer: its output, its updated tensors e, and their weighted means a."""
    batch, seqlen = x.shape[:2]
    heads, kv, d = layer.n_heads, layer.n_kv_heads, layer.head_dim
    q, k, v = (x @ layer.in_proj.weight.T).split([heads * d, kv * d, kv * d], dim=-1)
    q, k, v = q.view(batch, seqlen, heads, d), k.view(batch, seqlen, kv, d), v.view(batch, seqlen, kv, d)
    own = layer.positional
    if isinstance(own, TAPE):  # plain RoPE has no update
        e = e + own.mix[:, None] * a
        hidden = torch.einsum("wg,bigm->biwm", own.up.to(e.dtype), e) * F.silu(x @ own.gate.T)[..., None]
        e = e + torch.einsum("hw,biwm->bihm", own.down.to(e.dtype), hidden)
    pairs = e.shape[-1]
    o, a = torch.zeros(batch, seqlen, heads, d, dtype=x.dtype), torch.zeros_like(e)
    for h in range(heads):
        g = h // (heads // kv)
        for i in range(seqlen):
            first = 0 if layer.window is None else max(0, i - layer.window + 1)
            scores = []
            for j in range(first, i + 1):
                (query, query_rest), (key, key_rest) = paired(q[:, i, h], pairs), paired(k[:, j, g], pairs)
                rotated = (query * key.conj() * e[:, i, h] * e[:, j, h].conj()).real.sum(-1)
                scores.append((rotated + (query_rest * key_rest).sum(-1)) / d**0.5)
            scores = torch.stack(scores, dim=1)
            if layer.has_sink_logit:
                scores = torch.cat([scores, layer.sink_logit[h].expand(batch, 1)], dim=1)
            w = scores.softmax(1)
            for place, j in enumerate(range(first, i + 1)):
                o[:, i, h] += w[:, place, None] * v[:, j, g]
                a[:, i, h] += w[:, place, None] * e[:, j, h]
    return o.flatten(2) @ layer.out_proj.weight.T, e, a


def dense(model, tokens):
    """The hidden states of a whole model. The carry passes between layers with the same base; RoPE's is computed in
    each."""
    x, passed, eps = model.embedding(tokens), {}, model.config.norm_eps
    where = TokenContext(torch.arange(tokens.shape[1]))
    for block in model.blocks:
        y = normed(x, block.norm.weight, eps)
        own = block.mixer.encoding
        if own is not None:
            rotary, base = int(8 * own.config.fraction), own.config.base
            theta = base ** (-torch.arange(0, rotary, 2, dtype=torch.float64) / rotary)
            turns = torch.arange(tokens.shape[1], dtype=torch.float64)[:, None] * theta
            rope = torch.polar(torch.ones_like(turns), turns)[None, :, None].expand(
                len(tokens), -1, block.mixer.n_heads, -1
            )
            tape = isinstance(own, TAPE)
            update, e, a = attended(block.mixer, y, *(passed.get(base, (rope, rope)) if tape else (rope, rope)))
            passed |= {base: (e, a)} if tape else {}
        else:
            update = block.mixer(y, where)[0]
        x = x + update
        if block.mlp is not None:
            x = x + block.mlp(normed(x, block.norm2.weight, eps), where)[0]
    return normed(x, model.norm.weight, eps)


@pytest.mark.parametrize(("layout", "positional", "attention"), CASES)
def test_equals_its_definition(layout, positional, attention):
    model, tokens = model_of(layout, positional, **attention), tokens_of(0)
    with torch.no_grad():
        want, (got, _) = dense(model, tokens), model.hidden(tokens)
        plain, _ = model_of(layout, "rope", **attention).hidden(tokens)
    assert (got - want).abs().max() < 1e-12
    assert (got - plain).abs().max() > 0.1  # the updates change something


@pytest.mark.parametrize("positional", ["small", "tape+window4+sinks2+ssmax", "[tape+window4, tape]", "half"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_starts_as_rope(positional, dtype):
    tape, tokens = model_of(positional=positional, drawn=False, dtype=dtype, n_kv_heads=1), tokens_of(1, seqlen=30)
    share = 0.5 if positional == "half" else 1.0
    text = positional.replace("small", "near").replace("tape", "near").replace("half", "near")
    encodings = {"near": {"type": "rope", "fraction": share}}
    rope = LanguageModel(
        build(ModelConfig, {**plain(tape.config), "positional": text, "encodings": encodings}, "model")
    )
    rope.load_state_dict({k: v for k, v in tape.state_dict().items() if ".positional." not in k})
    with torch.no_grad():
        ours, theirs = tape.hidden(tokens)[0], rope.to(dtype).eval().hidden(tokens)[0]
    assert (ours - theirs).abs().max() < (1e-13 if dtype == torch.float64 else 1e-5)


def test_parameters_that_start_at_zero_get_gradients():
    model, tokens = model_of(drawn=False), tokens_of(1)
    model.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))[0].backward()
    for block in model.blocks:
        own = block.mixer.positional
        assert not own.mix.any()
        assert not own.down.any()
        assert own.mix.grad.abs().min() > 0
        assert own.down.grad.abs().min() > 0


@pytest.mark.parametrize("positional", ["small", "half", "[small+window4, other]"])
def test_shifted_positions_change_nothing(positional):
    model, tokens = model_of(positional=positional), tokens_of(2)
    with torch.no_grad():
        here, _ = model.hidden(tokens)
        there, _ = model.hidden(tokens, state=replace(model.new_state(2), position=10**6))
        scrambled, _ = model.hidden(tokens[:, torch.tensor([*range(SEQLEN - 2, -1, -1), SEQLEN - 1])])
    assert (here - there).abs().max() < 1e-9  # angles of a million tokens in float64
    assert (here - scrambled)[:, -1].abs().max() > 1e-2  # positions do matter


def test_outputs_are_invariant_and_the_carry_is_equivariant():
    """The group acts on the two numbers of a pair: one angle per pair for all tokens and heads, and reflections."""
    encoding, x = (
        encoding_of(),
        torch.randn(2, SEQLEN, D_MODEL, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
    )
    q, k, v, carry = drawn(3)
    turn = torch.polar(torch.ones(4, dtype=torch.float64), torch.tensor([0.3, 2.0, -1.1, 5.0], dtype=torch.float64))
    for act in (lambda z: z * turn, torch.conj):
        o, new_carry = layer_of(encoding, q, k, v, x, carry)
        o_turned, turned_carry = layer_of(encoding, q, k, v, x, changed(carry, act))
        if act is torch.conj:  # compensated by a reflection of queries and keys, whose pairs are complex too
            reflect = torch.tensor([1.0] * 4 + [-1.0] * 4, dtype=torch.float64)
            o_turned, turned_carry = layer_of(encoding, q * reflect, k * reflect, v, x, changed(carry, act))
        assert (o_turned - o).abs().max() < 1e-13
        assert (turned_carry - changed(new_carry, act)).abs().max() < 1e-13


def encoding_of(dtype=torch.float64):
    choice = choose(POSITIONAL, ENCODINGS["small"], "x")
    encoding = choice.create(HeadShape(2, 1, 8, D_MODEL)).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(encoding.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return encoding


def drawn(seed, seqlen=SEQLEN):
    """q, k, v of two heads that share one key head, and a carry."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(2, 8), (1, 8), (1, 8), (2 * 2 * 8,)]
    return [torch.randn(2, seqlen, *shape, generator=g, dtype=torch.float64) for shape in shapes]


def changed(carry, act):
    """`act` applied to e and a of every head as complex numbers."""
    c, s = carry.unflatten(-1, (4, 2, 4)).unbind(-2)
    z = act(torch.complex(c, s))
    return torch.stack([z.real, z.imag], dim=-2).flatten(2)


def layer_of(encoding, q, k, v, x, carry):
    at = TokenContext(torch.arange(q.shape[1]))
    keys = Keys(k, v, at.positions, at, encoding.read_carry(x, at, carry))
    return encoding.write_carry(encoding.attend(q, keys)[0], keys)


def test_gradients():
    encoding = encoding_of()
    q, k, v, carry = drawn(4, seqlen=3)
    x = torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    names = [n for n, _ in encoding.named_parameters()]

    def twice(q, k, v, x, carry, *values):
        def layer(*given):
            return torch.func.functional_call(encoding, dict(zip(names, values, strict=True)), given)

        o, new_carry = layer(q, k, v, x, carry)
        return o, *layer(o, k, v, x, new_carry)

    encoding.forward = lambda *given: layer_of(encoding, *given)
    leaves = [q[:1], k[:1], v[:1], x[:1], carry[:1], *encoding.parameters()]
    assert gradcheck(twice, [t.detach().clone().requires_grad_() for t in leaves])


@pytest.mark.parametrize(("layout", "positional", "attention"), CASES)
def test_chunks_and_documents_with_a_carry_across_other_layers(layout, positional, attention):
    model, tokens = model_of(layout, positional, **attention), tokens_of(6, batch=1, seqlen=24)
    starts = torch.zeros(1, 24, dtype=torch.bool)
    starts[0, [5, 17]] = True
    with torch.no_grad():
        for given in (None, starts):
            whole, _ = model.hidden(tokens, starts=given)
            state, parts = model.new_state(1), []
            for lo, hi in ((0, 7), (7, 8), (8, 9), (9, 20), (20, 24)):
                part, state = model.hidden(
                    tokens[:, lo:hi], starts=None if given is None else given[:, lo:hi], state=state
                )
                parts.append(part)
            assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-11
        alone = [model.hidden(tokens[:, lo:hi])[0] for lo, hi in ((0, 5), (5, 17), (17, 24))]
    assert (torch.cat(alone, dim=1) - whole).abs().max() < 1e-11


def test_bfloat16_models_keep_float32_tensors():
    """e, a and scores are float32 or wider: they differ from float64 only by the rounding of q, k, v, x and the
    output."""
    low, exact = encoding_of(torch.bfloat16), encoding_of()
    with torch.no_grad():
        for a, b in zip(exact.parameters(), low.parameters(), strict=True):
            a.copy_(b)
    x = torch.randn(2, 100, D_MODEL, generator=torch.Generator().manual_seed(5)).bfloat16()
    q, k, v, carry = (t.bfloat16() for t in drawn(7, seqlen=100))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        o, new_carry = layer_of(low, q, k, v, x, carry.float())
    want_o, want = layer_of(exact, q.double(), k.double(), v.double(), x.double(), carry.double())
    assert o.dtype == torch.bfloat16
    assert new_carry.dtype == torch.float32
    assert (o - want_o).abs().max() < 2**-8 * want_o.abs().max()
    assert (new_carry - want).abs().max() < 2**-13 * want.abs().max()


def test_blocks_of_queries_change_nothing(monkeypatch):
    model, tokens = model_of(), tokens_of(8, seqlen=37)

    def loss_and_gradients():
        loss = model.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))[0]
        return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))

    whole, grads = loss_and_gradients()
    monkeypatch.setattr(sys.modules["lcprobe_kernels.attention.blockwise"], "SCORES_PER_BLOCK", 1)
    parts, again = loss_and_gradients()
    assert (parts - whole).abs() < 1e-12
    for a, b in zip(grads, again, strict=True):
        assert (a - b).abs().max() < 1e-9 * (1 + a.abs().max())


def test_a_window_at_evaluation_is_the_window_of_a_layer():
    model, tokens = model_of(), tokens_of(9)
    choice = choose(EXTENSIONS, {"type": "window", "window": 4}, "pe.extend")
    local = model_of(positional="small+window4")
    local.load_state_dict(model.state_dict())
    with torch.no_grad():
        want, _ = local.hidden(tokens)
        got, _ = extended(model, choice.create(), ExtensionContext(4, 4.0)).hidden(tokens)
    assert (got - want).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, r"model\.positional\.width: given 0; allowed: >= 1 or null"),
        ({"fraction": 0.4}, r"fraction: given 0\.4; allowed: an even number"),
        ({"base": 1.0}, r"model\.positional\.base: given 1\.0; allowed: > 1"),
        ({"widht": 3}, "did you mean 'width'"),
    ],
)
def test_impossible_settings_give_a_one_line_error(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        model_of(positional={"type": "tape", **settings})
    assert "\n" not in str(caught.value)


def test_rotary_extensions_are_refused_with_one_line():
    for name in ("yarn", "self_extend"):
        choice = choose(EXTENSIONS, {"type": name}, "pe.extend")
        with pytest.raises(ConfigError) as caught:
            extended(model_of(), choice.create(), ExtensionContext(16, 4.0))
        assert "\n" not in str(caught.value)
