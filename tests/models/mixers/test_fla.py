"""fla:<Layer>: what is refused and why, settings, parameters, and the contract of mixers on a CPU, where fla's naive
forms take the place of its kernels."""

import importlib.util
import inspect

import pytest
import torch
from lcprobe_kernels import backends

from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.layout import layers_of
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.fla import build_layer, wrapped
from lcprobe.models.parts import model_cost, parts_of
from lcprobe.schema import build

SMALL = {"d_model": 16, "d_ff": 24, "vocab_size": 50, "context_length": 64, "initializer_range": 0.5}
LAYOUT = "fla:GatedDeltaNet2+mlp, fla:GatedDeltaProduct"
MIXERS_OF_LAYOUT = {
    "fla:GatedDeltaNet2": {"num_heads": 2, "head_dim": 8},
    "fla:GatedDeltaProduct": {"num_heads": 2, "head_dim": 4, "expand_v": 1.0},
}
SEQLEN = 23
needs_fla = pytest.mark.skipif(importlib.util.find_spec("fla") is None, reason="pip install flash-linear-attention")


@pytest.fixture
def as_with_a_gpu(monkeypatch):
    """As where fla and a GPU are, with fla's naive forms."""
    from validation.oracles.delta_rule import naive_fla

    monkeypatch.setattr(backends, "missing", lambda backend: None)
    with naive_fla():
        yield
    wrapped.cache_clear()


def config_of(layout=LAYOUT, mixers=MIXERS_OF_LAYOUT):
    return build(ModelConfig, {**SMALL, "layout": layout, "mixers": mixers}, "model")


@pytest.mark.parametrize("why", ["fla is not installed: pip install 'lcprobe[cuda]'", "fla needs a GPU"])
def test_without_fla_or_a_gpu_one_line_says_what_is_missing(why, monkeypatch):
    monkeypatch.setattr(backends, "missing", lambda backend: why)
    wrapped.cache_clear()
    for config in (config_of("fla:GatedDeltaNet", {}), config_of("fla:GatedDeltaNet2", MIXERS_OF_LAYOUT)):
        with pytest.raises(ConfigError) as caught:
            parts_of(config)
        name = config.layout
        line = f"model.mixers.{name}.type: given '{name}'; allowed: mixers that work here ({why})"
        assert str(caught.value) == line


def test_layouts_have_names_with_a_prefix():
    layers = layers_of("[fla:A+mlp, parallel(fla:B, attention)] x 2", None, None)
    assert [layer.mixers for layer in layers] == [("fla:A",), ("fla:B", "attention")] * 2
    with pytest.raises(ConfigError, match=r"stuck at '::A'"):
        layers_of("fla::A", None, None)
    with pytest.raises(
        ConfigError, match=r"given 'flaa:A'; allowed: .* \| fla:\.\.\. \| .*did you mean 'fla:\.\.\.'"
    ):
        parts_of(config_of("flaa:A", {}))


@needs_fla
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("GatedDeltaNett", r"did you mean 'fla:GatedDeltaNet'\?"),
        ("BasedLinearAttention", "it has no state"),
        ("ForgettingAttention", "it keeps keys and values, which grow with the text"),
        ("MultiScaleRetention", "its state depends on positions"),
        ("Mamba2", "it does not keep packed documents apart"),
        ("RodimusAttention", "it has no output projection"),
    ],
)
def test_layers_that_are_no_mixers_are_refused_with_the_reason(name, says, as_with_a_gpu):
    with pytest.raises(ConfigError, match=says) as caught:
        parts_of(config_of(f"fla:{name}", {}))
    assert str(caught.value).startswith(f"model.mixers.fla:{name}.type: given 'fla:{name}'; allowed: ")
    assert "\n" not in str(caught.value)


