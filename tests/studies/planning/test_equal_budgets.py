"""Budgets at several training lengths: what `match.training` and `match.batch` hold equal is equal, as the configs of
the runs say, and a run's own config gives the same run again."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lcprobe.errors import ConfigError
from lcprobe.models.parts import model_cost
from lcprobe.schema import plain
from lcprobe.studies.planning.costs import held_equal_note, matching_table, schedule_notes, whole_steps_notes
from lcprobe.studies.planning.plan import PlannedRun, make_plan
from tests.tiny import TINY

LENGTHS = {f"L{n}": {"train": {"context_length": n}} for n in (128, 64, 32)}
ARCH = {"attn": {"model": {"layout": "attention+mlp x 2"}}, "mamba2": {"model": {"layout": "mamba2 x 2"}}}


def plan(length=LENGTHS, **more):
    given = copy.deepcopy(TINY) | {"grid": {"length": length, "arch": ARCH}, "match": {"budget": "mamba2"}}
    given["probe"]["while_training"] = None
    given["train"] |= {"tokens": 10_000, "batch_tokens": 128, "context_length": 32}
    mapping = OmegaConf.to_container(OmegaConf.merge(given, more))
    assert isinstance(mapping, dict)
    return make_plan(mapping)


def by_architecture(result):
    """Runs of each architecture from the longest training length to the shortest."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in result.runs:
        groups.setdefault(run.config.study.architecture, []).append(run)
    assert set(groups) == {"attn", "mamba2"}
    return groups


def flops(run):
    """Training FLOPs over whole steps, from the closed form of the model's cost."""
    train = run.config.train
    cost = model_cost(run.config.model, train.context_length)
    return 3 * cost.flops * train.steps * train.batch_tokens


@pytest.mark.parametrize("batch", ["tokens", "rows"])
@pytest.mark.parametrize("training", ["tokens", "steps", "flops"])
def test_what_is_held_equal_is_equal(training, batch):
    for runs in by_architecture(plan(match={"training": training, "batch": batch})).values():
        assert [run.config.train.context_length for run in runs] == [128, 64, 32]
        reference = runs[-1].config.train
        assert (reference.tokens, reference.batch_tokens) == (10_000, 128)
        for run in runs:
            train = run.config.train
            assert train.batch_tokens == (128 if batch == "tokens" else 4 * train.context_length)
            got = {"tokens": train.steps * train.batch_tokens, "steps": train.steps, "flops": flops(run)}
            wanted = {"tokens": 78 * 128, "steps": 78, "flops": flops(runs[-1])}
            one_step = {"tokens": train.batch_tokens, "steps": 0, "flops": flops(run) / train.steps}
            assert abs(got[training] - wanted[training]) <= one_step[training] / 2 + 1e-6
            assert run.matched.cost.flops == model_cost(run.config.model, train.context_length).flops


def test_the_default_changes_nothing():
    assert {(run.config.train.tokens, run.config.train.batch_tokens) for run in plan().runs} == {(10_000, 128)}


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from(["tokens", "steps", "flops"]),
    st.sampled_from(["tokens", "rows"]),
    st.integers(1, 4),
    st.integers(40, 90),
)
def test_a_runs_own_config_gives_the_same_run(training, batch, rows, steps):
    train = {"batch_tokens": 128 * rows, "tokens": 128 * rows * steps + 5}
    for run in plan(match={"training": training, "batch": batch}, train=train).runs[::3]:
        (again,) = make_plan(plain(run.config)).runs
        assert plain(again.config) == plain(run.config)
        assert again.matched.cost == run.matched.cost


@pytest.mark.parametrize("training", ["tokens", "steps", "flops"])
def test_what_the_grid_sets_stays(training):
    length = copy.deepcopy(LENGTHS)
    length["L128"]["train"] |= {"tokens": 7_000}
    length["L64"]["train"] |= {"batch_tokens": 512}
    result = plan(length, match={"training": training, "batch": "rows"})
    for longest, middle, _ in by_architecture(result).values():
        assert (longest.config.train.tokens, longest.config.train.batch_tokens) == (7_000, 512)
        assert middle.config.train.batch_tokens == 512
        if training == "steps":
            assert middle.config.train.steps == 78
    assert "train.tokens: as the grid sets it, whatever match has: L128-attn, L128-mamba2" in result.notes
    assert "train.batch_tokens: as the grid sets it, whatever match has: L64-attn, L64-mamba2" in result.notes


def test_rows_of_a_batch_that_is_no_multiple_of_the_longest_length():
    """With rows, the configured batch is that of the shortest length alone."""
    with pytest.raises(ConfigError, match=r"^grid \(L128, attn\): train.batch_tokens: given 64;"):
        plan(train={"batch_tokens": 64})
    runs = plan(train={"batch_tokens": 64}, match={"batch": "rows"}).runs
    assert {run.config.train.rows for run in runs} == {2}


