"""The shipped studies of encodings, extensions, hybrids and length fixes can be planned, at their own size and at 2.7
B."""

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from lcprobe.config import load
from lcprobe.models.parts import parts_of
from lcprobe.probing.config import ProbeConfig
from lcprobe.schema import build
from lcprobe.studies.planning.costs import matching_table
from lcprobe.studies.planning.memory.estimate import memory_notes
from lcprobe.studies.planning.plan import make_plan

STUDIES = ["positional", "extension", "length_fix", "hybrid_position"]


def planned(name, *more, overrides=()):
    return make_plan(load([f"configs/study/{name}.yaml", *more], overrides))


@pytest.mark.parametrize(
    "name", ["hybrid_position", *(pytest.param(n, marks=pytest.mark.slow) for n in STUDIES if n != "hybrid_position")]
)
def test_the_same_runs_at_both_sizes(name):
    small, large = planned(name), planned(name, "configs/study/at-2.7b.yaml")
    assert [run.name for run in large.runs] == [run.name for run in small.runs]
    assert large.mismatch < 0.02
    assert memory_notes(large) == []
    for run, little in zip(large.runs, small.runs, strict=True):
        config, before = run.config, little.config
        assert 2.5e9 < run.matched.cost.params < 2.9e9, run.name
        if config.train.from_ is not None:
            assert config.train.steps == before.train.steps == 300
        assert config.train.lr <= 0.00016
        for longest, context in ((config.model.positions, 2048), (before.model.positions, 128)):
            assert longest is None or longest.config.max_length == 8 * context
    layers = {run.name: Counter(layer.entry for layer in parts_of(run.matched.config).layers) for run in large.runs}
    if name == "hybrid_position":
        assert all(count == {"attention": 16, "mamba2": 32} for count in layers.values())


@pytest.mark.parametrize(
    "path", [*sorted(Path("configs").glob("*/*.yaml")), Path("configs/quickstart.yaml")], ids=str
)
def test_every_cell_in_which_values_compete_has_its_wrong_key_control(path):
    """Nothing is claimed about the others: a single needle among needles is no single needle."""
    probe = load([str(path)], []).get("probe")
    config, asked = build(ProbeConfig, {**(probe or {}), "while_training": None}, "probe"), {}
    of_tasks = [(grid, name) for grid in config.grids if probe for name in grid.tasks or config.tasks]
    for grid, name in of_tasks:
        fixed, choice = config.tasks[name].formats, config.tasks[name].choice
        levels = {"haystack": grid.haystack, "key": grid.key, "value": grid.value}
        levels = {factor: [fixed[factor]] if factor in fixed else level for factor, level in levels.items()}
        for haystack, key, value, length in product(*levels.values(), grid.lengths):
            alone = haystack != "needles" and choice.name == "niah" and choice.config.n_keys == 1
            if "wrong_key" in choice.cls.axes.controls and not alone:
                asked.setdefault((name, haystack, key, value, str(length)), set()).update(grid.controls)
    assert [cell for cell, controls in asked.items() if "none" in controls and "wrong_key" not in controls] == []


def test_models_that_do_not_fit_into_memory_are_named_with_a_remedy():
    """Weights, gradients, moments and DDP's buckets of 2.6 B parameters are 53 GB; eight rows keep the rest."""
    overlay = "configs/study/at-2.7b.yaml"
    (note,) = memory_notes(planned("extension", overlay, overrides=["study.plan_for=h100"]))
    assert "too large for H100 (80 GB per device)" in note
    assert "about 91 GB; what it holds all the time is 53 GB of it; train.accumulate=32 would fit (act" in note
    fitted = planned("extension", overlay, overrides=["study.plan_for=h100", "train.accumulate=32"])
    assert memory_notes(fitted) == []
    assert matching_table(fitted)[0]["memory GB (est.)"] < 80
    for n_layers, remedy in {
        66: "; train.accumulate=64 would fit",
        72: "; train.recompute=true would fit (a third more compute)",
        80: "; train.strategy=fsdp2 would fit (weights are gathered for each block)",
    }.items():
        (note,) = memory_notes(planned("extension", overlay, overrides=[f"model.n_layers={n_layers}"]))
        assert remedy in note
    overrides = ["model.n_layers=120", "train.devices=1", "train.accumulate=64"]
    (note,) = memory_notes(planned("extension", overlay, overrides=overrides))
    assert "every device has a full copy: train.strategy=fsdp2 on several train.devices divides it" in note


def test_training_lengths_at_2_7b():
    """The same architectures as on two cores, with equal tokens; hours and memory at each training length."""
    small, large = planned("training_length"), planned("training_length-2.7b")
    architectures = {run.config.study.architecture for run in small.runs}
    rows = {row["model"]: row for row in matching_table(large)}
    assert set(rows) == {f"L{n}K-{name}" for n in (2, 4, 8, 16) for name in architectures}
    assert {run.config.train.tokens for run in large.runs} == {54_000_000_000}
    assert {row["tokens"] for row in rows.values()} == {54_000_000_000 // 1_048_576 * 1_048_576}
    assert {run.config.train.batch_tokens for run in large.runs} == {1_048_576}
    assert all(2.5e9 < row["parameters"] < 2.7e9 for row in rows.values())
    for name in architectures:
        own = [rows[f"L{n}K-{name}"] for n in (2, 4, 8, 16)]
        assert [row["training length"] for row in own] == [2048, 4096, 8192, 16384]
        hours = [row["hours, h100 (est.)"] for row in own]
        assert hours == sorted(hours)
        assert (hours[-1] > 1.05 * hours[0]) == (name != "mamba2")
        assert [row["KV bytes"] // own[0]["KV bytes"] for row in own if own[0]["KV bytes"]] in ([1, 2, 4, 8], [])
        assert all(row["memory GB (est.)"] < 80 for row in own)
    assert memory_notes(large) == []
    kept = [
        replace(run, config=replace(run.config, train=replace(run.config.train, recompute=False)))
        for run in large.runs
    ]
    (note,) = memory_notes(replace(large, runs=kept))
    assert "train.recompute=true would fit" in note  # a row of 16K tokens by itself is too large without
