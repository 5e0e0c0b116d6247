"""Linear attention with decays, gla, lightning and mlstm, in addition to the contract and to their oracles: shapes of
releases, decays, gates, errors."""

import dataclasses
import math

import pytest
import torch

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.mlstm import running_largest
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build, field_docs
from tests.models.initialised import initialised
from validation.oracles.recurrences import mlstm

NAMES = ["gla", "lightning", "mlstm"]
RELEASES = {
    # flash-linear-attention's GatedLinearAttention at its defaults
    "fla": ("gla", {"head_dim": 128}, 1024, 4_219_648),
    # transformers' MiniMaxLightningAttention at the settings of MiniMax-Text-01
    "MiniMax": ("lightning", {"head_dim": 128, "expand": 8192 / 6144}, 6144, 251_666_432),
    # transformers' xLSTMLayer at the settings of xLSTM-7b
    "xLSTM": ("mlstm", {"head_dim": 256}, 4096, 67_178_512),
}


def config_of(name, **settings):
    return choose(MIXERS, {"type": name, **settings}, "model.mixers.it").config


@pytest.mark.parametrize("release", RELEASES)
def test_layers_of_releases_have_their_number_of_parameters(release):
    name, settings, d_model, parameters = RELEASES[release]
    assert MIXERS.load(name).cost(config_of(name, **settings), d_model, 1).params == parameters


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gla", {"head_dim": 24}, "head_dim: given 24; allowed: a divisor of expand x d_model (32)"),
        ("gla", {"expand": 0.001}, "head_dim: given 32; allowed: a divisor of expand x d_model (0)"),
        (
            "gla",
            {"head_dim": 4, "expand_v": 1.1},
            "expand_v: given 1.1; allowed: a width (now 70) that 8 heads divide",
        ),
        ("lightning", {"head_dim": 24}, "head_dim: given 24; allowed: a divisor of expand x d_model (64)"),
        ("mlstm", {"head_dim": 24}, "head_dim: given 24; allowed: a divisor of expand x d_model (32)"),
    ],
)
def test_heads_that_do_not_divide_are_one_line(name, settings, message):
    with pytest.raises(ConfigError) as caught:
        MIXERS.load(name)(config_of(name, **settings), 64)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gla", {"chunk_size": 24}, "chunk_size: given 24; allowed: a power of two"),
        ("gla", {"rank": 0}, "rank: given 0; allowed: >= 1"),
        ("gla", {"tau": 0}, "tau: given 0.0; allowed: > 0"),
        ("lightning", {"chunk_size": 0}, "chunk_size: given 0; allowed: >= 1 or null"),
        ("lightning", {"expand": -1}, "expand: given -1.0; allowed: > 0"),
        (
            "lightning",
            {"decays": "minmax"},
            "decays: given 'minmax'; allowed: minimax | retnet; did you mean 'minimax'?",
        ),
    ],
)
def test_settings_out_of_range_are_one_line(name, settings, message):
    with pytest.raises(ConfigError) as caught:
        config_of(name, **settings)
    assert str(caught.value) == f"model.mixers.it.{message}"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring(name):
    cls = MIXERS.load(name).Config
    assert set(field_docs(cls)) == {field.name for field in dataclasses.fields(cls)}


def test_decays_of_gla_start_at_the_sixteenth_root_of_a_half():
    """Where nothing is projected; one token is written and 7 empty ones follow."""
    mixer = initialised(MIXERS.load("gla")(config_of("gla", head_dim=4), 16)).double()
    assert kept_after(mixer, 7) == pytest.approx([2 ** (-7 / 16)] * 2, rel=1e-12)


