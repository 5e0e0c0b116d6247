"""From grids to runs: settings that do not apply, duplicates, runs that start from others, and runs that are
refused."""

import copy

import pytest
import torch
from omegaconf import OmegaConf

from lcprobe.config import parse
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import build
from lcprobe.studies.planning.axes import axes_of
from lcprobe.studies.planning.costs import Sized, size_rows
from lcprobe.studies.planning.initial_weights import topological_order
from lcprobe.studies.planning.memory.estimate import divisors
from lcprobe.studies.planning.plan import make_plan
from tests.tiny import TINY

ARCH = {"attn": {"model": {"layout": "attention+mlp x 2"}}, "mamba2": {"model": {"layout": "mamba2 x 2"}}}
ROPE, NONE = {"model": {"positional": "rope"}}, {"model": {"positional": "none"}}
POSE = {"model": {"positions": {"type": "pose", "max_length": 512}}}


ONE = "attention+mlp"
"""What the only model of a study without a layout is called."""


def plan(grid, **more):
    given = copy.deepcopy(TINY) | {"grid": {}, "match": {"refuse_above": 0.9}}
    given["model"]["d_ff"] = 24
    mapping = OmegaConf.to_container(OmegaConf.merge(given, {"grid": grid, **more}))
    assert isinstance(mapping, dict)
    return make_plan(mapping)


def names(grid, **more):
    return [run.name for run in plan(grid, **more).runs]


def test_runs_are_named_with_their_axes():
    """Names of an axis with one value are those of the whole study; without the axis it is not in them."""
    grid = {"seed": [0, 1], "model.positional": ["rope", {"type": "rope", "base": 500}], "train.lr": [1e-3]}
    wanted = [f"s{s}-positional={p}-lr=0.001" for s in (0, 1) for p in ("rope", "rope-base=500")]
    assert names(grid) == wanted
    assert names({**grid, "seed": [1]}) == wanted[2:]
    assert names({"model.positional": ["rope"]}) == ["positional=rope"]


@pytest.mark.parametrize(
    "way",
    [
        {"rope": ROPE, "none": NONE},
        {"trained": {}, "none": NONE},
        {"counted": {}, "pose": POSE},
        {"x": ROPE | {"train": {"lr": 0.02}}, "y": NONE | {"train": {"lr": 0.02}}},
        {k: {"model": {"mixers": {"attention": {"positional": {"type": k}}}}} for k in ("rope", "none")},
        {"near": {"model": {"mixers": {"attention": {"window": 32}}}}, "far": {}},
        {"narrow": {"model": {"d_ff": 16}}, "wide": {"model": {"d_ff": 32}}},
    ],
)
def test_settings_that_do_not_apply_give_no_second_run(way):
    result = plan({"arch": ARCH, "way": way})
    assert [run.name for run in result.runs] == [*(f"attn-{label}" for label in way), "mamba2"]
    assert result.notes == (f"mamba2: {', '.join(way)} give the same run",)
    seeds = plan({"arch": ARCH, "way": way, "seed": [0, 1]})
    assert len(seeds.runs) == 2 * (len(way) + 1)
    assert seeds.notes == result.notes


@pytest.mark.parametrize(
    ("grid", "runs", "groups"),
    [
        ({"seed": [0, 1]}, ["s0", "s1"], {ONE}),
        ({"seed": [3]}, ["s3"], {ONE}),
        ({"start": {"one": {}, "two": {"seed": 1}}}, ["one", "two"], {ONE}),
        ({"arch": ARCH, "start": {"one": {"seed": 5}, "two": {"seed": 6}}},
         ["attn-one", "attn-two", "mamba2-one", "mamba2-two"], {"attn", "mamba2"}),
        ({"rate": {"slow": {"seed": 0, "train": {"lr": 0.02}}, "fast": {"seed": 1}}}, ["slow", "fast"], {"slow", "fast"}),
    ],
)  # fmt: skip
def test_runs_that_differ_in_their_seed_alone_are_seeds_of_one_model(grid, runs, groups):
    """With a name of its own each would be an architecture of one seed, and be compared with the others."""
    result = plan(grid)
    assert [run.name for run in result.runs] == runs
    assert {run.group for run in result.runs} == groups
    assert {run.config.study.architecture for run in result.runs} == groups
    assert {run.group for run in plan(grid, study={"name": "x", "run": "m"}).runs} == (
        {"m"} if groups == {ONE} else groups
    )


