"""What a newcomer adds works everywhere: one file each and one line of registration (tests/toys), from the plan to the report."""

import csv
import json

import pytest

from lcprobe.cli.commands import evaluate_main, train_main
from tests.tiny import write_config
from tests.toys import TOYS, registered

TASK = {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}
STUDY = {
    "model": {"d_model": 16, "d_ff": 16, "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8}}},
    "match": {"budget": None, "allow_mismatch": True},
    "grid": {
        "arch": {
            "toy": {"model": {"layout": "toy_mixer+mlp, toy_mixer"}},
            "attention": {"model": {"layout": "attention+mlp"}},
            "both": {"model": {"layout": "toy_mixer, attention+mlp"}},
        },
        "model.positional": ["toy_encoding", "rope"],
        "train.initial_state": [None, {"type": "fitted"}],
    },
    "train": {"context_length": 64, "tokens": 512, "batch_tokens": 256, "threads": 1},
    "probe": {
        "tasks": {"needle": TASK, "marked": {"type": "toy_task"}},
        "grids": [{"lengths": [1, 2], "depths": 1, "n": 2}],
        "while_training": {"lengths": [1], "n": 2},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    data = {"corpus": [{"type": "toy_source", "documents": 60}], "folder": str(folder / "data"), "held_out": 0.3}
    data["recipes"] = {"marked": {"task": "toy_task"}}
    data["mixture"] = [{"lm": 0.5, "episodes": {"marked": 1}}]
    return write_config(folder, data, **STUDY), folder / "runs" / "tiny"


@pytest.fixture
def toys():
    with registered():
        yield


def test_the_plan_knows_what_applies_to_each_model(study, toys, capsys):
    config, folder = study
    assert train_main([str(config), "--plan"]) == 0
    plan = " ".join(capsys.readouterr().out.split())
    # an encoding changes nothing without attention, an initial state nothing without recurrent layers
    assert "8 runs" in plan
    for run in ("attention-positional=toy_encoding", "both-positional=rope-", "toy-"):
        assert run in plan
    assert not folder.exists()


def test_they_are_trained_probed_and_reported(study, toys):
    config, folder = study
    assert train_main([str(config), "grid.train.initial_state=null"]) == 0
    assert evaluate_main([str(folder), "pe.extend=toy_extension", "pe.factor=2"]) == 0
    runs = {json.loads(path.read_text())["run"] for path in folder.glob("*/status.json")}
    assert len(runs) == 5, "an initial state is no toy"
    with open(folder / "tables" / "cells.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    variants = runs | {f"{run}+toy_extension" for run in runs if run != "toy"}  # it acts on attention
    assert {(cell["model"], cell["task"]) for cell in cells} == {
        (model, task) for model in variants for task in STUDY["probe"]["tasks"]
    }
    assert (folder / "report.html").is_file()


def test_they_are_known_while_they_are_registered_only():
    for registry, _ in TOYS.values():
        assert not set(registry) & set(TOYS)
    with registered("toy_mixer"):
        assert "toy_mixer" in TOYS["toy_mixer"][0]
    assert "toy_mixer" not in TOYS["toy_mixer"][0]