def kept_after(mixer, n):
    """The share of each head's memory of one token that is left after n empty ones."""
    x = torch.zeros(1, n + 1, mixer.out_proj.weight.shape[0], dtype=torch.float64)
    x[:, 0] = torch.randn(x.shape[2], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        at_once = [mixer(x[:, :m], TokenContext(torch.arange(m)), mixer.new_state(1))[1].memory for m in (1, n + 1)]
    shares = (at_once[1] / at_once[0])[0].flatten(1)
    assert (shares.amax(1) - shares.amin(1)).max() < 1e-12
    return shares[:, 0].tolist()


def lightning_model(**settings):
    given = {"layout": "lightning, attention, lightning", "d_model": 64, "vocab_size": 50}
    return LanguageModel(build(ModelConfig, {**given, "mixers": {"lightning": settings}}, "model"))


def test_decays_of_lightning_depend_on_head_and_block_in_any_model():
    """Also in one whose weights come from a checkpoint, without initial values."""
    blocks = lightning_model(head_dim=16).double().blocks
    for block, at in ((blocks[0], 0), (blocks[2], 2)):
        slopes = [2 ** (-8 * h / 4) * (1 - at / (2 + 1e-5) + 1e-5) for h in (1, 2, 3, 4)]
        assert kept_after(block.mixer, 9) == pytest.approx([math.exp(-9 * s) for s in slopes], rel=1e-10)


def test_decays_of_retnet_depend_on_the_head_alone():
    for at in (0, 2):
        mixer = lightning_model(head_dim=16, decays="retnet").double().blocks[at].mixer
        assert kept_after(mixer, 9) == pytest.approx([(1 - 2.0**-n) ** 9 for n in (5, 6, 7, 8)], rel=1e-12)


def test_decays_are_float32_under_bfloat16():
    """exp(-s) of the slowest head in bfloat16 would be 1."""
    mixer = lightning_model(head_dim=16, decays="retnet").blocks[0].mixer
    assert mixer.log_decays(torch.float32, torch.device("cpu")).exp().max() < 0.997
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        _, state = mixer(torch.randn(1, 3, 64), TokenContext(torch.arange(3)), mixer.new_state(1))
    assert state.memory.dtype == torch.float32


def test_forget_gates_of_mlstm_start_from_3_to_6_under_the_cap():
    mixer = initialised(MIXERS.load("mlstm")(config_of("mlstm", head_dim=4), 32)).double()
    capped = [15 * math.tanh(f / 15) for f in (3, 4, 5, 6)]
    assert kept_after(mixer, 7) == pytest.approx([(1 + math.exp(-f)) ** -7 for f in capped], rel=1e-12)


@pytest.mark.parametrize("documents", [False, True])
def test_the_largest_weight_is_that_of_its_recurrence(documents):
    g = torch.Generator().manual_seed(0)
    i, log_f, before = torch.randn(2, 29, 3, generator=g), -torch.rand(2, 29, 3, generator=g), torch.ones(2, 3)
    starts = torch.rand(2, 29, generator=g) < 0.2 if documents else None
    m, rows = before, []
    for t in range(29):
        if starts is not None:
            m = m.masked_fill(starts[:, t, None], 0.0)
        m = torch.maximum(log_f[:, t] + m, i[:, t])
        rows.append(m)
    assert (running_largest(i, log_f, starts, before) - torch.stack(rows, 1)).abs().max() < 1e-5


@pytest.mark.parametrize("forget", [-100.0, 100.0])
def test_gates_at_the_largest_cap_stay_in_the_range_of_float32(forget):
    """Every other token is written with exp(30), the others with exp(-30); and nothing, or all, is kept."""
    mixer = initialised(MIXERS.load("mlstm")(config_of("mlstm", head_dim=4, gate_soft_cap=30, input_bias=0), 16))
    with torch.no_grad():
        mixer.gate_proj.weight[:2, 0] = 1000.0
        mixer.gate_proj.bias[2:] = forget
    x = torch.randn(1, 40, 16, generator=torch.Generator().manual_seed(0))
    x[:, ::2, 0], x[:, 1::2, 0] = 1.0, -1.0
    y = mixer(x, TokenContext(torch.arange(40)))[0]
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())
    twin = {name: p.detach().double() for name, p in mixer.named_parameters()}
    want = mlstm(twin, mixer.config, x.double())
    assert (y - want).abs().max() < 1e-4 * want.abs().max()