def test_part_of_an_axis_may_be_duplicates():
    result = plan({"arch": ARCH, "way": {"none": NONE, "trained": {}, "fast": {"train": {"lr": 0.02}}}})
    assert [run.name for run in result.runs] == [
        "attn-none",
        "attn-trained",
        "attn-fast",
        "mamba2-trained",
        "mamba2-fast",
    ]
    assert result.notes == ("mamba2-trained: none, trained give the same run",)
    assert names({"arch": ARCH, "positional": {"rope": ROPE}}) == ["attn-rope", "mamba2"]
    assert names({"arch": ARCH, "way": {"trained": {}, "none": NONE | {"train": {"lr": 0.02}}}}) == [
        "attn-trained", "attn-none", "mamba2-trained"
    ]  # fmt: skip


def test_one_model_written_in_two_ways_is_one_run():
    written = {"model": {"mixers": {"attention": {"positional": {"type": "rope", "base": 10000}}}}}
    assert names({"way": {"a": ROPE, "b": written}}) == ["run"]
    assert names({"way": {"a": ROPE, "b": {"model": {"positional": {"type": "rope", "base": 20000}}}}}) == ["a", "b"]
    assert names({"way": {"a": ROPE, "b": {"model": {"positional": "rope+window16"}}}}) == ["a", "b"]
    assert names(
        {"way": {"a": ROPE, "b": ROPE | {"data": {"mixture": [{"lm": 0.5, "episodes": {"lines": 1}}]}}}}
    ) == ["a", "b"]


@pytest.mark.parametrize("name", sorted(POSITIONAL))
def test_an_encoding_declares_whether_it_reads_positions(name):
    """Drawn positions change the outputs of encodings that read positions, and give duplicate runs of the others."""
    given = {"layout": "attention+mlp x 2", "d_model": 16, "d_ff": 16, "vocab_size": 40, "context_length": 24}
    given |= {"mixers": {"attention": {"head_dim": 8}}, "positions": {"type": "pose", "max_length": 200}}
    given["positional"] = {"type": name, "max_length": 200} if name == "learned" else name
    model = LanguageModel(build(ModelConfig, given, "model")).double().initialise(1)
    with torch.no_grad():
        for parameter in model.parameters():  # nothing stays at a start where it does nothing
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.2
            )
        tokens = torch.randint(0, 40, (1, 24), generator=torch.Generator().manual_seed(0))
        counted = model.eval().hidden(tokens)[0]
        torch.manual_seed(0)
        drawn = model.train().hidden(tokens)[0]
    moved = float((counted - drawn).abs().max()) > 1e-9
    way = {"counted": {}, "pose": POSE}
    result = names(
        {"way": way},
        model={"positional": given["positional"] if name != "learned" else {"type": name, "max_length": 512}},
    )
    assert result == (["counted", "pose"] if moved else ["run"])


FROM_A, FROM_B = {"train": {"from": "a"}}, {"train": {"from": "b"}}


@pytest.mark.parametrize(
    "way",
    [{"c": FROM_B, "b": FROM_A, "a": {}}, {"a": {}, "b": FROM_A, "c": FROM_B}, {"b": FROM_A, "c": FROM_B, "a": {}}],
)
def test_runs_come_after_those_that_they_start_from(way):
    result = plan({"way": way, "seed": [0, 1]})
    assert [run.name for run in result.runs] == [f"{label}-s{seed}" for label in "abc" for seed in (0, 1)]
    starts = {run.name: run.config.train.from_ for run in result.runs}
    assert starts["b-s1"] == "runs/tiny/a-s1"
    assert starts["c-s0"] == "runs/tiny/b-s0"


