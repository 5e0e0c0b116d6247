"""What must hold for every extension of attention beside its definition and peers (test_oracles)."""

import pytest
import torch
from torch import nn

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.extend.longrope import LongRoPE, loss_beyond, starts
from lcprobe.models.extend.reread import smallest_group
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional.contract import Keys, PositionalEncoding
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build

L, N, VOCAB = 16, 41, 32
METHODS = [
    name for name in EXTENSIONS if EXTENSIONS.load(name).acts_on in ("rotary", "attention") and name != "longrope"
]
METHODS += ["longrope, searched", "longrope, given"]


def model_of(layout="attention+mlp x 2", dtype=torch.float64, **attention):
    mixers = {"attention": {"n_heads": 2, "n_kv_heads": 1, "head_dim": 8, **attention},
              "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}}  # fmt: skip
    sizes = {"layout": layout, "d_model": 16, "d_ff": 16, "vocab_size": VOCAB, "mixers": mixers}
    model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(3).to(dtype).eval()
    with torch.no_grad():  # scores that differ
        for block in model.blocks:
            if hasattr(block.mixer, "in_proj"):
                block.mixer.in_proj.weight *= 3
    return model


def text(n, length, seed):
    return torch.randint(0, VOCAB, (n, length), generator=torch.Generator().manual_seed(seed))


IDS = text(2, N, 5)


def method(name, **settings):
    name, _, how = name.partition(", ")
    if how == "searched":
        settings |= {"budget": 6, "n": 1}
    elif how == "given":
        settings |= {"long": [1.0, 1.5, 2.0, 3.0]}
    choice = choose(EXTENSIONS, {"type": name, **settings}, "pe.extend")
    return choice.create()


def changed(name, factor=4.0, model=None, **settings):
    return extended(model or model_of(), method(name, **settings), ExtensionContext(L, factor, text))


def factor_of(name):
    """An open factor where the method can take it: what `pe.factor=auto` is."""
    return 4.0 if name == "longrope, searched" else None


@torch.no_grad()
def logits(model, ids=IDS, chunks=None, length=None):
    length = ids.shape[1] if length is None else length
    if chunks is None:
        return model.logits(model.hidden(ids, length=length)[0])
    state, parts, lo = model.new_state(len(ids), length), [], 0
    for n in chunks:
        hidden, state = model.hidden(ids[:, lo : lo + n], state=state)
        parts.append(model.logits(hidden))
        lo += n
    assert lo == ids.shape[1]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", ["self_extend", "leaky_rerope", "dca", "rerope"])
@pytest.mark.parametrize("s", [1.5, 2.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("length", [8, 20, 128])
def test_by_default_no_distance_reaches_the_training_length(name, s, length):
    """Of all pairs that a call lets meet, by the positions that its queries and keys are turned to."""
    n = int(s * length)
    model = model_of()
    extended(model, method(name), ExtensionContext(length, s))
    encoding = model.blocks[0].mixer.positional

    def rotated(x, positions, keys, which):
        return positions.double()[None, :, None, None].expand(x.shape[0], -1, x.shape[2], 1)

    encoding.rotated = rotated
    x, places, met = torch.zeros(1, n, 1, 1, dtype=torch.float64), torch.arange(n), torch.zeros(n, n)
    where = TokenContext(places, length=n)
    for call in encoding.calls(x, Keys(x, x, places, where)):
        visible = call.mask.visible(places, places)
        distance = (call.q[0, :, 0, 0][:, None] - call.k[0, :, 0, 0])[visible]
        assert ((distance >= 0) & (distance < length)).all()
        met += visible
    assert torch.equal(met, torch.ones(n, n).tril()), "every pair meets once"


@pytest.mark.parametrize("s", [1.5, 3.0, 4.0])
@pytest.mark.parametrize("length", [8, 128, 512])
def test_the_default_group_is_the_smallest_that_does(s, length):
    window = length // 4

    def farthest(g):
        i = torch.arange(int(s * length))
        distance = i[:, None] // g + window - window // g - i // g
        return int(distance[i[:, None] - i >= window].max())

    g = smallest_group(s, length, window)
    assert farthest(g) < length <= farthest(g - 1)


@pytest.mark.parametrize("name", METHODS)
def test_reading_in_any_chunks_and_decoding_give_the_same(name):
    model = changed(name, factor_of(name))
    whole = logits(model)
    assert (whole - logits(model_of())).abs().max() > 1e-3, "the method does something here"
    for chunks in ([19, *[1] * 22], [7, 1, 20, 13]):
        assert (logits(model, chunks=chunks) - whole).abs().max() < 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_what_follows_changes_nothing_once_the_length_is_declared(name):
    model = changed(name, factor_of(name))
    other = IDS.clone()
    other[:, 30:] = (other[:, 30:] + 1) % VOCAB
    assert torch.equal(logits(model)[:, :30], logits(model, other)[:, :30])


@pytest.mark.parametrize("name", METHODS)
def test_lengths_can_be_read_in_any_order(name):
    model = changed(name, factor_of(name))
    first = [logits(model, IDS[:, :n]) for n in (N, 30, 12)]
    again = [logits(model, IDS[:, :n]) for n in (12, 30, N)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_factor_one_is_the_model_as_trained_bit_for_bit(name, dtype):
    """Put on, not left out; at a fixed factor and at the one that a length inside the training length has."""
    plain = model_of(dtype=dtype)
    as_trained, inside = logits(plain), logits(plain, IDS[:, :L])
    assert torch.equal(logits(changed(name, 1.0, model_of(dtype=dtype))), as_trained)
    if name == "longrope, searched":  # a search has one length and factors above 1
        return
    model = model_of(dtype=dtype)
    method(name).apply(model, ExtensionContext(L, 1.0))
    assert torch.equal(logits(model), as_trained)
    assert torch.equal(logits(model, chunks=[35, 6]), logits(plain, chunks=[35, 6]))
    open_ = changed(name, None, model_of(dtype=dtype))
    assert torch.equal(logits(open_, IDS[:, :L]), inside)
    assert not torch.equal(logits(open_), as_trained)


@pytest.mark.parametrize(
    "name", ["self_extend", "rerope", "leaky_rerope", "lm_infinite", "streaming", "window", "dca"]
)
def test_a_window_that_holds_everything_is_as_trained_bit_for_bit(name):
    settings = {"dca": {"chunk": L - 1}}.get(name, {"window": L})
    ids = IDS[:, : L - 1]
    assert torch.equal(
        logits(changed(name, model=model_of(dtype=torch.float32), **settings), ids),
        logits(model_of(dtype=torch.float32), ids),
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_weights_keep_their_names_and_values(name):
    model, plain = changed(name, factor_of(name)), model_of()
    ours, theirs = model.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


class Slope(PositionalEncoding):
    """An encoding with a parameter of its own."""

    family = "bias"

    def __init__(self, shape):
        super().__init__(None, shape)
        self.slope = nn.Parameter(torch.tensor([0.1, 0.3], dtype=torch.float64))

    def bias(self, distance):
        return -self.slope.view(-1, *[1] * distance.dim()) * distance


@torch.no_grad()
@pytest.mark.parametrize("name", ["window", "temperature", "logn"])
def test_parameters_of_an_encoding_stay_in_place_behind_a_method(name):
    model = model_of()
    for block in model.blocks:
        block.mixer.positional = Slope(block.mixer.positional.shape)
    names = list(model.state_dict())
    assert "blocks.0.mixer.positional.slope" in names
    model = changed(name, model=model)
    assert list(model.state_dict()) == names
    before = logits(model)
    model.load_state_dict({k: v * 2 if k.endswith("slope") else v for k, v in model.state_dict().items()})
    assert (logits(model) - before).abs().max() > 1e-3
    assert model.float().blocks[0].mixer.positional.inner.slope.dtype == torch.float32


def test_a_layer_with_a_window_inside_the_training_length_stays():
    sizes = {"layout": "local+mlp, attention+mlp", "d_model": 16, "d_ff": 16, "vocab_size": VOCAB,
             "mixers": {"local": {"type": "attention", "head_dim": 8, "window": 9}, "attention": {"head_dim": 8}}}  # fmt: skip
    for name in ("yarn", "self_extend", "streaming"):
        model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(1)
        local, far = (mixer.encoding for mixer in model.mixers())
        extended(model, method(name), ExtensionContext(L, 4.0))
        assert model.blocks[0].mixer.positional is local
        assert getattr(local, "scaling", None) is None
        assert model.blocks[1].mixer.positional is not far or far.scaling is not None


@pytest.mark.parametrize(
    ("name", "layout", "attention", "reason"),
    [
        ("yarn", "mamba2 x 2", {}, "no rotary layer"),
        ("window", "mamba2 x 2", {}, "no attention"),
        ("pi", "attention+mlp", {"positional": {"type": "none"}}, "no rotary layer"),
        ("self_extend", "attention+mlp", {"window": 40}, "cannot be read at other positions"),
        ("dca", "attention+mlp", {"window": 9}, "inside the training length"),
        ("ntk", "attention+mlp", {"head_dim": 2}, "fewer than 2 pairs"),
        ("window", "attention+mlp", {"window": 9}, "no wider already"),
    ],
)
def test_a_method_that_does_not_fit_says_why(name, layout, attention, reason):
    mixers = {
        "attention": {"n_heads": 2, "head_dim": 8, **attention},
        "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16},
    }
    sizes = {"layout": layout, "d_model": 16, "d_ff": 16, "vocab_size": VOCAB, "mixers": mixers}
    model = LanguageModel(build(ModelConfig, sizes, "model"))
    assert reason in (method(name).not_applicable(model, ExtensionContext(L, 4.0)) or "fits")
    with pytest.raises(ConfigError, match=reason):
        extended(model, method(name), ExtensionContext(L, 4.0))


@pytest.mark.parametrize("name", ["lm_infinite", "streaming"])
def test_sinks_that_fill_the_training_length_are_refused(name):
    assert method(name, sinks=L - 1).not_applicable(model_of(), ExtensionContext(L, 4.0)) is None
    with pytest.raises(ConfigError, match=rf"pe\.extend\.sinks: given {L}; allowed: < {L}"):
        changed(name, sinks=L)


def test_a_length_must_be_declared_where_the_factor_is_open():
    model = changed("yarn", None)
    assert model.needs_length
    assert not changed("yarn", 4.0).needs_length
    assert changed("ntk_dynamic", 4.0).needs_length
    with pytest.raises(ConfigError, match=r"pe\.factor"):
        model.hidden(IDS)


def test_a_search_repeats_and_beats_what_it_starts_from():
    def loss(**settings):
        model = changed("longrope", 4.0, **settings)
        with torch.no_grad():
            return loss_beyond(model, text(1, 4 * L, 1), L), model.blocks[0].mixer.positional.scaling.config.long

    found, factors = loss(budget=12, n=1, seed=1)
    assert loss(budget=12, n=1, seed=1) == (found, factors)
    assert list(factors) == sorted(factors)
    assert min(factors) >= 1
    assert max(factors) <= 1.25 * 4
    theta = model_of().blocks[0].mixer.positional.frequencies(torch.device("cpu"))
    tried = [loss(long=start.tolist(), seed=1)[0] for start in starts(theta, 4.0, L)]
    assert found < min(tried)
    with pytest.raises(ConfigError, match="no training text"):
        extended(model_of(), method("longrope, searched"), ExtensionContext(L, 4.0))
    assert LongRoPE.causal is False