@pytest.mark.parametrize(
    ("training", "tokens", "wanted"),
    [
        (
            "tokens",
            128,
            r"attn\): train.tokens: given 128; allowed: >= 512, for one step .* length 128 \(512 tokens\)",
        ),
        ("tokens", 500, r"attn\): train.tokens: given 500; allowed: >= 512, for one step"),  # 384 in whole steps
        (
            "flops",
            512,
            r"attn\): train.tokens: given 512; allowed: >= 640, for .*512 tokens, each 1.* times the FLOPs",
        ),
    ],
)
def test_a_budget_of_less_than_a_step_is_refused(training, tokens, wanted):
    """In the words of the budget that was written, and what is allowed is enough."""
    match = {"training": training, "batch": "rows"}
    with pytest.raises(ConfigError, match=r"^grid \(L128, " + wanted) as caught:
        plan(train={"tokens": tokens}, match=match)
    enough = int(str(caught.value).split(">= ")[1].split(",")[0])
    assert {run.config.train.steps for run in plan(train={"tokens": enough}, match=match).runs[:2]} == {1}


def test_a_sweep_has_a_step_at_every_training_length():
    sweep = {"study": {"lr_sweep": {"lrs": [0.1, 0.2], "tokens": 256}}}
    assert plan(match={"batch": "tokens"}, **sweep).runs
    with pytest.raises(
        ConfigError, match=r"study.lr_sweep.tokens: given 256; allowed: >= train.batch_tokens \(512\)"
    ):
        plan(match={"batch": "rows"}, **sweep)


def test_the_plan_shows_each_training_length():
    result = plan(match={"training": "steps", "batch": "rows"})
    assert held_equal_note(result) == ["held equal across training lengths: steps (batch in rows)"]
    rows = {row["model"]: row for row in matching_table(result)}
    for run in result.runs:
        row, train = rows[run.name], run.config.train
        assert row["training length"] == train.context_length
        assert row["batch tokens"] == train.batch_tokens == 4 * train.context_length
        assert row["tokens"] == train.trained_tokens
        assert row["FLOPs/token"] == round(model_cost(run.config.model, train.context_length).flops)
        assert row["training FLOPs"] == pytest.approx(3 * run.matched.cost.flops * train.trained_tokens)
        assert "steps" not in row  # equal in all
    assert {"steps", "training FLOPs"} <= set(matching_table(plan(match={"batch": "rows"}))[0])
    one = plan({"L64": LENGTHS["L64"]})
    assert held_equal_note(one) == schedule_notes(one) == []
    assert "FLOPs/token @64" in matching_table(one)[0]


def test_the_plan_names_a_curriculum_of_lengths_once_for_the_models_that_have_it():
    stages = [{"until": 0.5, "length": 0.5}, {"length": 1}]
    lengths = {**LENGTHS, "L64": {"train": {"context_length": 64, "length_schedule": stages}}}
    (note,) = schedule_notes(plan(lengths, data={"mixture": [{"lm": 1.0}]}))
    assert note.startswith("context length 32 until 0.5, then 64 (FLOPs, hours and memory are those of the training")
    assert note.endswith(": L64-attn, L64-mamba2")


@pytest.mark.parametrize(
    "grid",
    [
        {"train.context_length": [48, 96]},
        {"train": {"context_length": [48, 96]}},
        {"length": {"L48": {"train": {"context_length": 48}}, "L96": {"train": {"context_length": 96}}}},
    ],
)
def test_a_batch_need_not_fit_a_training_length_that_no_run_has(grid):
    """The default of train.context_length, 512, is no multiple of this batch, and no run is trained at it."""
    model = {"d_model": 32, "layout": "attention+mlp x 1", "d_ff": 64, "mixers": {"attention": {"head_dim": 16}}}
    plan = make_plan({"model": model, "grid": grid, "train": {"batch_tokens": 960, "tokens": 9600}})
    assert [run.config.train.context_length for run in plan.runs] == [48, 96]


def test_layouts_and_training_lengths_in_one_axis_are_pointed_out():
    """Runs then have no architecture in common, and training lengths are not compared."""
    grid = {
        f"{kind}{n}": {"model": {"layout": layout}, "train": {"context_length": n}}
        for kind, layout in (("att", "attention+mlp x 1"), ("ssm", "mamba2 x 1"))
        for n in (32, 64)
    }
    plan = make_plan({**TINY, "match": {**TINY["match"], "budget": "ssm32"}, "grid": {"kind": grid}})
    assert any("an axis of their own" in note for note in plan.notes)


def test_a_budget_that_is_no_whole_number_of_steps_is_said():
    mapping = {**TINY, "train": {**TINY["train"], "tokens": 1500, "batch_tokens": 1024}}
    (note,) = whole_steps_notes(make_plan(mapping))
    assert note.startswith(
        "train.tokens: 1,500 is no multiple of train.batch_tokens (1,024), so that 1,024 are trained: "
    )
    assert {row["tokens"] for row in matching_table(make_plan(mapping))} == {1024}
    whole = {**mapping, "train": {**mapping["train"], "tokens": 2048}}
    assert not whole_steps_notes(make_plan(whole))
    swept = {**whole, "study": {**TINY["study"], "lr_sweep": {"lrs": [1e-3, 1e-2], "tokens": 1500}}}
    (note,) = whole_steps_notes(make_plan(swept))
    assert note.startswith("study.lr_sweep.tokens: 1,500 is no multiple of train.batch_tokens (1,024), so that 1,024")