def test_runs_that_start_from_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"^grid \(a\): train.from: given 'a from c from b from a'"):
        plan({"way": {"a": {"train": {"from": "c"}}, "b": FROM_A, "c": FROM_B}})
    long = {("0",): None} | {(str(i),): (str(i - 1),) for i in range(1, 5000)}
    assert topological_order(dict(reversed(long.items()))) == list(long)


def test_a_source_run_is_referred_to_by_its_final_name():
    base, more = {"base": NONE}, {"b": {"train": {"from": "base", "lr": 0.02}}}
    result = plan({"arch": ARCH, "way": base | more})
    assert [run.name for run in result.runs] == ["attn-base", "mamba2", "attn-b", "mamba2-b"]
    assert result.runs[-1].config.train.from_ == "runs/tiny/mamba2"
    assert result.notes == ("mamba2: base has no effect",)
    way = {"base": {}, "other": NONE, **more, "c": {"train": {"from": "other", "lr": 0.02}}}
    result = plan({"arch": ARCH, "way": way})
    assert len(result.runs) == 6
    assert {run.name: run.config.train.from_ for run in result.runs if run.name.startswith("mamba2")} == {
        "mamba2-base": None, "mamba2-b": "runs/tiny/mamba2-base"
    }  # fmt: skip


def test_runs_that_start_from_one_that_is_left_out_are_left_out():
    way = {"base": NONE | {"train": {"lr": 0.02}}, "b": {"train": {"from": "base"}}, "c": {"train": {"from": "b"}}}
    result = plan({"arch": ARCH, "way": way})
    assert [run.name for run in result.runs] == ["attn-base", "attn-b", "attn-c"]
    assert result.notes == (
        "left out, no model with attention: mamba2-base", "left out, no run to start from: mamba2-b, mamba2-c",
    )  # fmt: skip


