"""Encodings of layers: patterns, named encodings, absolute encodings, drawn positions, replacement in place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import model_cost
from lcprobe.models.positional import POSITIONS
from lcprobe.models.positional.schedule import ENCODING_PATTERN
from lcprobe.schema import build


def model_of(positional, layout="attention+mlp x 4", **settings):
    config = {"layout": layout, "d_model": 16, "d_ff": 24, "vocab_size": 40, "context_length": 32, **settings}
    config["mixers"] = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}}
    return (
        LanguageModel(build(ModelConfig, {**config, "positional": positional}, "model")).initialise(1).double().eval()
    )


def carried_by(model):
    mixers = [mixer for mixer in model.mixers() if mixer.encoding is not None]
    return [
        (type(m.positional).__name__, m.window, m.sinks, type(m.temperature).__name__, m.has_sink_logit)
        for m in mixers
    ]


def test_a_pattern_repeats_over_the_attention_layers():
    carried = carried_by(model_of("[rope+window7+sinks2, none+logn+sink]"))
    local, whole = ("RoPE", 7, 2, "NoneType", False), ("NoPE", None, 0, "LogN", True)
    assert carried == [local, whole, local, whole]
    hybrid = carried_by(model_of("prope, xpos+ssmax", layout="[mamba2, attention] x 3"))
    assert [h[0] for h in hybrid] == ["PRoPE", "XPos", "PRoPE"]
    assert [h[3] for h in hybrid] == ["NoneType", "SSMax", "NoneType"]
    assert carried_by(model_of(["rope x 3", "none"]))[3][0] == "NoPE"


def test_named_encodings_and_one_mapping_for_all_layers():
    far = model_of("[far x 3, none]", encodings={"far": {"type": "rope", "base": 500000.0}})
    assert far.blocks[0].mixer.positional.base == 500000.0
    assert model_of({"type": "rope", "fraction": 0.5}).blocks[3].mixer.positional.rotary_dim == 4


@pytest.mark.parametrize(
    ("positional", "message"),
    [
        ("rop", r"allowed: alibi \| .*did you mean 'rope'"),
        ("[rope x 3, none", "a missing ]"),
        ("rope+windw5", r"window<n> \| sinks<n> \| logn \| ssmax \| sink"),
        ("rope+window0", ">= 1 or null"),
        ("rope+logn+ssmax", "given 'rope\\+logn\\+ssmax'; allowed: one window, .* one temperature"),
        ("rope+window8+window9", "one window"),
        ("rope+window8+sinks1+sinks1", "one number of sinks"),
        ("rope+sink+sink", "one sink per layer"),
        ({"type": "prope", "fraction": 0.2}, "0, or >= 0.25: one of 4 pairs"),
        (3, "a pattern such as"),
        ("[learned, rope]", "`learned` alone"),
        ({"type": "learned", "max_length": 0}, ">= 1 or null"),
        ({"base": 3}, "type"),
    ],
)
def test_invalid_patterns_give_a_one_line_error(positional, message):
    with pytest.raises(ConfigError, match=message) as caught:
        model_of(positional)
    assert "\n" not in str(caught.value)
    assert caught.value.key.startswith("model.positional")


def test_a_model_without_attention_cannot_carry_an_encoding():
    with pytest.raises(ConfigError, match="no attention"):
        model_of("rope", layout="mamba2 x 2")


@pytest.mark.parametrize("positional", ["learned", "sinusoidal", "[selective_rope, pope]", "fope+ssmax+sink"])
def test_cost_counts_the_parameters_of_encodings(positional):
    model = model_of(positional)
    assert model_cost(model.config, 32).params == sum(p.numel() for p in model.parameters())


def test_absolute_positions_act_once_and_end_with_their_table():
    model = model_of("learned")
    assert carried_by(model)[0][0] == "NoPE"
    tokens = torch.randint(0, 40, (2, 33), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, _ = model.hidden(tokens[:, :32])
        first, state = model.hidden(tokens[:, :13], state=model.new_state(2))
        second, state = model.hidden(tokens[:, 13:32], state=state)
        torch.testing.assert_close(torch.cat([first, second], 1), whole)
        with pytest.raises(ConfigError, match="<= 32, where the model's positions end"):
            model.hidden(tokens[:, 32:], state=state)


@given(st.integers(2, 60), st.integers(0, 200), st.integers(0, 999), st.integers(2, 5))
def test_drawn_positions_ascend_below_max_length(seqlen, spare, seed, chunks):
    for name in POSITIONS:
        own = {"chunks": chunks} if name == "pose" else {}
        choice = choose(POSITIONS, {"type": name, "max_length": seqlen + spare, **own}, "positions")
        torch.manual_seed(seed)
        drawn = choice.create().draw(seqlen)
        assert drawn.shape == (seqlen,)
        assert (drawn.diff() > 0).all()
        assert 0 <= int(drawn[0])
        assert int(drawn[-1]) < seqlen + spare
        if name == "pose":
            assert int(drawn[0]) == 0
            assert int((drawn.diff() > 1).sum()) <= chunks - 1


@pytest.mark.parametrize(
    ("positional", "positions", "key", "message"),
    [
        ({"type": "learned", "max_length": 31}, None, "positional", "given 31; allowed: >= the training length 32"),
        (
            "rope",
            {"type": "randomized", "max_length": 31},
            "positions",
            "given 31; allowed: >= the training length 32",
        ),
        ("rope", {"type": "pose", "max_length": 31}, "positions", "given 31; allowed: >= the training length 32"),
        (
            "learned",
            {"type": "randomized", "max_length": 33},
            "positions",
            "given 33; allowed: <= 32, where the table",
        ),
        ({"type": "learned", "max_length": 128}, {"type": "pose", "max_length": 129}, "positions", "allowed: <= 128"),
    ],
)
def test_positions_beyond_their_table_are_refused_when_the_model_is_built(positional, positions, key, message):
    config = {"layout": "attention", "d_model": 16, "vocab_size": 40, "context_length": 32, "positional": positional}
    config |= {"positions": positions, "mixers": {"attention": {"head_dim": 8}}}
    parsed = build(ModelConfig, config, "model")
    with torch.device("meta"), pytest.raises(ConfigError, match=message) as caught:
        LanguageModel(parsed)
    assert caught.value.key == f"model.{key}.max_length"


@pytest.mark.parametrize("kind", ["randomized", "pose"])
def test_a_table_of_max_length_covers_all_drawn_positions(kind):
    model = model_of({"type": "learned", "max_length": 64}, positions={"type": kind, "max_length": 64}).train()
    for seed in range(20):
        torch.manual_seed(seed)
        model.hidden(torch.zeros(1, 32, dtype=torch.int64))


def test_skips_of_pose_are_each_uniform_from_the_one_before():
    """u_1 has mean spare / 2, u_2 given u_1 the mean of u_1 and spare, ... (Zhu et al. 2023), unlike sorted uniform
    ones."""
    choice = choose(POSITIONS, {"type": "pose", "max_length": 1064, "chunks": 4}, "positions")
    torch.manual_seed(0)
    drawn = torch.stack([choice.create().draw(64) for _ in range(2000)]) - torch.arange(64)
    skips = torch.stack(
        [row.unique_consecutive()[[1, 2, 3]] for row in drawn if len(row.unique_consecutive()) == 4]
    ).double()
    assert (drawn[:, 0] == 0).all()
    for i, mean in enumerate((500, 750, 875)):
        assert abs(float(skips[:, i].mean()) - mean) < 30
    low = skips[:, 0] < 200
    assert abs(float(skips[low, 1].mean()) - (1000 + float(skips[low, 0].mean())) / 2) < 50


@pytest.mark.parametrize("positions", [{"type": "pose"}, {"type": "randomized", "at_test": "counted"}])
def test_positions_are_drawn_in_training_only(positions):
    model = model_of("rope", positions={**positions, "max_length": 400})
    assert not model.needs_length
    assert model.max_length is None
    tokens = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        counted, again = model.hidden(tokens)[0], model.hidden(tokens)[0]
        torch.manual_seed(1)
        drawn = model.train().hidden(tokens)[0]
        assert torch.equal(counted, model_of("rope").hidden(tokens)[0])
    assert torch.equal(counted, again)
    assert (drawn - counted).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="max_length"):
        model.hidden(torch.zeros(1, 401, dtype=torch.int64))


def test_encodings_are_replaced_in_place():
    model, plain = model_of("rope"), model_of("none")
    plain.load_state_dict(model.state_dict())
    tokens = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.equal(model.hidden(tokens)[0], plain.hidden(tokens)[0])
        model.set_positional(ENCODING_PATTERN.convert("none", "model.positional"))
        assert torch.equal(model.hidden(tokens)[0], plain.hidden(tokens)[0])
    for before, after in (
        ("rope", "pope"),
        ("selective_rope", "none"),
        ("rope", "none+ssmax"),
        ("rope", "none+sink"),
    ):
        with pytest.raises(ConfigError, match="without learned parameters"):
            model_of(before).set_positional(ENCODING_PATTERN.convert(after, "model.positional"))
    for before, after in (("learned", "none"), ("rope", "sinusoidal")):
        with pytest.raises(ConfigError, match="before and after"):
            model_of(before).set_positional(ENCODING_PATTERN.convert(after, "model.positional"))
