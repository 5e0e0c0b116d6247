"""configs/paper asks for every published cell, and its studies are the designs that they say they are."""

from collections import Counter
from pathlib import Path

import pytest

from lcprobe.analysis.findings.published_cells import NEAREST_STRATUM, OURS
from lcprobe.analysis.published.tables import NEEDLE, SAMPLES, cells, models, ruler_tasks
from lcprobe.config import load, parse
from lcprobe.models.checkpoints.hub import hub_address
from lcprobe.models.checkpoints.known import known
from lcprobe.studies.planning.plan import make_plan

FOLDER = Path("configs/paper")
TABLES = {"tables-1-7-19": ("1", "7-19"), "tables-2-3": ("2", "3"), "table-4": ("4",)}


@pytest.mark.parametrize("name", TABLES)
def test_every_published_cell_is_in_the_grid_of_its_config(name):
    config = parse(load([str(FOLDER / f"{name}.yaml")], []))
    papers = {known()[hub_address(m.address).name].paper for m in config.study.models}
    main = next(grid for grid in config.probe.grids if grid.controls == ["none"])
    lengths = {length.tokens(1, "lengths") for length in main.lengths}
    assert main.n == SAMPLES
    assert config.probe.continuation == "ruler"
    assert "paper" in config.probe.templates
    for cell in cells():
        if cell.table not in TABLES[name]:
            continue
        assert cell.model in papers
        assert cell.length in lengths
        if cell.task == NEEDLE:
            assert all(OURS[f.haystack] in main.haystack and OURS[f.value] in main.value for f in cell.formats)
            assert all(OURS[f.key] in main.key for f in cell.formats)
            depth, n = cell.depth / 100, main.depths
            assert abs((min(int(depth * n), n - 1) + 0.5) / n - depth) <= NEAREST_STRATUM
        else:
            assert cell.task in config.probe.tasks or cell.task not in ruler_tasks()
    assert papers == {cell.model for cell in cells() if cell.table in TABLES[name]}


def test_experiments_on_published_checkpoints_are_on_all_eight():
    for path in FOLDER.glob("*.yaml"):
        config = parse(load([str(path)], []))
        named = {known()[hub_address(m.address).name].paper for m in config.study.models}
        assert named in ({*models()}, {"Mamba2", "M2A", "TPP"}, set()), path
        assert named or config.data.recipes, f"{path}: neither published models nor something to train on"
        assert (config.study.plan_for == "a100") == bool(named), f"{path}: models of 2.7 B are planned for a GPU"


def test_the_first_question_has_no_run_twice_and_every_model_the_same_parameters():
    """3 training lengths x (4 encodings of attention + 4 of the hybrid + 1 without attention) x 3 seeds."""
    plan = make_plan(load([str(FOLDER / "question-1-architectures.yaml")], []))
    assert len(plan.runs) == 3 * (4 + 4 + 1) * 3
    assert plan.mismatch < 0.02


def test_features_change_one_at_a_time_at_equal_parameters():
    plan = make_plan(load([str(FOLDER / "question-2-features.yaml")], ["grid.seed=[0]"]))
    assert plan.mismatch < 0.02
    by_name = Counter(run.group for run in plan.runs)
    assert "base" in by_name
    assert set(by_name.values()) == {1}
    assert len(by_name) >= 14