def test_a_source_run_has_the_same_parameters():
    way = {"a": ROPE, "b": {"model": {"positional": "t5"}} | FROM_A}
    with pytest.raises(
        ConfigError, match=r"^grid \(b\): train.from: given 'a, without blocks.0.mixer.positional.weight'"
    ):
        plan({"way": way})
    with pytest.raises(ConfigError, match=r"given 'a, with blocks.0.mlp.up_gate.weight of 48x16, here 64x16'"):
        plan({"way": {"a": {}, "b": {"model": {"d_ff": 32}} | FROM_A}})
    assert names({"way": {"a": ROPE, "b": NONE | FROM_A}}) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": {"positional": {"type": "learned", "max_length": 63}}}, "63"),
        ({"model": {"positions": {"type": "randomized", "max_length": 63}}}, "63"),
        ({"model": {"positions": {"type": "pose", "max_length": 63}}}, "63"),
        (
            {"model": {"layout": "mamba2 x 2"}, "train": {"initial_state": {"type": "passed", "chain": 4}}},
            "chain: given 4; allowed: < 4",
        ),
        ({"train": {"switch": {"at": 0.5, "positional": "t5"}}}, "without learned parameters"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_the_plan_and_named(given, words):
    with pytest.raises(ConfigError, match=r"^grid \(b\): ") as caught:
        plan({"way": {"a": {}, "b": given}})
    assert words in str(caught.value)
    parse(TINY | {"grid": {}})  # nothing is wrong with the rest


def test_probing_while_training_stays_within_the_models_maximum_length():
    grid = {"tasks": ["single"], "lengths": [1, 2], "depths": 1, "n": 4}
    with pytest.raises(
        ConfigError, match=r"^grid \(learned\): probe.while_training.lengths: given 128; allowed: <= 64 tokens"
    ):
        plan({"way": {"rope": ROPE, "learned": {"model": {"positional": "learned"}}}}, probe={"while_training": grid})
    assert len(names({"way": {"rope": ROPE}}, probe={"while_training": grid})) == 1


HALF = {"type": "rope", "fraction": 0.4}


@pytest.mark.parametrize(
    ("model", "start"),
    [
        (
            {"positional": "rope", "mixers": {"attention": {"head_dim": 1}}},
            "model.mixers.attention.head_dim: given 1",
        ),
        (
            {"positional": "prope", "mixers": {"attention": {"head_dim": 1}}},
            "model.mixers.attention.head_dim: given 1",
        ),
        (
            {"mixers": {"attention": {"head_dim": 1, "positional": {"type": "xpos"}}}},
            "model.mixers.attention.head_dim: given 1",
        ),
        (
            {"layout": "near x 2", "mixers": {"near": {"type": "attention", "head_dim": 5}}},
            "model.mixers.near.head_dim: given 5",
        ),
        ({"positional": HALF}, "model.positional.fraction: given 0.4"),
        ({"positional": "half", "encodings": {"half": HALF}}, "model.encodings.half.fraction: given 0.4"),
        ({"positional": "[half, none]", "encodings": {"half": HALF}}, "model.encodings.half.fraction: given 0.4"),
        ({"mixers": {"attention": {"positional": HALF}}}, "model.mixers.attention.positional.fraction: given 0.4"),
        (
            {"positional": "stick_breaking+sink"},
            "model.positional: given 'stick_breaking\\+sink'; allowed: sink_logit false",
        ),
        ({"positional": "rope+window0"}, "model.positional: given 'rope\\+window0'; allowed: window >= 1"),
        (
            {
                "positional": "sinusoidal",
                "d_model": 15,
                "mixers": {"attention": {"head_dim": 5, "positional": {"type": "none"}}},
            },
            "model.d_model: given 15",
        ),
    ],
)
def test_a_message_names_the_key_that_is_wrong(model, start):
    with pytest.raises(ConfigError, match=rf"^{start}"):
        plan({}, model=model)


@pytest.mark.parametrize(
    ("switch", "start"),
    [
        ("none", "train.switch.positional: given 'none'; allowed: null: the model has no attention"),
        ("rope+window0", "train.switch.positional: given 'rope\\+window0'; allowed: window >= 1"),
        ("rop", "train.switch.positional: given 'rop'.*mean 'rope'"),
        (HALF, "train.switch.positional.fraction: given 0.4"),
        ("half", "model.encodings.half.fraction: given 0.4"),
        ("sinusoidal", "train.switch.positional: given 'sinusoidal'; allowed: encodings of attention"),
        ("t5", "train.switch.positional: given 'T5'; allowed: encodings without learned"),
    ],
)
def test_a_message_about_a_switch_names_the_switch(switch, start):
    layout = "mamba2 x 2" if switch == "none" else "attention+mlp x 2"
    with pytest.raises(ConfigError, match=rf"^{start}"):
        model = {"layout": layout, "encodings": {"half": HALF}}
        plan({}, model=model, train={"switch": {"at": 0.5, "positional": switch}})


def test_a_grid_of_more_runs_than_anyone_trains_is_refused():
    assert len(axes_of({"seed": [*range(500)], "train.lr": [0.1, 0.2]})) == 2
    with pytest.raises(ConfigError, match="^grid: given '1002 runs'; allowed: at most 1000"):
        axes_of({"seed": [*range(501)], "train.lr": [0.1, 0.2]})


def test_divisors():
    assert all(divisors(n) == [a for a in range(1, n + 1) if n % a == 0] for n in range(1, 200))
    assert len(divisors(2**31)) == 32


def test_sizes_say_nothing_of_how_a_published_model_was_trained():
    """Its config stands for how it reads; rate, batch and steps in it are defaults."""
    run, other = plan({"length": {"a": {}, "b": {"train": {"context_length": 16}}}}).runs
    trained, longer = (Sized(r.name, r.config, r.matched.cost, r.config.train.tokens) for r in (run, other))
    theirs = Sized("theirs", other.config, other.matched.cost, 0, published=True)
    assert {row["lr"] for row in size_rows([trained, longer])} == {run.config.train.lr}
    own, published = size_rows([trained, theirs])
    assert own["lr"] == run.config.train.lr
    assert own["training FLOPs"]
    assert [published[name] for name in ("lr", "tokens", "training FLOPs")] == [None] * 3
    assert "lr" not in size_rows([theirs])[0]
