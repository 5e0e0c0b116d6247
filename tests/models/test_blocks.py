"""MLPs and norms of blocks against their definitions in float64, and their choice in a config."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.matching import match
from lcprobe.models.mlps import MLPS
from lcprobe.models.norms import NORMS
from lcprobe.models.parts import model_cost, parts_of
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from tests.models.initialised import initialised

WHERE = TokenContext(torch.arange(5))


def model_config(**given):
    return build(ModelConfig, {"layout": "attention+mlp x 2", "vocab_size": 512, **given}, "model")


def randomised(module: nn.Module) -> nn.Module:
    """The module with every parameter drawn anew, biases and norms too, in float64."""
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    return module


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("swiglu", lambda x: x / (1 + torch.exp(-x))),
        ("geglu", lambda x: x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("relu2", lambda x: torch.where(x > 0, x * x, 0)),
    ],
)
def test_mlps_equal_their_definitions(name, activation, bias):
    mlp = randomised(choose(MLPS, {"type": name, "bias": bias}, "mlp").create(6, 10))
    own, x = dict(mlp.named_parameters()), torch.randn(2, 5, 6, dtype=torch.float64)
    assert ("out_proj.bias" in own) == bias
    if name == "relu2":
        inner = activation(x @ own["in_proj.weight"].T + own.get("in_proj.bias", 0))
    else:
        both = x @ own["up_gate.weight"].T + own.get("up_gate.bias", 0)
        inner = both[..., :10] * activation(both[..., 10:])
    want = inner @ own["out_proj.weight"].T + own.get("out_proj.bias", 0)
    assert (mlp(x, WHERE)[0] - want).abs().max() < 1e-12


@pytest.mark.parametrize("name", list(NORMS))
def test_norms_equal_their_definitions_alone_and_with_the_sum(name):
    norm = randomised(choose(NORMS, name, "norm").create(6, 1e-3))
    x, r = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)

    def defined(x):
        if name == "layer":
            mean = x.mean(-1, keepdim=True)
            scale = ((x - mean).square().mean(-1, keepdim=True) + 1e-3).sqrt()
            return (x - mean) / scale * norm.weight + norm.bias
        weight = 1 + norm.weight if name == "zero_centred_rms" else norm.weight
        return x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight

    assert (norm(x) - defined(x)).abs().max() < 1e-12
    y, total = norm.added(x, r)
    assert (total - (x + r)).abs().max() < 1e-12
    assert (y - defined(x + r)).abs().max() < 1e-12
    y, total = norm.added(x, None)
    assert torch.equal(total, x)
    assert (y - defined(x)).abs().max() < 1e-12


@pytest.mark.parametrize("name", list(NORMS))
def test_norms_keep_the_sum_in_the_dtype_of_the_residual_stream(name):
    norm = initialised(choose(NORMS, name, "norm").create(64, 1e-5))
    x, r = torch.randn(4, 64).bfloat16(), 1000 + torch.randn(4, 64)
    y, total = norm.added(x, r)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(total, r + x.float())
    plain = F.layer_norm(total, (64,)) if name == "layer" else F.rms_norm(total, (64,), eps=1e-5)
    assert (y.float() - plain).abs().max() <= 2**-8 * plain.abs().max()


@pytest.mark.parametrize("name", [name for name in MLPS if name != "none"])
@pytest.mark.parametrize("norm", list(NORMS))
def test_every_mlp_is_matched_to_the_budget(name, norm):
    config = model_config(mlp=name, norm=norm, layout="attention+mlp", n_layers="solve")
    solved = match({"a": config}, build(MatchConfig, {"budget": 300_000}, "match"), {"a": 32})["a"]
    built = sum(p.numel() for p in LanguageModel(solved.config).parameters())
    assert built == solved.cost.params
    assert abs(built / 300_000 - 1) < 0.01


def test_a_layout_names_other_mlps_and_none_leaves_them_out():
    config = model_config(layout="attention+mlp, attention, attention+relu2", d_model=64, d_ff=8, mlp="geglu")
    names = [None if block.mlp is None else type(block.mlp).__name__ for block in LanguageModel(config).blocks]
    assert names == ["GeGLU", None, "ReLU2"]
    without = LanguageModel(model_config(layout="attention+mlp x 2", d_model=64, mlp="none"))
    assert not any("mlp" in name or "norm2" in name for name, _ in without.named_parameters())


@pytest.mark.parametrize(
    ("given", "key", "near"),
    [
        ({"mlp": "swiglue"}, "model.mlp.type", "swiglu"),
        ({"mlp": {"type": "swiglu", "gelu": "erf"}}, "model.mlp.gelu", None),
        ({"norm": "layre"}, "model.norm.type", "layer"),
        ({"norm": {"type": "rms", "bias": True}}, "model.norm.bias", None),
        ({"layout": "attention+relu3"}, "model.layout", "relu2"),
        ({"layout": "attention+mlp+mlp"}, "model.layout", None),
        ({"layout": "atention+mlp"}, "model.layout", "attention"),
    ],
)
def test_mistakes_in_blocks_give_the_key(given, key, near):
    with pytest.raises(ConfigError) as caught:
        parts_of(model_config(**given))
    assert (caught.value.key, caught.value.near) == (key, near)


SMALL = {"d_model": 32, "d_ff": 24, "mixers": {"attention": {"head_dim": 16}}}


def outputs(given, tokens):
    return LanguageModel(model_config(**SMALL | given)).initialise(0).double().eval().hidden(tokens)[0]


def test_a_window_without_the_token_itself_shows_one_key_more():
    tokens = torch.randint(0, 512, (2, 21))

    def at(**window):
        return outputs({"mixers": {"attention": {"head_dim": 16, **window}}}, tokens)

    assert torch.equal(at(window=5, window_counts_self=False), at(window=6))
    assert not torch.equal(at(window=5), at(window=6))
    with pytest.raises(ConfigError, match=r"window_counts_self: given False; allowed: true where window is null$"):
        at(window_counts_self=False)


@pytest.mark.parametrize(
    ("scale", "factor"),
    [(2.5, 2.5), ("sqrt_d_model", 32**0.5), ("sqrt_d_model_bf16", float(torch.tensor(32**0.5).bfloat16()))],
)
def test_the_embedding_is_scaled_then_normed(scale, factor):
    model = LanguageModel(model_config(**SMALL, embedding_scale=scale, embedding_norm=True, norm="layer")).double()
    randomised(model.embedding_norm)
    tokens = torch.randint(0, 512, (2, 5))
    norm = model.embedding_norm
    want = F.layer_norm(model.embedding(tokens) * factor, (32,), norm.weight, norm.bias, 1e-5)
    assert (model.hidden_states(tokens)[0][0] - want).abs().max() < 1e-12


@pytest.mark.parametrize("d_model", [1, 7, 24, 2560, 5120])
def test_the_root_of_the_width_is_rounded_as_bfloat16_is(d_model):
    config = model_config(d_model=d_model, d_ff=1, embedding_scale="sqrt_d_model_bf16")
    assert config.embedding_factor() == float(torch.tensor(d_model**0.5).bfloat16())


PARALLEL = {
    "layout": "parallel(mamba2, attention)+mlp",
    "mixers": {"attention": {"head_dim": 16}, "mamba2": {"head_dim": 16, "d_state": 8, "expand": 1}},
}


@pytest.mark.parametrize("combination", ["mean", "sum"])
def test_mixers_in_parallel_equal_their_combination_alone(combination):
    model = LanguageModel(model_config(**SMALL | PARALLEL, parallel=combination)).initialise(0)
    block = randomised(model.blocks[0]).eval()
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    where = TokenContext(torch.arange(9))
    mixed = [mixer(x, where)[0] for mixer in block.mixers()]
    if combination == "mean":
        normed = [y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() for y in mixed]
        want = sum(y * w for y, w in zip(normed, block.combine.norm_weight, strict=True)) / 2
        want = want @ block.combine.out_proj.weight.T
        assert sum("out_proj.weight" in name for name, _ in block.named_parameters()) == 2  # the MLP has the other
    else:
        want = mixed[0] + mixed[1]
    block.norm, block.mlp = nn.Identity(), None
    block.norm.added = lambda update, residual: (update, torch.zeros_like(update))
    got = block(x, None, where, None, torch.float64, {})[0]
    assert (got - want).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("other", "settings", "output_bias", "has_bias"),
    [("mamba2", {"head_dim": 16, "expand": 1}, given, given) for given in (False, True)]
    + [("rg_lru", {"n_blocks": 2}, given, True) for given in (False, True)],
)
def test_the_mean_has_a_bias_where_any_of_its_mixers_has_one_in_any_order(other, settings, output_bias, has_bias):
    mixers = {"attention": {"head_dim": 16, "output_bias": output_bias}, other: settings}
    for layout in (f"parallel({other}, attention)", f"parallel(attention, {other})"):
        config = model_config(layout=layout, mixers=mixers, d_model=32)
        model = LanguageModel(config)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if "combine" in name}
        assert (shapes.get("blocks.0.combine.out_proj.bias") == (32,)) == has_bias
        assert sum(p.numel() for p in model.parameters()) == model_cost(config, 32).params


def test_parallel_models_are_matched_copied_and_converted():
    config = model_config(**PARALLEL, d_model=64)
    solved = match({"a": config}, build(MatchConfig, {"budget": 200_000}, "match"), {"a": 32})["a"]
    model = LanguageModel(solved.config).initialise(0)
    assert sum(p.numel() for p in model.parameters()) == solved.cost.params
    assert abs(solved.mismatch) < 0.01
    twin = copy.deepcopy(model).double()
    assert twin.new_state(1).layers[1].cache.k.dtype == torch.float64
    assert model.new_state(1).layers[1].cache.k.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {**PARALLEL, "mixers": {"attention": {"head_dim": 16}, "mamba2": {"head_dim": 16, "d_state": 8}}},
            r"^model\.layout: given 'mixers in parallel of inner widths 64, 32'; allowed: equal widths",
        ),
        (
            {"layout": "gated_deltanett"},
            r"given 'gated_deltanett'; allowed: attention \| .*did you mean 'gated_deltanet'",
        ),
        ({"layout": "parallel(mamba2)"}, r"^model\.layout: .*allowed: parallel\(mamba2, attention\), of two"),
        ({"layout": "parallel"}, r"^model\.layout: .*allowed: parallel\(mamba2, attention\), of two"),
        ({"layout": "paralel(mamba2, attention)"}, r"^model\.layout: .*did you mean 'parallel'"),
        (
            {"layout": "local(mamba2, attention)"},
            r"^model\.layout: .*allowed: parallel\(mamba2, attention\), of two.*more$",
        ),
        (
            {"layout": "gated-deltanet+mlp"},
            r"^model\.layout: .*\(stuck at '-deltanet\+mlp'\).*did you mean 'gated_deltanet'",
        ),
        ({"layout": "mamba2, rg-lru"}, r"^model\.layout: .*\(stuck at '-lru'\).*did you mean 'rg_lru'"),
        ({"layout": "mamba2 x -2"}, r"^model\.layout: .*\(stuck at .*allowed: a pattern such as [^;]*$"),
        ({"layout": "mamba2+mpl"}, r"adds one of mlp \| swiglu \| .* \| rwkv7, and .*no MLP; did you mean 'mlp'"),
        ({"layout": "mamba2+none"}, r"adds one of mlp \| swiglu \| .* \| rwkv7, and a mixer alone has no MLP"),
        ({"positional": "ro-pe"}, r"^model\.positional: .*did you mean 'rope'"),
        ({"layout": "parallel(mamba2, attention"}, r"^model\.layout: .*a missing \)"),
        ({"layout": "parallel(mamba2, atention)"}, r"^model\.layout: given 'atention'.*did you mean 'attention'"),
        ({"parallel": "men"}, r"^model\.parallel: given 'men'; allowed: mean \| sum; did you mean 'mean'"),
        ({"logit_soft_cap": 0}, r"^model\.logit_soft_cap: given 0.*allowed: > 0 or null"),
        ({"embedding_scale": -1}, r"^model\.embedding_scale: given -1.*allowed: > 0"),
        ({"embedding_scale": "sqrt"}, r"^model\.embedding_scale: given 'sqrt'; allowed: a number or sqrt_d_model"),
        ({"positional": "parallel(rope, none)"}, r"^model\.positional: "),
    ],
)
def test_impossible_blocks_are_refused_in_one_line(given, says):
    with pytest.raises(ConfigError, match=says) as caught:
        LanguageModel(model_config(**SMALL | given))
    assert "\n" not in str(caught.value)