@needs_fla
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_head": 4}, "num_head: an unknown key; allowed: .*did you mean 'num_heads'"),
        ({"hidden_size": 4}, "hidden_size: an unknown key"),
        ({"num_heads": "four"}, "num_heads: given 'four'; allowed: a whole number"),
        ({"num_v_heads": 0.5}, "num_v_heads: given 0.5; allowed: a whole number or null"),
        (
            {"num_heads": 4, "num_v_heads": 6},
            "hidden_size: given 16; allowed: what its constructor accepts: .*divisible",
        ),
    ],
)
def test_settings_are_those_of_the_constructor(settings, line, as_with_a_gpu):
    with pytest.raises(ConfigError, match=rf"^model\.mixers\.fla:GatedDeltaNet2\.{line}"):
        model_cost(config_of("fla:GatedDeltaNet2", {"fla:GatedDeltaNet2": settings}), 64)


@needs_fla
def test_every_layer_that_is_admitted_has_the_parameters_of_its_constructor(as_with_a_gpu):
    import fla.layers as layers

    needed = {"RWKV7Attention": {"num_hidden_layers": 4}}
    admitted = 0
    for name in layers.__all__:
        try:
            mixer = MIXERS.load(f"fla:{name}")
        except ConfigError:
            continue
        config = mixer.Config(**needed.get(name, {}))
        known = set(inspect.signature(vars(layers)[name].__init__).parameters)
        assert {*vars(config)} <= known
        with torch.device("meta"):
            built = build_layer(vars(layers)[name], config, 512)
            outer = mixer(config, 512)
        assert sum(p.numel() for p in outer.parameters()) == sum(p.numel() for p in built.parameters())
        assert isinstance(outer.output, torch.nn.Linear)
        admitted += 1
    assert admitted >= 20


@needs_fla
def test_cost_counts_what_is_built(as_with_a_gpu):
    config = config_of()
    cost, model = model_cost(config, SEQLEN), LanguageModel(config).initialise(0)
    assert cost.params == sum(p.numel() for p in model.parameters())
    _, state = model.hidden(tokens_of(1), state=model.new_state(1))
    assert state.nbytes == cost.blocks.state_bytes
    assert cost.blocks.kv_bytes == 0


def tokens_of(rows):
    return torch.randint(0, 50, (rows, SEQLEN), generator=torch.Generator().manual_seed(0))


@needs_fla
@torch.no_grad()
def test_chunks_tokens_forks_and_rows_continue_like_the_whole(as_with_a_gpu):
    model, tokens = LanguageModel(config_of()).initialise(0).eval(), tokens_of(3)
    whole, _ = model.hidden(tokens)
    for cuts in ((0, 5, 6, 20, SEQLEN), range(SEQLEN + 1)):
        state, parts = model.new_state(3), []
        for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
            part, state = model.hidden(tokens[:, begin:end], state=state)
            parts.append(part)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
    _, state = model.hidden(tokens[:, :9], state=model.new_state(3))
    before = [t.clone() for layer in state.layers for t in (layer.memory, *layer.conv)]
    forked, _ = model.hidden(tokens[:, 9:].repeat_interleave(2, 0), state=state.fork(2))
    picked, _ = model.hidden(tokens[[2], 9:], state=state.rows(torch.tensor([2])))
    assert (forked - whole[:, 9:].repeat_interleave(2, 0)).abs().max() < 1e-5
    assert (picked - whole[[2], 9:]).abs().max() < 1e-5
    after = [t for layer in state.layers for t in (layer.memory, *layer.conv)]
    assert all(map(torch.equal, before, after))


