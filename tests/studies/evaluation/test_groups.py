"""Groups of runs from several studies: pooled as training seeds only where nothing but the seed differs."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.answer.headline import headline_tables
from lcprobe.analysis.report.answer.limits import folded_limits
from lcprobe.analysis.report.flags import flags
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.config import Config, parse
from lcprobe.files import write_json
from lcprobe.studies.evaluation.costs.tables import print_costs
from lcprobe.studies.evaluation.evaluate_study import _what_is_probed
from lcprobe.studies.evaluation.groups import group_names, group_notes
from lcprobe.studies.evaluation.reporting.screen import table_text, title_of
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget, _at_step
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.probe_costs import Prompts
from lcprobe.training.checkpoint import Progress
from tests.analysis import fabricated


@pytest.fixture
def run(tmp_path):
    """A target in `study/group-seed` with settings on top of the defaults."""

    def made(
        study: str, group: str, seed: int, architecture: str = "", tokens: int = 64, /, **settings
    ) -> ProbeTarget:
        folder: Path = tmp_path / study / f"{group}-s{seed}"
        write_json(folder / "status.json", {"status": "done", "group": group})
        config: Config = parse({**settings, "seed": seed})
        config = replace(config, study=replace(config.study, architecture=architecture))
        source = TrainedCheckpoint(folder / "checkpoints" / "step-1", folder)
        write_json(source.path / "state.json", asdict(Progress(tokens=tokens)))
        return ProbeTarget(f"{study}.{group}-s{seed}", source, config)

    return made


def groups(*targets: ProbeTarget) -> list[str]:
    return [names.group for names in group_names(targets)]


def test_runs_of_one_study_keep_its_names(run):
    runs = [run("one", "mamba2", seed, train={"from": f"base-s{seed}"}) for seed in (0, 1)]
    assert groups(*runs) == ["mamba2", "mamba2"]


def test_seeds_that_were_trained_as_two_studies_are_one_group(run):
    first = run("one", "mamba2", 0, train={"threads": 1}, data={"folder": "here"})
    second = run("two", "mamba2", 1, train={"threads": 2}, data={"folder": "there"})
    assert groups(first, second) == ["mamba2", "mamba2"]


SETTINGS_THAT_DO_NOT_DECIDE = [
    {"train": {"accumulate": 2, "devices": 2, "threads": 1, "compile": True, "recompute": True, "keep": 5}},
    {"train": {"checkpoint_every": 1000, "log_every": 1, "probe_every": 0}},
    {"data": {"folder": "elsewhere", "recipes": {"unused": {"task": {"type": "niah"}}}}},
    {"track": {"wandb": "off", "tags": ["mine"]}},
    {"probe": {"tasks": {"one": {"type": "niah"}}, "grids": [{}]}},
    {"study": {"folder": "elsewhere"}, "kernels": {"backend": "torch"}},
    {"model": {"mixers": {"attention": {"head_dim": 8}}}},  # of which the layout has none
]


@pytest.mark.parametrize("other", SETTINGS_THAT_DO_NOT_DECIDE, ids=str)
@pytest.mark.parametrize("label", ["mamba2", "another-name"])
def test_runs_that_differ_in_settings_that_do_not_decide_are_seeds_of_one_model(run, other, label):
    layout = {"layout": "mamba2 x 2", **other.get("model", {})}
    runs = [
        run("one", "mamba2", 0, model={"layout": "mamba2 x 2"}),
        run("two", label, 1, **{**other, "model": layout}),
    ]
    assert groups(*runs) == ["mamba2", "mamba2"]
    assert group_notes(runs) == []


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"data": {"tokenizer": "small.json"}}, ("mamba2-tokenizer=shipped", "mamba2-tokenizer=small.json")),
        ({"train": {"lr": 0.5}}, ("mamba2-lr=0.001", "mamba2-lr=0.5")),
        ({"model": {"d_model": 96}, "train": {"clip": 2}, "data": {"held_out": 0.1}}, ("one.mamba2", "two.mamba2")),
    ],
    ids=str,
)
def test_models_of_one_name_that_differ_are_told_apart_by_what_differs(run, other, names):
    runs = [
        run("one", "mamba2", 0),
        run("one", "hybrid", 0, model={"layout": "attention"}),
        run("two", "mamba2", 0, **other),
        run("two", "mamba2", 1, **other),
    ]
    assert groups(*runs) == [names[0], "hybrid", names[1], names[1]]
    (note,) = group_notes(runs)
    assert note.startswith(f"2 models are called mamba2: {names[0]}, {names[1]} differ in ")
    assert all(key in note for room in other.values() for key in room)


@pytest.mark.parametrize("written", ["alibi", {"type": "alibi"}], ids=str)
def test_models_that_differ_in_their_encoding_are_called_after_what_they_have(run, written):
    attention = {"layout": "attention x 2"}
    runs = [run("one", "m", 0, model=attention), run("two", "m", 0, model={**attention, "positional": written})]
    key = "positional" if isinstance(written, str) else "type"
    assert groups(*runs) == [f"m-{key}=rope", f"m-{key}=alibi"]
    (note,) = group_notes(runs)
    assert "null" not in note


def test_a_run_that_is_not_finished_is_no_seed_of_the_trained_model(run):
    runs = [run("one", "mamba2", 0, "", 64), run("one", "mamba2", 1, "", 32)]
    assert groups(*runs) == ["mamba2-trained_tokens=64", "mamba2-trained_tokens=32"]


def test_two_checkpoints_of_one_run_have_two_names(run):
    first = run("one", "mamba2", 0, "", 32)
    later = replace(first, source=replace(first.source, path=first.source.path.with_name("step-2")))
    write_json(later.source.path / "state.json", asdict(Progress(tokens=64)))
    assert [_at_step(target) for target in (first, later)] == ["one.mamba2-s0@step-1", "one.mamba2-s0@step-2"]
    assert groups(first, later) == ["mamba2-trained_tokens=32", "mamba2-trained_tokens=64"]


def test_studies_of_one_name_are_not_taken_for_one(run, tmp_path):
    changed = {"model": {"d_model": 96}, "train": {"clip": 2}, "data": {"held_out": 0.1}}
    first, second = groups(run("a/study", "mamba2", 0), run("b/study", "mamba2", 0, **changed))
    assert first != second
    assert {first[:7], second[:7]} == {"mamba2-"}


def test_continued_runs_are_one_model_if_what_they_started_from_is(run, tmp_path):
    """A run that is continued has the seed of the run that it started from in the path of `train.from`."""
    for name, lr in (("base-s0", 0.1), ("base-s1", 0.1), ("other-s0", 0.2)):
        (tmp_path / "one" / name).mkdir(parents=True)
        (tmp_path / "one" / name / "config.yaml").write_text(f"train: {{lr: {lr}}}\nseed: {name[-1]}\n")
    starts = [str(tmp_path / "one" / name) for name in ("base-s0", "base-s1", "other-s0")]
    runs = [run(f"study{i}", "long", i, train={"from": start}) for i, start in enumerate(starts)]
    names = groups(*runs)
    assert names[0] == names[1] != names[2]


def test_an_architecture_at_another_training_length_is_the_same_and_otherwise_changed_is_not(run):
    short = run("one", "L64-mamba2", 0, "mamba2", train={"context_length": 64, "batch_tokens": 64 * 8})
    long = run("two", "L128-mamba2", 0, "mamba2", train={"context_length": 128, "batch_tokens": 128 * 8})
    wide = run("three", "L128-mamba2", 0, "mamba2", model={"d_model": 96})
    assert [names.architecture for names in group_names([short, long])] == ["mamba2", "mamba2"]
    assert [names.architecture for names in group_names([short, wide])] == [
        "mamba2-d_model=null",
        "mamba2-d_model=96",
    ]


def test_two_models_of_one_name_are_compared_with_the_right_sign(run):
    """Planted: one study's mamba2 answers .35 and its hybrid .55, the other study's mamba2 .85: +.30 over the hybrid,
    which the mean of both models that are called mamba2 would turn to about .05."""
    planted = [("one", "mamba2", 0.05, 0.35), ("one", "hybrid", 0.01, 0.55), ("two", "mamba2", 0.01, 0.85)]
    targets, behaviours = [], {}
    for study, name, lr, accuracy in planted:
        for seed in (0, 1):
            layout = {"hybrid": "attention+mlp, mamba2"}.get(name, "mamba2 x 2")
            targets.append(run(study, name, seed, train={"lr": lr}, model={"layout": layout}))
            behaviours[targets[-1].name] = lambda c, p=accuracy: np.full(len(c["task"]), p)
    names = group_names(targets)
    facts = [fabricated.run(t.name, group=n.group, seed=t.config.seed) for t, n in zip(targets, names, strict=True)]
    cells = fabricated.plan(["multikey"], lengths=(128,), n=100)
    study = fabricated.study(facts, [fabricated.task("multikey", 4)], cells)
    results = analyse(study, fabricated.records(behaviours, cells))
    found = {c.what.split(",")[0]: c for c in results.contrasts if c.kind == "models"}
    assert [*found] == ["mamba2-lr=0.05 − hybrid", "mamba2-lr=0.05 − mamba2-lr=0.01", "hybrid − mamba2-lr=0.01"]
    for contrast, truth in zip(found.values(), (-0.2, -0.5, -0.3), strict=True):
        assert contrast.low < truth < contrast.high
        assert contrast.difference < 0


def test_the_same_seed_twice_is_one_training_seed_and_said():
    """A copy of a run: no second seed, whatever its folder is called."""
    runs = [fabricated.run(f"{study}.a-s{seed}", group="a", seed=seed) for study, seed in (("x", 0), ("y", 0))]
    runs += [fabricated.run(f"b-s{seed}", group="b", seed=seed) for seed in (0, 1)]
    cells = fabricated.plan(["multikey"], lengths=(128,), n=50)
    behaviours = {r.name: lambda c, p=0.8 if r.group == "a" else 0.4: np.full(len(c["task"]), p) for r in runs}
    study = fabricated.study(runs, [fabricated.task("multikey", 4)], cells)
    results = analyse(study, fabricated.records(behaviours, cells))
    texts = [sentence.text for sentence in flags(results)]
    twice = (
        "a: seed 0 is there 2 times (x.a-s0, y.a-s0). That is one training seed: models are compared by x.a-s0 alone."
    )
    assert twice in texts
    assert any(text.startswith("Training seeds per model: a 1, b 2.") for text in texts)
    (contrast,) = [c for c in results.contrasts if c.kind == "models"]
    assert (contrast.seeds, contrast.verdict) == (None, "higher on these runs")
    (table,) = headline_tables(results)
    assert [(row.seeds, row.repeats) for row in table.rows] == [(1, 1), (2, 0)]
    own = [score.estimate for score in table.rows[0].scores]
    assert {e.n for e in own if isinstance(e, Proportion)} == {250}  # trials of one run: the interval is its own
    assert title_of(table)[1].count("n = 250 of each of 1 to 2 seeds") == 1
    assert any(line.startswith("a (1 seed, twice)") for line in table_text(table, None))
    lines = [limit.line for limit in folded_limits(list(flags(results)))]
    assert "Training seeds that count once: a seed 0" in lines
    assert "One training seed: 1 model (a)" in lines


def test_one_model_whose_seed_is_there_twice_has_one_training_seed():
    runs = [fabricated.run(f"{study}.a", group="a", seed=0) for study in ("x", "y")]
    cells = fabricated.plan(["multikey"], lengths=(128,), n=20)
    behaviours = {r.name: lambda c: np.full(len(c["task"]), 0.5) for r in runs}
    results = analyse(
        fabricated.study(runs, [fabricated.task("multikey", 4)], cells), fabricated.records(behaviours, cells)
    )
    assert "One training seed: 1 model (a)" in [limit.line for limit in folded_limits(list(flags(results)))]


def test_models_of_one_name_are_counted_and_planned_as_the_table_has_them(run, capsys):
    """Two studies call `att` what are two models, one of which has two seeds."""
    model = {"layout": "attention+mlp", "d_model": 32, "d_ff": 32, "vocab_size": 4096}
    model["mixers"] = {"attention": {"head_dim": 16}}
    targets = [run("one", "att", seed, model=model, train={"lr": 0.01}) for seed in (0, 1)]
    targets.append(run("two", "att", 0, model=model, train={"lr": 0.1}))
    assert _what_is_probed(targets, 3) == ("3 runs of 2 models", "run")
    work = {t.name: (Variant(t, None), [Prompts(128, 10)]) for t in targets}
    print_costs(work, targets[0].config, full=True)
    printed = capsys.readouterr().out
    assert "att-lr=0.01 (2 runs)" in printed
    assert "models)" not in printed