@needs_fla
def test_packed_documents_equal_separate_ones_with_their_gradients(as_with_a_gpu):
    model, tokens = LanguageModel(config_of()).initialise(0), tokens_of(2)
    starts = torch.zeros(2, SEQLEN, dtype=torch.bool)
    starts[0, [4, 11]] = starts[1, [0, 17]] = True
    packed, _ = model.hidden(tokens, starts=starts)
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(1))
    alone = torch.zeros_like(packed)
    for row, edges in enumerate(((0, 4, 11, SEQLEN), (0, 17, SEQLEN))):
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            alone[row, begin:end] = model.hidden(tokens[[row], begin:end])[0][0]
    assert (packed - alone).abs().max() < 1e-5
    used = list(model.blocks.parameters())
    pairs = (torch.autograd.grad((y * weights).sum(), used) for y in (packed, alone))
    for one, other in zip(*pairs, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max().clamp_min(1.0)


@needs_fla
@torch.no_grad()
def test_rows_padded_in_front_continue_like_rows_alone(as_with_a_gpu):
    model, tokens, starts = LanguageModel(config_of()).initialise(0).eval(), tokens_of(2), torch.zeros(2, 18) > 0
    starts[0, 7] = True
    first, state = model.hidden(tokens[:, :18], starts=starts, state=model.new_state(2))
    more, _ = model.hidden(tokens[:, 18:], state=state)
    read = torch.cat([first, more], 1)
    assert (read[0, 7:] - model.hidden(tokens[[0], 7:])[0][0]).abs().max() < 1e-5
    assert (read[1] - model.hidden(tokens[[1]])[0][0]).abs().max() < 1e-5
    with pytest.raises(ConfigError, match="documents that begin inside a row that continues from a state"):
        model.hidden(tokens[:, :18], starts=starts, state=state)
    starts = torch.zeros(2, 18) > 0
    starts[:, 0] = True
    again, _ = model.hidden(tokens[:, :18], starts=starts, state=state)
    assert (again - model.hidden(tokens[:, :18])[0]).abs().max() < 1e-5


@needs_fla
def test_initial_values_are_the_constructors_and_depend_on_the_seed_alone(as_with_a_gpu):
    config = config_of()
    one, other, third = (LanguageModel(config).initialise(seed) for seed in (0, 0, 1))
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
    layer, twin = one.blocks[0].mixer.layer, third.blocks[0].mixer.layer
    assert not torch.equal(layer.q_proj.weight, twin.q_proj.weight)
    assert layer.A_log.exp().min() >= 1
    assert layer.A_log.exp().max() <= 16
    assert one.blocks[0].mixer.no_decay == ["layer.A_log", "layer.dt_bias"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("GatedDeltaNet", {"num_heads": 2, "head_dim": 64}),
        ("GatedDeltaNet2", {"num_heads": 2, "head_dim": 64}),
        ("GatedLinearAttention", {"num_heads": 2}),
        ("KimiDeltaAttention", {"num_heads": 2, "head_dim": 64}),
        ("HGRN2Attention", {"num_heads": 2}),
    ],
)
@torch.no_grad()
def test_kernels_fulfil_the_contract_on_a_gpu(name, settings):
    if backends.missing("fla") is not None:
        pytest.skip(str(backends.missing("fla")))
    given = {**SMALL, "d_model": 128, "layout": f"fla:{name}", "mixers": {f"fla:{name}": settings}}
    config = build(ModelConfig, given, "model")
    model = LanguageModel(config).initialise(0).eval().to("cuda", torch.bfloat16)
    tokens = torch.randint(0, 50, (2, 160), device="cuda")
    assert model_cost(config, 160).params == sum(p.numel() for p in model.parameters())
    whole, _ = model.hidden(tokens)
    scale = whole.abs().max()
    state, parts = model.new_state(2), []
    for begin, end in ((0, 70), (70, 71), (71, 160)):
        part, state = model.hidden(tokens[:, begin:end], state=state)
        parts.append(part)
    assert (torch.cat(parts, 1) - whole).abs().max() < 3e-2 * scale
    starts = torch.zeros(2, 160, dtype=torch.bool, device="cuda")
    starts[0, 90] = True
    packed, _ = model.hidden(tokens, starts=starts)
    alone, _ = model.hidden(tokens[:1, 90:])
    assert (packed[0, 90:] - alone[0]).abs().max() < 3e-2 * scale
    assert (packed[1] - whole[1]).abs().max() < 3e-2 * scale
